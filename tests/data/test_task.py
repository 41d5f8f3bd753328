"""Task descriptions, splits, fingerprints, and what a user is told when something is wrong."""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.theory import Theory
from hambench.data.location import DATA_VARIABLE
from hambench.data.spec import TaskSpec
from hambench.data.store import write_store
from hambench.data.task import GeneratedTask
from hambench.errors import ConfigError, DataError, RegistryError

THEORY = Theory("pbe", "def2-svp")
IDS = {"train": ["a", "b", "c"], "validation": ["d"], "test": ["e", "f"]}


class Tiny(GeneratedTask):
    """Six hydrogen molecules in a folder of the test's choosing."""

    place = Path()

    @property
    def folder(self) -> Path:
        return self.place

    @property
    def recipe(self) -> dict[str, Any]:
        return {"bond": "0.7 to 0.8"}

    def geometries(self, n: int | None = None) -> list[Molecule]:
        return hydrogen_molecules()[:n]


def hydrogen_molecules() -> list[Molecule]:
    """One of every id, bonds from 0.70 to 0.75 Angstrom."""
    names = [row for ids in IDS.values() for row in ids]
    return [
        Molecule([1, 1], [[0, 0, 0], [0, 0, 0.7 + 0.01 * i]], id=row) for i, row in enumerate(names)
    ]


@pytest.fixture
def content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The description of `Tiny`; its index lists stand in ``tmp_path``."""
    monkeypatch.setattr(Tiny, "place", tmp_path)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "elsewhere"))
    splits = {}
    for name, ids in IDS.items():
        text = "\n".join(ids) + "\n"
        (tmp_path / f"{name}.txt").write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        splits[name] = {"list": f"{name}.txt", "sha256": digest, "count": len(ids)}
    return {
        "name": "tiny",
        "version": 1,
        "title": "six hydrogen molecules",
        "citation": "none",
        "license": "MIT",
        "family": "tiny",
        "source": "generated",
        "files": {"main": {"name": "tiny.h5"}},
        "generated": "tiny.h5",
        "basis": "def2-svp",
        "elements": ["H"],
        "labels": "the tests",
        "theory": THEORY.to_dict(),
        "splits": splits,
        "targets": [{"name": "hamiltonian", "unit": "Eh", "shape": "nao x nao"}],
        "metrics": [{"name": "h_mae", "direction": "lower"}],
    }


def _write(
    path: Path,
    shift: float = 0.0,
    leave_out: str = "",
    theory: Theory = THEORY,
    provenance: dict[str, Any] | None = None,
) -> None:
    basis = OrbitalBasis.load("def2-svp", [1])
    matrix = np.eye(10) + shift
    rows = [
        Molecule(m.numbers, m.positions, hamiltonian=matrix * i, energy=0.0, id=m.id)
        for i, m in enumerate(hydrogen_molecules())
        if m.id != leave_out
    ]
    write_store(path, rows, basis=basis, theory=theory.to_dict(), provenance=provenance)


def test_description_needs_no_data(content: dict[str, Any], tmp_path: Path) -> None:
    task = Tiny(content)
    assert (task.name, task.version, task.unit, task.source) == ("tiny", 1, "Eh", "generated")
    assert task.metrics == ["h_mae"]
    assert task.basis == OrbitalBasis.load("def2-svp", [1])
    assert task.splits == {name: tuple(ids) for name, ids in IDS.items()}
    assert not task.available
    described = json.loads(json.dumps(task.describe()))
    assert described["splits"] == {"train": 3, "validation": 1, "test": 2}
    assert described["obtain"] == "hambench data generate tiny"
    assert described["path"] == str(tmp_path / "elsewhere" / "tiny.h5")


def test_missing_data_names_the_command(content: dict[str, Any], tmp_path: Path) -> None:
    message = r"'tiny' are not at .*tiny\.h5; get them with: hambench data generate tiny"
    with pytest.raises(DataError, match=message):
        Tiny(content).split("train")
    with pytest.raises(DataError, match=message):
        _ = Tiny(content, path=tmp_path).rows


def test_splits_are_lazy_rows_in_index_order(content: dict[str, Any], tmp_path: Path) -> None:
    _write(tmp_path / "tiny.h5")
    for task in (Tiny(content), Tiny(content, tmp_path), Tiny(content, tmp_path / "tiny.h5")):
        test = task.split("test")
        assert test.ids == ("e", "f")
        assert test[1].hamiltonian[0, 0] == 5
        assert [m.id for m in task.split("train")[1:]] == ["b", "c"]
    with pytest.raises(RegistryError, match=r"no split 'tset'\. Did you mean 'test'"):
        task.split("tset")


def test_incomplete_or_other_data_are_refused(content: dict[str, Any], tmp_path: Path) -> None:
    _write(tmp_path / "tiny.h5", leave_out="e")
    assert len(Tiny(content).split("train")) == 3
    with pytest.raises(DataError, match="lacks 1 of 2 rows of split 'test' \\(first: 'e'\\)"):
        Tiny(content).split("test")
    other = {**content, "basis": "def2-tzvpd"}
    with pytest.raises(DataError, match="have basis=def2-svp, those of task 'tiny' basis=def2-tz"):
        Tiny(other).split("train")
    _write(tmp_path / "rough.h5", theory=replace(THEORY, grid_level=2))
    with pytest.raises(DataError, match="have grid_level=2, those of task 'tiny' grid_level=5"):
        Tiny(content, tmp_path / "rough.h5").split("train")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["fock"] = [1.0]
    with pytest.raises(DataError, match="not one of hambench"):
        Tiny(content, tmp_path / "foreign.h5").split("train")


def test_parts_of_a_split(content: dict[str, Any], tmp_path: Path) -> None:
    digest = hashlib.sha256(b"a\nb\n").hexdigest()
    (tmp_path / "two.txt").write_text("a\nb\n")
    part = {"list": "two.txt", "sha256": digest, "count": 2, "within": "train"}
    nested = {**content, "splits": {**content["splits"], "two": part}}
    _write(tmp_path / "tiny.h5")
    assert Tiny(nested).split("two").ids == ("a", "b")
    elsewhere = {**content, "splits": {**content["splits"], "two": part | {"within": "test"}}}
    with pytest.raises(DataError, match="row 'a' of split 'two' is not in 'test', of which it"):
        _ = Tiny(elsewhere).splits
    nowhere = {**content, "splits": {**content["splits"], "two": part | {"within": "all"}}}
    with pytest.raises(ConfigError, match="split 'two' is within 'all', which is no split"):
        Tiny(nowhere)


def test_rows_that_failed_or_were_not_asked_for_may_lack(
    content: dict[str, Any], tmp_path: Path
) -> None:
    _write(tmp_path / "whole.h5")
    whole = Tiny(content, tmp_path / "whole.h5").fingerprint
    for made in ({"left_out": {"e": "no convergence"}}, {"first": 5}):
        _write(tmp_path / "tiny.h5", leave_out="e", provenance=made)
        assert Tiny(content).split("test").ids == ("f",)
        assert Tiny(content).fingerprint != whole
    _write(tmp_path / "tiny.h5", leave_out="d", provenance={"first": 5})
    with pytest.raises(DataError, match=r"lacks 1 of 1 rows of split 'validation'"):
        Tiny(content).split("validation")


def test_fingerprint_follows_every_content(content: dict[str, Any], tmp_path: Path) -> None:
    _write(tmp_path / "tiny.h5")
    _write(tmp_path / "copy.h5")
    _write(tmp_path / "other.h5", shift=1e-12)
    reference = Tiny(content).fingerprint
    assert len(reference) == 64
    assert Tiny(content, tmp_path / "copy.h5").fingerprint == reference
    assert Tiny(content, tmp_path / "other.h5").fingerprint != reference
    assert Tiny({**content, "version": 2}).fingerprint != reference
    fewer = copy.deepcopy(content)
    (tmp_path / "fewer.txt").write_text("e\n")
    digest = hashlib.sha256(b"e\n").hexdigest()
    fewer["splits"]["test"] = {"list": "fewer.txt", "sha256": digest, "count": 1}
    assert Tiny(fewer).fingerprint != reference


def test_a_row_that_is_not_of_the_task_is_named(content: dict[str, Any], tmp_path: Path) -> None:
    basis = OrbitalBasis.load("def2-svp", [1, 2])
    for name, numbers, labels, said in (
        ("he.h5", [2, 1], {"hamiltonian": np.eye(10)}, "holds He, the task H"),
        ("no.h5", [1, 1], {"energy": 0.0}, "has no hamiltonian, which is a target of the task"),
    ):
        rows = [replace(m, numbers=numbers, **labels) for m in hydrogen_molecules()]
        write_store(tmp_path / name, rows, basis=basis, theory=THEORY.to_dict())
        with pytest.raises(DataError, match=rf"{name}, row 'e': {said}"):
            _ = Tiny(content, tmp_path / name).fingerprint


def test_changed_index_lists_are_found(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("e\ng\n")
    with pytest.raises(DataError, match=r"split 'test': .*test\.txt .*is not the list of 2 rows"):
        _ = Tiny(content).splits
    (tmp_path / "test.txt").unlink()
    with pytest.raises(DataError, match=r"split 'test': no index list .*test\.txt"):
        _ = Tiny(content).splits
    overlapping = copy.deepcopy(content)
    overlapping["splits"]["test"] = overlapping["splits"]["train"]
    with pytest.raises(DataError, match="row 'a' is in split 'test' and in 'train' too"):
        _ = Tiny(overlapping).splits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 0}, "version: Input should be greater than 0 .*got 0"),
        ({"elements": ["H", "Xx"]}, "unknown: Xx"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"metrics": []}, "metrics: "),
        ({"source": "stolen"}, "source: .*'generated' or 'published'"),
        ({"protocol": {"test_split": "tset"}}, r"protocol.test_split 'tset' is not in splits"),
        ({"splits": {"train": {"list": "a", "sha256": "0", "count": 1}}}, "splits.train.sha256"),
    ],
)
def test_wrong_description_is_named(
    content: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"task 'tiny': .*{message}"):
        TaskSpec.from_dict({**content, **change})
