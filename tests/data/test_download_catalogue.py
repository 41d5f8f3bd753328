"""Catalogues of downloads: the project's own, those of users, and what is refused in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from file_server import md5_etag

from hambench.cli.download import files_of
from hambench.data.download.catalogue import FileEntry, merged, with_mirrors
from hambench.data.download.digests import MIB, digest, part_sizes
from hambench.data.location import DATA_VARIABLE
from hambench.errors import ConfigError, DataError
from hambench.registry import DOWNLOADS, load_task, task_names


@pytest.fixture(scope="module")
def ours() -> dict[str, FileEntry]:
    """All files of the project's catalogues."""
    return merged({p.path: p.content for p in DOWNLOADS.presets.values()})


@pytest.fixture
def mirrors(tmp_path: Path):
    """Writes a user's catalogue of some files and gives its path."""

    def write(files: Any, **others: Any) -> Path:
        path = tmp_path / "mirrors.yaml"
        path.write_text(
            files if isinstance(files, str) else yaml.safe_dump(others | {"files": files})
        )
        return path

    return write


KNOWN = {"a.db": FileEntry(name="a.db", urls=("http://x.org/a",), bytes=5, etag="0" * 32)}


def test_the_published_data_sets_are_described(ours: dict[str, FileEntry]):
    assert not DOWNLOADS.broken
    assert set(DOWNLOADS.names) >= {"md17", "nabla2dft", "omol_csh", "qh9"}
    nabla = "https://a002dlils-kadurin-nabladft.obs.ru-moscow-1.hc.sbercloud.ru/data/nablaDFTv2"
    homes = [entry.sources[0].rpartition("/")[0] for entry in ours.values() if entry.sources]
    assert homes.count(f"{nabla}/hamiltonian_databases") == 12
    assert homes.count(f"{nabla}/energy_databases") == 16
    assert homes.count("http://quantum-machine.org/data/schnorb_hamiltonian") == 4
    assert sum(entry.bytes or 0 for entry in ours.values() if "omol" in entry.name) == 318071263188
    for name, entry in ours.items():
        assert entry.name == name
        assert entry.manual or entry.archive or (entry.etag and entry.urls[0].endswith(f"/{name}"))
    assert ours["train_2k.db"].etag == "068975858201ae70743d3d4427c55e47-1803"
    water = ours["schnorb_hamiltonian_water.db"]
    assert (water.urls[0].rpartition("/")[2], water.archive) == (
        "schnorb_hamiltonian_water.tgz", "schnorb_hamiltonian_water.db",
    )  # fmt: skip
    assert "1LcEJGhB8VUGkuyb0oQ_9ANJdSkky9xMS" in (ours["QH9Stable.db"].manual or "")


@pytest.mark.parametrize("name", task_names())
def test_every_file_of_a_published_task_is_described(ours: dict[str, FileEntry], name: str):
    task = load_task(name)
    if task.spec.source == "published":
        assert files_of(task)
        assert set(files_of(task)) <= set(ours)


@pytest.mark.parametrize(
    ("name", "mib"), [("58k_train", 32), ("1k_test_common", 8), ("5k_test_all", 8)]
)
def test_part_sizes_of_omol_follow_from_sizes_and_etags(
    ours: dict[str, FileEntry], name: str, mib: int
):
    entry = ours[f"omol_csh_{name}.h5"]
    assert entry.bytes
    assert entry.etag
    parts = int(entry.etag.partition("-")[2])
    assert part_sizes(entry.bytes, parts) == [mib * MIB]


@pytest.mark.parametrize("part", [5, 8, 25])
@pytest.mark.parametrize("change", [-1, 0, 1])
def test_the_digest_finds_the_part_size(tmp_path: Path, part: int, change: int):
    """The formula of the etag is the test's own; sizes about a whole number of parts."""
    content = np.random.default_rng(part).bytes(2 * part * MIB + change)
    (tmp_path / "x").write_bytes(content)
    etag = md5_etag(content, part * MIB)
    found = digest(tmp_path / "x", etag)
    assert (found.etag, found.part) == (etag, part * MIB)
    wrong = digest(tmp_path / "x", "0" * 32 + etag[32:])
    assert (wrong.etag, wrong.part, wrong.sha256) == (None, None, found.sha256)


def test_an_empty_file_has_digests_too(tmp_path: Path):
    (tmp_path / "x").touch()
    assert digest(tmp_path / "x", md5_etag(b"")).etag == md5_etag(b"")
    assert digest(tmp_path / "x", f"{'0' * 32}-1").etag is None


def test_mirrors_are_tried_before_what_was_published(mirrors):
    path = mirrors({"a.db": {"urls": ["http://m.org/1", "http://m.org/2"], "sha256": "1" * 64}})
    (entry,) = with_mirrors(KNOWN, path).values()
    assert entry.sources == ("http://m.org/1", "http://m.org/2", "http://x.org/a")
    assert entry.urls == ("http://x.org/a",)
    assert (entry.bytes, entry.etag, entry.sha256) == (5, "0" * 32, "1" * 64)


def test_mirrors_add_files_and_have_a_base(mirrors):
    path = mirrors({"b.db": {"urls": ["b", "http://y.org/b"]}}, base="http://m.org/data/")
    found = with_mirrors(KNOWN, path)
    assert found["a.db"] == KNOWN["a.db"]
    assert found["b.db"].sources == ("http://m.org/data/b", "http://y.org/b")


def test_the_file_in_the_data_folder_is_read_unless_another_is_named(
    mirrors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    assert with_mirrors(KNOWN) == KNOWN
    mirrors({"b.db": {"urls": ["http://m.org/b"]}})
    assert "b.db" in with_mirrors(KNOWN)
    other = tmp_path / "other.yaml"
    other.write_text("files: {}")
    assert with_mirrors(KNOWN, other) == KNOWN


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.db": {"urls": ["http://m.org/a"], "bytes": 6}}, "files.a.db.bytes: 6 contradicts 5"),
        ({"a.db": {"urls": ["http://m.org/a"], "archive": "x"}, "b": 3}, "files.b"),
        ({"b.db": {"urls": ["ftp://m.org/b"]}}, "files.b.db.urls.0: .*ftp://m.org/b"),
        ({"b.db": {"urls": ["file:///etc/passwd"]}}, "files.b.db.urls.0"),
        ({"b.db": {"urls": ["b"]}}, r"files.b.db.urls.0: .*got 'b'"),
        ({"b.db": {"url": "http://m.org/b"}}, "files.b.db.url: Extra inputs"),
        ({"b.db": {}}, "files.b.db: urls expected"),
        ({"b.db": {"urls": "http://m.org/b"}}, "files.b.db.urls"),
        ({"b.db": {"urls": ["http://m.org/b"], "etag": "12"}}, "files.b.db.etag: expected 32 hex"),
        ({"b.db": {"urls": ["http://m.org/b"], "etag": f"{'0' * 32}-0"}}, "files.b.db.etag"),
        ({"b.db": {"urls": ["http://m.org/b"], "sha256": "X" * 64}}, "files.b.db.sha256"),
        ({"b.db": {"urls": ["http://m.org/b"], "bytes": 0}}, "files.b.db.bytes"),
        ({"../b.db": {"urls": ["http://m.org/b"]}}, r"files.../b.db"),
        ({"/etc/b": {"urls": ["http://m.org/b"]}}, "files./etc/b"),
        ({".b": {"urls": ["http://m.org/b"]}}, r"files..b"),
        ({"b.db": ["http://m.org/b"]}, "files.b.db"),
        ([], "files: Input should be"),
        ("[1, 2]", "holds no mapping"),
        ("", "holds no mapping"),
        ("a: [", "no readable YAML"),
        ("fiels: {}", "files: Field required"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_in_one_sentence(mirrors, files: Any, said: str):
    path = mirrors(files)
    with pytest.raises(ConfigError, match=f"^{path}.*{said}") as error:
        with_mirrors(KNOWN, path)
    assert "\n" not in str(error.value)


def test_a_named_file_that_is_missing(tmp_path: Path):
    with pytest.raises(DataError, match=r"cannot read .*nowhere.yaml: No such file"):
        with_mirrors(KNOWN, tmp_path / "nowhere.yaml")


def test_two_catalogues_with_one_file_are_refused():
    content = {"files": {"a.db": {"manual": "ask"}}}
    with pytest.raises(ConfigError, match=r"'a.db' is described in 1.yaml and in 2.yaml"):
        merged({Path("1.yaml"): content, Path("2.yaml"): content})
