"""Downloads on this machine: verified, recorded, resumed from any state, never half a file."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from download_case import CONTENT, NAME, OTHER, left, sha256
from file_server import Fault, FileServer, md5_etag

from hambench.data.download.catalogue import FileEntry
from hambench.data.download.digests import MIB
from hambench.data.download.fetch import fetch
from hambench.data.download.transfer import Patience
from hambench.errors import DataError, HambenchError, RunError, VerificationError
from hambench.files import locked


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


def test_mirrors_come_first_and_have_etags_of_their_own(get, server: FileServer):
    mirror = server.add("mirror", CONTENT, etag="of-nginx")
    url = server.add("a", CONTENT, etag=md5_etag(CONTENT))
    done = get(url, mirrors=(mirror,), etag=md5_etag(CONTENT))
    assert done.checked == "etag as published"
    assert [asked.path for asked in server.asked] == ["/mirror"]


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


def test_what_another_process_has_just_finished_is_not_fetched_again(
    get, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def locked_late(path: Path) -> Any:
        (tmp_path / NAME).write_bytes(CONTENT)  # the other one ends, and lets go of its lock
        return locked(path)

    monkeypatch.setattr("hambench.files.locked", locked_late)
    assert not get(server.add("a", OTHER)).fetched
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.asked == []


def test_what_has_the_name_is_never_replaced(get, server: FileServer, tmp_path: Path):
    url = server.add("a", CONTENT)
    (tmp_path / NAME).write_bytes(b"mine")
    done = get(url)
    assert (done.fetched, done.checked) == (
        False,
        "nothing to verify it by; if it does not serve, remove it and call again",
    )
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
    assert get(server.url("a")).checked.startswith("nothing to verify it by")
    assert get(server.url("a"), sha256=sha256(CONTENT)).checked == "sha256 as published"
    done.path.write_bytes(OTHER)
    with pytest.raises(VerificationError, match="remove it to download it again"):
        get(server.url("a"), sha256=sha256(CONTENT))
    assert done.path.read_bytes() == OTHER


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
