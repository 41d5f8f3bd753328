"""Matrices of other codes: every form and order reads as what was predicted, mistakes are named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import ORDERS, from_canonical
from hambench.errors import DataError, VerificationError
from hambench.scoring.foreign import ASYMMETRY, UNITS, ForeignPredictions

BASIS = OrbitalBasis.load("def2-svp", [1, 7, 8, 17])
Matrices = Sequence[np.ndarray]


def turned(matrices: Matrices, molecules: Sequence[Molecule], order: str, unit: str) -> Matrices:
    """Matrices as another code would write them."""
    return [
        from_canonical(h, m.numbers, BASIS, order) * UNITS[unit]
        for h, m in zip(matrices, molecules, strict=True)
    ]


def content(molecules: Sequence[Molecule], matrices: Matrices, form: str) -> dict[str, Any]:
    """The arrays of a file."""
    ids = [m.id for m in molecules]
    match form:
        case "single":
            return {f"hamiltonian/{name}": h for name, h in zip(ids, matrices, strict=True)}
        case "row":
            row = np.concatenate([h.ravel() for h in matrices])
            return {"id": ids, "nao": [len(h) for h in matrices], "hamiltonian": row}
    return {"id": ids, "hamiltonian": np.stack(matrices)}


def save(path: Path, arrays: dict[str, Any], **said: str) -> Path:
    """A file, of the kind its name says."""
    if path.suffix == ".npz":
        np.savez(path, **said, **arrays)
        return path
    with h5py.File(path, "w") as file:
        file.attrs.update(said)
        for name, values in arrays.items():
            file[name] = values
    return path


@pytest.mark.parametrize("form", ["single", "row"])
@pytest.mark.parametrize("suffix", [".h5", ".npz"])
@pytest.mark.parametrize("order", list(ORDERS))
def test_every_form_and_order_reads_as_what_was_predicted(
    tmp_path: Path, molecules: list[Molecule], noisy: Matrices, form: str, suffix: str, order: str
) -> None:
    unit = list(UNITS)[list(ORDERS).index(order) % len(UNITS)]
    arrays = content(molecules, turned(noisy, molecules, order, unit), form)
    found = ForeignPredictions(save(tmp_path / f"p{suffix}", arrays, order=order, unit=unit))
    assert set(found.ids) == {m.id for m in molecules}
    backwards = list(found.matrices(molecules[::-1], BASIS))[::-1]
    for read, predicted in zip(backwards, noisy, strict=True):
        np.testing.assert_allclose(read, predicted, rtol=0, atol=1e-12)
    assert found.better_reading(molecules, BASIS) == ""


@pytest.mark.parametrize("suffix", [".h5", ".npz"])
def test_molecules_of_one_size_may_be_stacked(
    tmp_path: Path, molecules: list[Molecule], noisy: Matrices, suffix: str
) -> None:
    waters = [molecules[0]] * 2
    arrays = content(waters, [noisy[0], 2 * noisy[0]], "stack")
    arrays["id"] = np.array([7, 8])  # names written as numbers
    path = save(tmp_path / f"p{suffix}", arrays, order="canonical")
    found = ForeignPredictions(path)
    assert (found.ids, found.unit) == (("7", "8"), "Eh")
    named = Molecule(molecules[0].numbers, molecules[0].positions, id="8")
    (read,) = found.matrices([named], BASIS)
    np.testing.assert_allclose(read, 2 * noisy[0], rtol=0, atol=1e-12)


def test_names_with_slashes_are_no_folders(
    tmp_path: Path, molecules: list[Molecule], noisy: Matrices
) -> None:
    arrays = {"hamiltonian/a/b": noisy[0], "hamiltonian/a/c": noisy[0]}
    for suffix in (".h5", ".npz"):
        path = save(tmp_path / f"p{suffix}", arrays, order="canonical")
        assert ForeignPredictions(path).ids == ("a/b", "a/c")


def test_rounding_is_averaged_and_more_is_refused(
    tmp_path: Path, molecules: list[Molecule], noisy: Matrices
) -> None:
    bent = noisy[0].copy()
    bent[0, 3] += 0.9 * ASYMMETRY
    save(tmp_path / "p.h5", {"hamiltonian/water": bent}, order="canonical")
    (read,) = ForeignPredictions(tmp_path / "p.h5").matrices(molecules[:1], BASIS)
    assert (read == read.T).all()
    assert read[0, 3] == pytest.approx(noisy[0][0, 3] + 0.45 * ASYMMETRY, abs=1e-12)
    bent[0, 3] += 0.2 * ASYMMETRY
    save(tmp_path / "p.h5", {"hamiltonian/water": bent}, order="canonical")
    with pytest.raises(DataError, match=r"'water': the matrix is not symmetric .*1\.1e-04 Eh"):
        list(ForeignPredictions(tmp_path / "p.h5").matrices(molecules[:1], BASIS))


def test_a_failure_stays_one(tmp_path: Path, molecules: list[Molecule], noisy: Matrices) -> None:
    arrays = content(molecules, [noisy[0], np.full_like(noisy[1], np.nan), noisy[2]], "row")
    found = ForeignPredictions(save(tmp_path / "p.h5", arrays, order="canonical"))
    finite = [np.isfinite(h).all() for h in found.matrices(molecules, BASIS)]
    assert finite == [True, False, True]
    assert found.better_reading(molecules, BASIS) == ""


@pytest.mark.parametrize(
    ("order", "unit", "said", "words"),
    [
        ("pyscf", "Eh", {"order": "canonical"}, ["so read they", "in pyscf order they would be"]),
        ("psi4", "Eh", {"order": "pyscf"}, ["in orca or psi4 order"]),
        ("canonical", "eV", {"order": "listed"}, ["but in eV they would be"]),
        ("orca", "kcal_mol", {"order": "pyscf"}, ["in orca or psi4 order and in kcal_mol"]),
    ],
)
def test_a_wrong_order_or_unit_is_suspected(
    tmp_path: Path, molecules: list[Molecule], noisy: Matrices, order: str, unit: str,
    said: dict[str, str], words: list[str],
) -> None:  # fmt: skip
    arrays = content(molecules, turned(noisy, molecules, order, unit), "single")
    doubt = ForeignPredictions(save(tmp_path / "p.h5", arrays, **said)).better_reading(
        molecules, BASIS
    )
    assert all(word in doubt for word in words)


def test_a_poor_model_is_not_suspected(
    tmp_path: Path, molecules: list[Molecule], rng: np.random.Generator
) -> None:
    """Noise of any size is off by as much in any order."""
    noise = (rng.normal(size=m.hamiltonian.shape) for m in molecules)
    matrices = [e + e.T for e in noise]
    path = save(tmp_path / "p.h5", content(molecules, matrices, "single"), order="psi4")
    assert ForeignPredictions(path).better_reading(molecules, BASIS) == ""


def test_complete_means_these_molecules(
    tmp_path: Path, molecules: list[Molecule], noisy: Matrices
) -> None:
    found = ForeignPredictions(
        save(tmp_path / "p.h5", content(molecules, noisy, "row"), order="canonical")
    )
    found.check_complete(m.id for m in molecules)
    with pytest.raises(VerificationError, match=r"lacks 1 of 4 molecules \(first: 'neon'\)"):
        found.check_complete([*found.ids, "neon"])
    with pytest.raises(VerificationError, match=r"has 2 molecules beyond .*'ammonia'"):
        found.check_complete(["water"])


@pytest.mark.parametrize(
    ("change", "said", "message"),
    [
        ({}, {}, "does not say in which order .* add the attribute 'order', one of canonical"),
        ({}, {"order": "pscf"}, r"unknown order 'pscf'\. Did you mean 'pyscf'"),
        ({}, {"order": "pyscf", "unit": "Ha"}, "unknown unit 'Ha'"),
        ({"id": ["water"] * 3}, {"order": "pyscf"}, "'water' 3 times"),
        ({"id": ["water"]}, {"order": "pyscf"}, "has 1 ids and 'hamiltonian' of shape"),
        ({"nao": [24, 24, 24]}, {"order": "pyscf"}, "sizes n of the matrices in 'nao'"),
        ({"nao": None}, {"order": "pyscf"}, "sizes n of the matrices in 'nao'"),
        ({"hamiltonian": None}, {"order": "pyscf"}, "of shape None"),
        ({"id": None}, {"order": "pyscf"}, "holds no predictions; expected 'hamiltonian/ID'"),
    ],
)
def test_mistakes_of_a_file_are_named(
    tmp_path: Path, molecules: list[Molecule], noisy: Matrices, change: dict[str, Any],
    said: dict[str, str], message: str,
) -> None:  # fmt: skip
    arrays = content(molecules, noisy, "row") | change
    path = save(tmp_path / "p.h5", {k: v for k, v in arrays.items() if v is not None}, **said)
    with pytest.raises(DataError, match=message) as caught:
        ForeignPredictions(path)
    assert str(path) in str(caught.value)


def test_mistakes_of_a_matrix_are_named(
    tmp_path: Path, molecules: list[Molecule], noisy: Matrices
) -> None:
    for matrix, message in (
        (noisy[1], r"\(29, 29\), expected \(24, 24\) for H2O in def2-svp"),
        (noisy[0][0], r"shape \(24,\), expected"),
        (noisy[0] + 0j, "of type complex128, expected float32 or float64"),
    ):
        path = save(tmp_path / "p.h5", {"hamiltonian/water": matrix}, order="pyscf")
        with pytest.raises(DataError, match=f"'water': the matrix .*{message}"):
            list(ForeignPredictions(path).matrices(molecules[:1], BASIS))


def test_files_that_are_none(tmp_path: Path, noisy: Matrices) -> None:
    with pytest.raises(DataError, match=r"no file .*none\.h5"):
        ForeignPredictions(tmp_path / "none.h5")
    path = save(tmp_path / "p.h5", {"hamiltonian/water": noisy[0]}, order="pyscf")
    path.write_bytes(path.read_bytes()[:900])
    np.save(tmp_path / "one.npy", noisy[0])
    (tmp_path / "p.npz").write_text("no archive")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "objects.npz", order="pyscf", id=np.array(["a", 1], dtype=object))
    for name in ("p.h5", "objects.npz"):
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            ForeignPredictions(tmp_path / name)
    for name in ("one.npy", "p.npz", "empty.npz"):
        with pytest.raises(DataError, match=rf"{name} is neither HDF5 nor \.npz"):
            ForeignPredictions(tmp_path / name)
