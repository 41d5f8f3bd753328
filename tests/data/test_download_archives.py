"""One member out of foreign tar archives; nothing else, nowhere else."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from file_server import Fault, FileServer

from hambench.data.download.archives import LARGEST_RATIO, extract
from hambench.data.download.catalogue import FileEntry
from hambench.data.download.fetch import Outcome, fetch
from hambench.errors import DataError, RunError

CONTENT = np.random.default_rng(3).bytes(1_000_000)


def packed(*members: tuple[str, bytes | tarfile.TarInfo], mode: str = "w:gz") -> bytes:
    """A tar archive of files, or of members of other kinds."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in members:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                tar.addfile(info)
    return raw.getvalue()


def special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


@pytest.fixture
def unpack(tmp_path: Path):
    """Unpacks x.db from the bytes of an archive into a folder of its own."""
    (tmp_path / "in").mkdir()

    def call(archive: bytes, member: str = "x.db") -> Path:
        (tmp_path / "a.tgz").write_bytes(archive)
        target = tmp_path / "in" / "x.db"
        digest = extract(
            tmp_path / "a.tgz", member, target, title="a.tgz", check_room=lambda needed: None
        )
        assert digest == hashlib.sha256(target.read_bytes()).hexdigest()
        return target

    yield call
    assert {path.name for path in tmp_path.iterdir()} <= {"a.tgz", "in"}
    assert {path.name for path in (tmp_path / "in").iterdir()} <= {"x.db"}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("name", ["x.db", "./x.db", "some/folder/x.db"])
def test_a_member_is_found_wherever_it_is(unpack, name: str, mode: str):
    archive = packed(("other", b"no"), (name, CONTENT), ("x.db.txt", b"no"), mode=mode)
    assert unpack(archive).read_bytes() == CONTENT


def test_the_full_path_says_which(unpack):
    archive = packed(("a/x.db", b"no"), ("b/x.db", CONTENT))
    assert unpack(archive, "b/x.db").read_bytes() == CONTENT
    with pytest.raises(
        DataError, match=r"b/x.db' is one of several of that name \(a/x.db, b/x.db\)"
    ):
        unpack(archive)


@pytest.mark.parametrize("name", ["../x.db", "a/../../x.db", "/tmp/x.db", "/x.db", "a/../x.db"])
def test_members_outside_are_refused(unpack, name: str):
    with pytest.raises(DataError, match="would lie outside the folder; it is not unpacked"):
        unpack(packed((name, CONTENT)))


@pytest.mark.parametrize(
    "info",
    [
        special(tarfile.SYMTYPE, "/etc/passwd"),
        special(tarfile.LNKTYPE, "other"),
        special(tarfile.FIFOTYPE),
        special(tarfile.CHRTYPE),
        special(tarfile.DIRTYPE),
    ],
    ids=["symbolic link", "hard link", "fifo", "device", "folder"],
)
def test_links_and_devices_are_refused(unpack, info: tarfile.TarInfo):
    with pytest.raises(DataError, match="is a link or of another special kind"):
        unpack(packed(("other", b"yes"), ("x.db", info)))


def test_evil_neighbours_touch_nothing(unpack, tmp_path: Path):
    link = special(tarfile.SYMTYPE, str(tmp_path))
    archive = packed(
        ("../evil", b"evil"), ("/evil", b"evil"), ("here", link), ("here/evil", b"evil"),
        ("x.db", CONTENT),
    )  # fmt: skip
    assert unpack(archive).read_bytes() == CONTENT
    assert not (tmp_path / "evil").exists()
    assert not Path("/evil").exists()


def test_bombs_are_refused(unpack):
    archive = packed(("x.db", bytes(20_000_000)))
    assert len(archive) * LARGEST_RATIO < 20_000_000
    with pytest.raises(DataError, match=f"20000000 bytes, more than {LARGEST_RATIO} times"):
        unpack(archive)


def test_a_missing_member_is_named_with_what_is_there(unpack):
    with pytest.raises(DataError, match=r"no member 'x.db' \(it holds y.db, z.db\)"):
        unpack(packed(("y.db", b"y"), ("z.db", b"z")))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_damaged_archives_are_told(unpack, tmp_path: Path, mode: str, damage: str):
    whole = packed(("x.db", CONTENT), mode=mode)
    if damage == "flipped" and mode == "w":
        pytest.skip("a bare tar has no checksum of its content")
    middle = len(whole) // 2
    archive = {
        "cut": whole[:middle],
        "flipped": whole[:middle] + bytes(64) + whole[middle + 64 :],
        "empty": b"",
        "foreign": b"<html>not found</html>" * 100,
    }[damage]
    with pytest.raises(DataError, match=r"a.tgz is no tar archive, or a damaged one"):
        unpack(archive)
    assert list((tmp_path / "in").iterdir()) == []


def test_names_and_modes_of_the_archive_play_no_part(unpack):
    info = tarfile.TarInfo("x.db")
    info.mode, info.uid, info.size = 0o4777, 12345, 2
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        tar.addfile(info, io.BytesIO(b"ok"))
    status = unpack(raw.getvalue()).stat()
    assert (status.st_uid, status.st_mode & 0o7111) == (os.getuid(), 0)


def get(folder: Path, *urls: str, **fields: object) -> Outcome:
    entry = FileEntry(name="x.db", urls=urls, archive="x.db", **fields)  # type: ignore[arg-type]
    return fetch(entry, folder, progress=False)


def test_an_archive_is_downloaded_unpacked_and_removed(server: FileServer, tmp_path: Path):
    archive = packed(("folder/x.db", CONTENT))
    digest = hashlib.sha256(archive).hexdigest()
    url = server.add("a.tgz", archive, etag="t", faults=[Fault(cut=300_000)])
    done = get(tmp_path, url, bytes=len(archive), sha256=digest)
    assert done.path.read_bytes() == CONTENT
    assert done.checked == "sha256 as published"
    assert {p.name for p in tmp_path.iterdir()} == {"x.db", "x.db.download.json"}
    assert not get(tmp_path, url, bytes=len(archive), sha256=digest).fetched
    assert server.sent == [300_000, len(archive) - 300_000]


def test_room_for_the_member_is_checked_too(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    archive = packed(("x.db", CONTENT + bytes(9_000_000)))
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=5_000_000))
    with pytest.raises(RunError, match=r"no space for x.db: 10.0 MB more are needed"):
        get(tmp_path, server.add("a.tgz", archive, etag="t"))


def test_a_damaged_archive_is_put_aside_and_the_next_url_tried(server: FileServer, tmp_path: Path):
    good = packed(("x.db", CONTENT))
    bad = server.add("bad", good[: len(good) // 2])
    with pytest.raises(
        DataError, match=r"bad: it is no tar archive, or a damaged one.*put aside as"
    ):
        get(tmp_path, bad)
    assert get(tmp_path, bad, server.add("good", good)).path.read_bytes() == CONTENT
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"x.db", "x.db.rejected", "x.db.download.json"}


def test_a_kill_while_unpacking_costs_no_transfer(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from hambench.data.download import fetch as module

    def killed(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    url = server.add("a.tgz", packed(("x.db", CONTENT)), etag="t")
    with monkeypatch.context() as patch:
        patch.setattr(module, "extract", killed)
        with pytest.raises(KeyboardInterrupt, match="are kept in"):
            get(tmp_path, url)
    assert get(tmp_path, url).path.read_bytes() == CONTENT
    assert len(server.asked) == 1
