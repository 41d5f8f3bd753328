"""Transfers from a real HTTP server that breaks off, changes its files, refuses and dawdles."""

from __future__ import annotations

import email.utils
import time
from pathlib import Path
from typing import Any

import pytest
from download_case import CONTENT, DATE, OTHER, left, sha256
from file_server import Fault, FileServer, md5_etag

from hambench.data.download.digests import MIB
from hambench.errors import DataError


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
