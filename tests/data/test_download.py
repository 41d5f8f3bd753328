"""Downloads from a real HTTP server: resumed, verified, refused, never half a file."""

from __future__ import annotations

import email.utils
import errno
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from file_server import Fault, FileServer, md5_etag

from hambench.data.download.catalogue import FileEntry
from hambench.data.download.digests import MIB
from hambench.data.download.fetch import Outcome, fetch
from hambench.data.download.transfer import Patience
from hambench.errors import DataError, HambenchError, RunError, VerificationError
from hambench.files import locked

NAME = "data.db"
DATE = "Wed, 01 Oct 2025 10:00:00 GMT"
CONTENT = np.random.default_rng(7).bytes(3_000_000)
OTHER = np.random.default_rng(8).bytes(3_000_000)


@pytest.fixture
def waits() -> list[float]:
    """Pauses that were made, in seconds (none is waited for)."""
    return []


@pytest.fixture
def get(tmp_path: Path, waits: list[float]):
    """Fetches the file of some URLs into the test's folder."""

    def call(*urls: str, stall: float = 5.0, attempts: int = 4, **fields: Any) -> Outcome:
        offline = fields.pop("offline", False)
        entry = FileEntry(name=NAME, urls=urls, **fields)
        patience = Patience(attempts=attempts, stall=stall, wait=waits.append)
        return fetch(entry, tmp_path, offline=offline, patience=patience, progress=False)

    return call


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def left(folder: Path) -> set[str]:
    """Files in a folder, without the marks of the name."""
    return {path.name.removeprefix(NAME) for path in folder.iterdir()}


def test_a_file_is_fetched_verified_and_recorded(get, server: FileServer, tmp_path: Path):
    etag = md5_etag(CONTENT)
    url = server.add("a", CONTENT, etag=etag)
    published = {"bytes": len(CONTENT), "etag": etag, "sha256": sha256(CONTENT)}
    done = get(url, **published)
    assert (done.path, done.fetched) == (tmp_path / NAME, True)
    assert done.checked == "sha256 and etag as published"
    assert done.path.read_bytes() == CONTENT
    assert left(tmp_path) == {"", ".download.json"}
    record = json.loads((tmp_path / f"{NAME}.download.json").read_text())
    assert {key: record[key] for key in published} == published
    assert (record["url"], record["checked"]) == (url, done.checked)
    again = get(url, **published)
    assert (again.fetched, again.checked) == (False, done.checked)
    assert len(server.asked) == 1


def test_the_folder_is_made_and_the_file_is_as_readable_as_others(
    server: FileServer, tmp_path: Path
):
    entry = FileEntry(name=NAME, urls=(server.add("a", CONTENT),))
    done = fetch(entry, tmp_path / "new" / "er", progress=False)
    other = tmp_path / "other"
    other.touch()
    assert done.path.stat().st_mode == other.stat().st_mode


def test_without_a_published_checksum_this_is_said(get, server: FileServer):
    done = get(server.add("a", CONTENT))
    assert done.checked == (f"3.0 MB, no checksum is published, sha256 {sha256(CONTENT)} recorded")


@pytest.mark.parametrize(("part", "size"), [(8, 20 * MIB), (5, 11 * MIB), (7, 13 * MIB + 5)])
def test_etags_of_several_parts_are_verified(get, server: FileServer, part: int, size: int):
    content = np.random.default_rng(size).bytes(size)
    etag = md5_etag(content, part * MIB)
    assert etag.partition("-")[2] in ("2", "3")
    done = get(server.add("a", content, etag=etag), etag=etag)
    assert done.checked == f"etag (parts of {part} MiB) as published"


def test_a_broken_transfer_goes_on_where_it_was(get, server: FileServer, waits: list[float]):
    faults = [Fault(cut=1_000_000), Fault(cut=1_500_000)]
    url = server.add("a", CONTENT, etag="tag", faults=faults)
    assert get(url, sha256=sha256(CONTENT)).path.read_bytes() == CONTENT
    assert server.sent == [1_000_000, 1_500_000, 500_000]
    assert server.statuses == [200, 206, 206]
    assert server.asked[1].headers["Range"] == "bytes=1000000-"
    assert server.asked[1].headers["If-Range"] == '"tag"'
    assert waits == [1.0, 1.0]  # each had brought something


def test_a_date_serves_where_there_is_no_etag(get, server: FileServer):
    url = server.add("a", CONTENT, modified=DATE, faults=[Fault(cut=1_000_000)])
    assert get(url).path.read_bytes() == CONTENT
    assert server.sent == [1_000_000, 2_000_000]


def test_what_nothing_identifies_is_started_over(get, server: FileServer):
    url = server.add("a", CONTENT, checks_if_range=False, faults=[Fault(cut=1_000_000)])
    assert get(url).path.read_bytes() == CONTENT
    assert server.sent == [1_000_000, 3_000_000]


def test_without_ranges_it_is_started_over(get, server: FileServer):
    url = server.add("a", CONTENT, etag="tag", ranges=False, faults=[Fault(cut=1_000_000)])
    assert get(url, sha256=sha256(CONTENT)).path.read_bytes() == CONTENT
    assert server.statuses == [200, 200]


def test_without_ranges_and_an_end_it_is_given_up(
    get, server: FileServer, tmp_path: Path, waits: list[float]
):
    url = server.add("a", CONTENT, etag="tag", ranges=False, always=Fault(cut=1_000_000))
    with pytest.raises(DataError, match=r"ended after 1000000 of 3000000 bytes, 4 attempts") as e:
        get(url)
    assert "1.0 MB of 3.0 MB are kept" in str(e.value)
    assert waits == [1.0, 2.0, 4.0]
    assert left(tmp_path) == {".part", ".part.json"}


@pytest.mark.parametrize("checks", [True, False], ids=["If-Range", "ignores If-Range"])
@pytest.mark.parametrize("size", [3_000_000, 2_000_000, 400_000])
def test_a_file_that_changed_meanwhile_is_started_over(
    get, server: FileServer, checks: bool, size: int
):
    url = server.add("a", CONTENT, etag="old", checks_if_range=checks, always=Fault(cut=1_000_000))
    with pytest.raises(DataError):
        get(url, attempts=1)
    server.add("a", OTHER[:size], etag="new", checks_if_range=checks)
    assert get(url).path.read_bytes() == OTHER[:size]


def test_a_published_etag_that_changed_is_refused_before_the_transfer(
    get, server: FileServer, tmp_path: Path
):
    url = server.add("a", OTHER, etag=md5_etag(OTHER))
    with pytest.raises(DataError, match=f"etag is {md5_etag(OTHER)}, .* it has changed") as error:
        get(url, etag=md5_etag(CONTENT))
    assert error.value.exit_code == 3
    assert left(tmp_path) == set()


def test_an_etag_of_another_kind_contradicts_nothing(get, server: FileServer):
    url = server.add("a", CONTENT, etag="67dc-5f3e1")
    assert get(url, etag=md5_etag(CONTENT)).checked == "etag as published"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"etag": "new"}, "has changed; "),
        ({"etag": "old", "ranges": False}, "does not go on with what is here; "),
    ],
)
def test_a_new_start_is_told(
    get,
    server: FileServer,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, Any],
    said: str,
):
    url = server.add("a", CONTENT, etag="old", always=Fault(cut=1_000_000))
    with pytest.raises(DataError):
        get(url, attempts=1)
    server.add("a", CONTENT, **settings)
    with caplog.at_level("INFO", "hambench"):
        get(url)
    assert f"{url} {said}" in caplog.text


def test_a_published_size_that_differs_is_refused(get, server: FileServer, tmp_path: Path):
    url = server.add("a", CONTENT)
    with pytest.raises(DataError, match="has 3000000 bytes, 2999999 were published"):
        get(url, bytes=len(CONTENT) - 1)
    assert left(tmp_path) == set()


def test_mirrors_come_first_and_have_etags_of_their_own(get, server: FileServer):
    mirror = server.add("mirror", CONTENT, etag="of-nginx")
    url = server.add("a", CONTENT, etag=md5_etag(CONTENT))
    done = get(url, mirrors=(mirror,), etag=md5_etag(CONTENT))
    assert done.checked == "etag as published"
    assert [asked.path for asked in server.asked] == ["/mirror"]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_not_repeated_and_the_next_url_is_tried(
    get, server: FileServer, waits: list[float], status: int
):
    gone = server.add("gone", b"", always=Fault(status=status))
    assert get(gone, server.add("a", CONTENT)).path.read_bytes() == CONTENT
    assert server.statuses == [status, 200]
    assert waits == []


def test_all_urls_that_failed_are_named(get, server: FileServer, tmp_path: Path):
    gone, closed = server.url("gone"), "http://127.0.0.1:1/x"
    with pytest.raises(DataError, match="--mirrors") as error:
        get(gone, closed)
    said = str(error.value)
    assert f"{gone}: 404 Not Found; {closed}: ConnectionRefusedError" in said
    assert "4 attempts in a row" in said
    assert "\n" not in said
    assert left(tmp_path) == set()


def test_errors_of_the_server_pass(get, server: FileServer, waits: list[float]):
    faults = [Fault(status=500), Fault(status=503), Fault(status=502)]
    assert get(server.add("a", CONTENT, faults=faults)).path.read_bytes() == CONTENT
    assert waits == [1.0, 2.0, 4.0]


def test_a_server_says_how_long_to_wait(get, server: FileServer, waits: list[float]):
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    said = ["7", date, "nonsense", "100000"]
    faults = [Fault(status=429, headers={"Retry-After": text}) for text in said]
    get(server.add("a", CONTENT, faults=faults), attempts=5)
    assert waits[0] == 7
    assert 25 < waits[1] <= 31
    assert waits[2:] == [4.0, 600.0]


def test_long_pauses_have_a_limit(get, waits: list[float]):
    with pytest.raises(DataError):
        get("http://127.0.0.1:1/x", attempts=10)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


@pytest.mark.parametrize("key", ["sha256", "etag", "parts"])
def test_other_bytes_than_published_are_put_aside(
    get, server: FileServer, tmp_path: Path, key: str
):
    wrong = {
        "sha256": {"sha256": sha256(OTHER)},
        "etag": {"etag": md5_etag(OTHER)},
        "parts": {"etag": f"{'0' * 32}-1"},
    }[key]
    bad = server.add("bad", CONTENT)
    with pytest.raises(VerificationError, match=rf"{bad}: .* \(put aside as .*data.db.rejected"):
        get(bad, **wrong)
    assert left(tmp_path) == {".rejected"}
    if key != "parts":
        assert get(bad, server.add("good", OTHER), **wrong).path.read_bytes() == OTHER


def test_redirections_keep_the_range(get, server: FileServer):
    target = server.add("a", CONTENT, etag="tag", faults=[Fault(cut=1_000_000)])
    moved = Fault(status=302, headers={"Location": target})
    get(server.add("moved", b"", always=moved), sha256=sha256(CONTENT))
    assert server.sent == [0, 1_000_000, 0, 2_000_000]


def test_a_redirection_in_circles_is_a_refusal(get, server: FileServer):
    url = server.url("round")
    server.add("round", b"", always=Fault(status=302, headers={"Location": url}))
    with pytest.raises(DataError, match="302"):
        get(url)


def test_slow_bytes_are_waited_for_and_silence_is_not(get, server: FileServer, waits: list[float]):
    slow = Fault(drip=300_000, pause=0.12)  # 1.2 s in all
    began = time.monotonic()
    get(server.add("slow", CONTENT, always=slow), stall=0.6)
    assert time.monotonic() - began > 1
    assert waits == []


def test_silence_breaks_a_connection(get, server: FileServer, waits: list[float]):
    silent = Fault(cut=1_000_000, silence=1.5)
    url = server.add("a", CONTENT, etag="tag", faults=[silent])
    assert get(url, stall=0.3).path.read_bytes() == CONTENT
    assert (server.sent, waits) == ([1_000_000, 2_000_000], [1.0])


def test_silence_is_named(get, server: FileServer):
    url = server.add("a", CONTENT, etag="tag", always=Fault(cut=0, silence=1.5))
    with pytest.raises(DataError, match=r"no byte for 0\.2 s, 2 attempts in a row"):
        get(url, stall=0.2, attempts=2)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_length_need_not_be_said(get, server: FileServer, chunked: bool):
    etag = md5_etag(CONTENT, 8 * MIB)
    url = server.add("a", CONTENT, etag=etag, says_length=False, chunked=chunked)
    done = get(url, bytes=len(CONTENT), etag=etag)
    assert done.path.read_bytes() == CONTENT
    done.path.unlink()
    with pytest.raises(DataError, match="has 3000000 bytes, 5 were published"):
        get(url, bytes=5)


def test_chunks_without_an_end_are_a_broken_transfer(get, server: FileServer):
    url = server.add("a", CONTENT, chunked=True, faults=[Fault(cut=1_000_000)])
    assert get(url).path.read_bytes() == CONTENT


def test_room_is_checked_and_what_is_here_counts(
    get, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    url = server.add("a", CONTENT, etag="tag", faults=[Fault(cut=1_000_000)])
    with pytest.raises(DataError):
        get(url, attempts=1)
    real = shutil.disk_usage(tmp_path)

    def leave(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=free))

    leave(1_999_999)
    with pytest.raises(RunError, match=r"2.0 MB more are needed and 2.0 MB free .* --to"):
        get(url)
    leave(2_000_000)
    assert get(url).path.read_bytes() == CONTENT
    assert server.sent[-1] == 2_000_000


def test_a_full_disk_is_told(get, server: FileServer, tmp_path: Path):
    """The device /dev/full fails as a full disk does, in the kernel."""
    (tmp_path / f"{NAME}.part").symlink_to("/dev/full")
    with pytest.raises(RunError, match="no space left to write") as error:
        get(server.add("a", CONTENT))
    assert isinstance(error.value.__cause__, OSError)
    assert error.value.__cause__.errno == errno.ENOSPC
    assert not (tmp_path / NAME).exists()


def _fetch_limited(url: str, folder: Path, limit: int, queue: Any) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        fetch(FileEntry(name=NAME, urls=(url,)), folder, progress=False)
    except RunError as error:
        queue.put(str(error))
    else:
        queue.put("written")


def test_a_write_that_fails_keeps_the_part(get, server: FileServer, tmp_path: Path):
    url = server.add("a", CONTENT, etag="tag")
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    child = context.Process(target=_fetch_limited, args=(url, tmp_path, 1_234_567, queue))
    child.start()
    assert "1.2 MB of 3.0 MB are kept in" in queue.get()
    child.join()
    assert left(tmp_path) == {".part", ".part.json"}
    assert get(url).path.read_bytes() == CONTENT
    assert server.sent[-1] == len(CONTENT) - 1_234_567


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_made(server: FileServer, tmp_path: Path, place: str):
    (tmp_path / "file").touch()
    entry = FileEntry(name=NAME, urls=(server.add("a", CONTENT),))
    with pytest.raises(HambenchError, match="is a file"):
        fetch(entry, tmp_path / place, progress=False)
    assert server.asked == []


def test_one_process_at_a_time(get, server: FileServer, tmp_path: Path):
    url = server.add("a", CONTENT)
    with (
        locked(tmp_path / f".{NAME}.lock"),
        pytest.raises(RunError, match="is being downloaded by another process"),
    ):
        get(url)
    assert server.asked == []
    assert get(url).fetched  # a lock that nobody holds is taken over


def test_offline_uses_what_is_here_and_nothing_else(get, server: FileServer, tmp_path: Path):
    url = server.add("a", CONTENT, etag="tag")
    with pytest.raises(DataError, match="--offline forbids"):
        get(url, offline=True)
    assert list(tmp_path.iterdir()) == []
    get(url)
    assert get(url, offline=True).path.read_bytes() == CONTENT
    assert len(server.asked) == 1


class Begun(NamedTuple):
    """A download killed at some point: what is in the part, and what the record says."""

    part: bytes
    bytes: int | None


@pytest.mark.parametrize(
    ("begun", "sent"),
    [
        (Begun(CONTENT, len(CONTENT)), []),
        (Begun(CONTENT[:10], len(CONTENT)), [2_999_990]),
        (Begun(b"", len(CONTENT)), [3_000_000]),
        (Begun(CONTENT + b"x", len(CONTENT)), [3_000_000]),
        (Begun(CONTENT[:10], None), [3_000_000]),
    ],
    ids=["complete", "some", "empty", "too long", "length unknown"],
)
def test_every_state_a_kill_can_leave_is_gone_on_with(
    get, server: FileServer, tmp_path: Path, begun: Begun, sent: list[int]
):
    url = server.add("a", CONTENT, etag="tag")
    (tmp_path / f"{NAME}.part").write_bytes(begun.part)
    about = {"url": url, "etag": "tag", "modified": None, "bytes": begun.bytes}
    (tmp_path / f"{NAME}.part.json").write_text(json.dumps(about))
    done = get(url, offline=not sent, sha256=sha256(CONTENT))
    assert done.path.read_bytes() == CONTENT
    assert server.sent == sent
    assert left(tmp_path) == {"", ".download.json"}


@pytest.mark.parametrize("about", [None, "", "{", "[]", '{"url": 3}'])
def test_a_part_of_unknown_origin_is_not_used(
    get, server: FileServer, tmp_path: Path, about: str | None
):
    (tmp_path / f"{NAME}.part").write_bytes(b"what is this?")
    if about is not None:
        (tmp_path / f"{NAME}.part.json").write_text(about)
    assert get(server.add("a", CONTENT, etag="tag")).path.read_bytes() == CONTENT


def test_the_url_that_began_goes_on(get, server: FileServer):
    first, second = server.add("first", CONTENT, etag="a"), server.add("second", CONTENT, etag="b")
    server.files["/first"].faults = [Fault(status=404)]
    server.files["/second"].faults = [Fault(cut=1_000_000)]
    with pytest.raises(DataError):
        get(first, second, attempts=1)
    get(first, second)
    asked = [(asked.path, asked.sent) for asked in server.asked]
    assert asked == [("/first", 0), ("/second", 1_000_000), ("/second", 2_000_000)]


@pytest.mark.parametrize(("tag", "sent"), [("same", 2_000_000), ("other", 3_000_000)])
def test_another_url_goes_on_if_its_etag_is_the_same(get, server: FileServer, tag: str, sent: int):
    first = server.add("first", CONTENT, etag="same", modified=DATE, faults=[Fault(cut=1_000_000)])
    server.files["/first"].always = Fault(status=404)
    second = server.add("second", CONTENT, etag=tag, modified=DATE)
    assert get(first, second).path.read_bytes() == CONTENT
    assert server.sent == [1_000_000, 0, sent]


def test_a_date_says_nothing_of_another_url(get, server: FileServer):
    first = server.add("first", CONTENT, modified=DATE, faults=[Fault(cut=1_000_000)])
    server.files["/first"].always = Fault(status=404)
    second = server.add("second", OTHER, modified=DATE)
    assert get(first, second).path.read_bytes() == OTHER


def test_new_starts_that_come_less_far_bring_nothing_new(
    get, server: FileServer, waits: list[float]
):
    faults = [Fault(cut=cut) for cut in (1_000_000, 500_000, 900_000, 500_000)]
    url = server.add("a", CONTENT, etag="tag", ranges=False, faults=faults)
    with pytest.raises(DataError, match="4 attempts in a row"):
        get(url)
    assert waits == [1.0, 2.0, 4.0]


def test_what_another_process_has_just_finished_is_not_fetched_again(
    get, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def locked_late(path: Path) -> Any:
        (tmp_path / NAME).write_bytes(CONTENT)  # the other one ends, and lets go of its lock
        return locked(path)

    monkeypatch.setattr("hambench.data.download.fetch.locked", locked_late)
    assert not get(server.add("a", OTHER)).fetched
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.asked == []


def test_what_has_the_name_is_never_replaced(get, server: FileServer, tmp_path: Path):
    url = server.add("a", CONTENT)
    (tmp_path / NAME).write_bytes(b"mine")
    done = get(url)
    assert (done.fetched, done.checked) == (False, "not verified, downloaded otherwise")
    with pytest.raises(DataError, match="has 4 bytes, 3000000 were published; remove it"):
        get(url, bytes=len(CONTENT))
    assert (tmp_path / NAME).read_bytes() == b"mine"
    (tmp_path / NAME).unlink()
    (tmp_path / NAME).mkdir()
    with pytest.raises(DataError, match="is no file"):
        get(url)
    assert server.asked == []


def test_a_changed_file_loses_its_record(get, server: FileServer):
    done = get(server.add("a", CONTENT), sha256=sha256(CONTENT))
    os.utime(done.path, (1, 1))
    assert get(server.url("a")).checked == "not verified, downloaded otherwise"


def test_by_hand(get, tmp_path: Path):
    with pytest.raises(DataError, match=r"data.db cannot be downloaded: ask; it belongs at .*db$"):
        get(manual="ask")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_keeps_the_part_and_says_so(server: FileServer, tmp_path: Path):
    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    url = server.add("a", CONTENT, etag="tag", faults=[Fault(cut=1_000_000)])
    entry = FileEntry(name=NAME, urls=(url,))
    with pytest.raises(
        KeyboardInterrupt, match=r"stopped; 1.0 MB of 3.0 MB are kept in .* goes on"
    ):
        fetch(entry, tmp_path, patience=Patience(wait=stop), progress=False)
    fetch(entry, tmp_path, progress=False)
    assert server.sent == [1_000_000, 2_000_000]
