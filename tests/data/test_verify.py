"""`hambench data verify` on stores: sound ones get a manifest, each kind of fault its name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hambench.chem.molecule import Molecule
from hambench.chem.ordering import from_canonical
from hambench.chem.theory import Theory
from hambench.data import manifest
from hambench.data.store import Store, write_store
from hambench.data.verify import sample, verify
from hambench.errors import ConfigError, VerificationError
from hambench.registry import load_task
from hambench.units import HARTREE_EV

pytest.importorskip("pyscf")
BASIS = load_task("water_mini").basis


def _written(path: Path, change: Callable[[Molecule], Molecule], rows: int = 4) -> Store:
    """Rows of water_mini, the second one changed."""
    source = load_task("water_mini").rows
    kept = [change(source[i]) if i == 1 else source[i] for i in range(rows)]
    write_store(path, kept, basis=BASIS, theory=source.theory)
    return Store(path)


def _permuted(molecule: Molecule, *names: str) -> Molecule:
    """The molecule with matrices in PySCF's order."""
    changed = {
        name: from_canonical(getattr(molecule, name), molecule.numbers, BASIS, "pyscf")
        for name in names
    }
    return replace(molecule, **changed)


def test_the_embedded_data_are_as_stated() -> None:
    rows = load_task("water_mini").rows
    found = verify(rows, theory=Theory.from_dict(rows.theory), count=5, fock_rows=1, progress=False)
    assert (found.rows, found.sample) == (500, tuple(rows.ids[i] for i in (0, 125, 250, 374, 499)))
    assert {name: check.rows for name, check in found.checks.items()} == {
        name: {"fock": 1, "energy": 1, "forces": 1, "bond": 0}.get(name, 5) for name in found.checks
    }
    assert found.checks["overlap"].residual < 1e-12
    assert found.checks["electrons"].residual < 1e-10
    assert 0.2 < found.checks["gap"].residual < 0.5
    assert found.checks["energy"].residual < 1e-5
    assert found.checks["forces"].residual < 1e-4
    assert found.checks["fock"].residual < 1e-6  # on a coarser grid than the labels'
    assert found.theory["grid_level"] == 3


@pytest.mark.parametrize(
    ("change", "check", "said"),
    [
        (lambda m: _permuted(m, "hamiltonian", "overlap"), "overlap", "in pyscf order"),
        (lambda m: _permuted(m, "hamiltonian"), "core_level", "another unit or order"),
        (lambda m: replace(m, positions=m.positions / 0.529177210903), "overlap", "in bohr"),
        (lambda m: replace(m, overlap=2 * m.overlap), "overlap_diagonal", "not normalised"),
        (lambda m: replace(m, hamiltonian=27.2 * m.hamiltonian), "core_level", "another unit"),
        (lambda m: replace(m, charge=2), "fock", "it would fit with charge 0"),
        (lambda m: replace(m, charge=1), "electrons", "it would fit with charge 0"),
    ],
    ids=["order", "h_order", "unit", "overlap", "eV", "charge2", "charge1"],
)
def test_a_fault_is_found_and_named(
    tmp_path: Path, change: Callable[[Molecule], Molecule], check: str, said: str
) -> None:
    store = _written(tmp_path / "x.h5", change)
    with pytest.raises(VerificationError) as caught:
        verify(store, theory=Theory.from_dict(store.theory), fock_rows=4, progress=False)
    assert f"row 'water-0001' failed check '{check}'" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("energy", lambda m: replace(m, energy=m.energy + 0.0036)),  # as VWN5 for VWN-RPA would
        ("forces", lambda m: replace(m, forces=-m.forces)),
        ("forces", lambda m: replace(m, forces=m.forces * HARTREE_EV)),
    ],
)
def test_wrong_energies_and_forces_are_found(
    tmp_path: Path, check: str, change: Callable[[Molecule], Molecule]
) -> None:
    rows = _written(tmp_path / "water.h5", change, rows=2)
    with pytest.raises(VerificationError, match=f"failed check '{check}'"):
        verify(rows, theory=Theory.from_dict(rows.theory), progress=False)


def test_the_command_line_writes_a_manifest_or_nothing(tmp_path: Path) -> None:
    def call(name: str) -> subprocess.CompletedProcess[str]:
        words = ["data", "verify", name, "--rows", "2", "--fock-rows", "1", "--json"]
        return subprocess.run(
            [sys.executable, "-m", "hambench", *words],
            cwd=tmp_path, env={**os.environ, "HAMBENCH_DATA": str(tmp_path / "cache")},
            capture_output=True, text=True,
        )  # fmt: skip

    _written(tmp_path / "good.h5", lambda m: m, rows=2)
    _written(tmp_path / "bad.h5", lambda m: _permuted(m, "hamiltonian", "overlap"), rows=2)
    done = call("good.h5")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["rows"] == 2
    found = manifest.find(tmp_path / "good.h5")
    assert found is not None
    assert found.sample == ("water-0000", "water-0001")
    done = call("bad.h5")
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].startswith(
        "error: bad.h5, row 'water-0001' failed check 'overlap'"
    )
    assert manifest.find(tmp_path / "bad.h5") is None
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"good.h5", "bad.h5", "good.h5.manifest.json"}
    os.utime(tmp_path / "good.h5", ns=(1, 1))  # it holds for the file as it was
    assert manifest.find(tmp_path / "good.h5") is None


def test_the_sample_is_spread_evenly() -> None:
    assert sample(500, 5) == [0, 125, 250, 374, 499]
    assert sample(3, 20) == [0, 1, 2]
    assert sample(10**8, 20)[-1] == 10**8 - 1


def test_asking_for_nothing_is_refused() -> None:
    rows = load_task("water_mini").rows
    for asked in ({"count": 0}, {"fock_rows": -1}):
        with pytest.raises(ConfigError, match="check nothing"):
            verify(rows, progress=False, **asked)
    with pytest.raises(VerificationError, match="has no rows"):
        verify(rows[:0], progress=False)
    assert np.isfinite(rows[0].hamiltonian).all()
