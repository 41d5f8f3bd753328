"""The audit of a pretraining: which scored molecules it saw, however they are written down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hambench.chem.molecule import Molecule
from hambench.data.rows import Rows
from hambench.errors import ConfigError
from hambench.pretraining import check_unseen, compare
from hambench.registry import load_task


class Listed(Rows):
    """Molecules of a list."""

    def __init__(self, molecules: list[Molecule]) -> None:
        self.molecules = molecules

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(m.id for m in self.molecules)

    def row(self, index: int) -> Molecule:
        return self.molecules[index]


@pytest.fixture(scope="module")
def geometries() -> list[Molecule]:
    """Real molecules, four conformers each."""
    return load_task("organic_mini").geometries(40)


def test_conformers_of_a_molecule_are_the_same_molecule(geometries: list[Molecule]) -> None:
    seen, scored = Listed(geometries[:12]), Listed(geometries[12:20])
    audit = compare([seen], scored, "molecules")
    assert (audit.rows, audit.scored, audit.unseen) == (12, 8, "molecules")
    assert (audit.same_molecules, audit.same_geometries) == (0, 0)
    half = compare(
        [Listed(geometries[:2]), Listed(geometries[4:6])], Listed(geometries[2:6]), "rows"
    )
    assert (half.rows, half.scored) == (4, 4)
    assert (half.same_molecules, half.same_geometries) == (4, 2)


def test_a_geometry_is_known_however_it_is_written(geometries: list[Molecule]) -> None:
    rng = np.random.default_rng(0)
    hidden = []
    for k, molecule in enumerate(geometries[:8]):
        order = rng.permutation(len(molecule))
        turned = molecule.positions @ Rotation.random(rng=k).as_matrix().T + 3.0
        rounded = turned[order].astype(np.float32).astype(np.float64)
        hidden.append(
            replace(molecule, numbers=molecule.numbers[order], positions=rounded, id=f"other{k}")
        )
    audit = compare([Listed(geometries)], Listed(hidden), "rows")
    assert (audit.same_geometries, audit.same_molecules) == (8, 8)
    moved = [replace(m, positions=m.positions * 1.001) for m in hidden]
    audit = compare([Listed(geometries)], Listed(moved), "rows")
    assert (audit.same_geometries, audit.same_molecules) == (0, 0)


def test_a_name_counts_with_its_composition_alone(geometries: list[Molecule]) -> None:
    """Data sets that number their molecules have the same names for different ones."""
    one, two = geometries[0], geometries[4]
    assert sorted(one.numbers) != sorted(two.numbers)
    audit = compare([Listed([one])], Listed([replace(two, id=one.id)]), "molecules")
    assert audit.same_molecules == 0


def test_atoms_have_no_distances() -> None:
    atom = Molecule(np.array([10]), np.zeros((1, 3)), id="a-0")
    other = replace(atom, positions=np.ones((1, 3)), id="b-0")
    assert compare([Listed([atom])], Listed([other]), "rows").same_geometries == 1
    helium = replace(atom, numbers=np.array([2]))
    assert compare([Listed([atom])], Listed([helium]), "rows").same_geometries == 0


def test_what_was_seen_is_refused_as_far_as_the_protocol_wants(
    geometries: list[Molecule],
) -> None:
    conformers = compare([Listed(geometries[:2])], Listed(geometries[2:4]), "rows")
    check_unseen(conformers, Path("run"), "task", "test")
    with pytest.raises(
        ConfigError, match=r"run sees 2 of 2 molecules of split 'test' of task 'task'"
    ):
        check_unseen(
            conformers.model_copy(update={"unseen": "molecules"}), Path("run"), "task", "test"
        )
    rows = compare([Listed(geometries[:2])], Listed(geometries[1:4]), "rows")
    with pytest.raises(ConfigError, match="sees 1 of 3 rows"):
        check_unseen(rows, Path("run"), "task", "test")


def test_the_splits_of_organic_mini_pass(geometries: list[Molecule]) -> None:
    """The lists alone: what the energy task tests on is in no pretraining split."""
    hamiltonians, energies = load_task("organic_mini"), load_task("organic_mini_energy")
    by_id = {m.id: m for m in hamiltonians.geometries()}
    lists = [Listed([by_id[i] for i in hamiltonians.splits[s]]) for s in ("train", "validation")]
    test = Listed([by_id[i] for i in energies.splits["test"]])
    audit = compare(lists, test, energies.spec.splits["test"].unseen)
    check_unseen(audit, Path("run"), "organic_mini_energy", "test")
    assert (audit.rows, audit.scored, audit.unseen) == (280, 120, "molecules")
    assert audit.same_geometries == 0
