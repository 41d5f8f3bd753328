"""Stored matrices: what is packed from the file is what is packed from whole molecules."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import hambench
from hambench.chem.blocks import BlockLayout, pack
from hambench.chem.cache import ByteCache
from hambench.chem.packing import LabelMap, forget_maps, label_map
from hambench.chem.stored import StoredMatrix
from hambench.data.conventions import Conventions
from hambench.data.graph import GraphSpec, build_graph, pair_labels
from hambench.data.rows import Rows
from hambench.data.store import Store, write_store
from hambench.errors import DataError
from hambench.tasks.nabla2dft_hamiltonian import Nabla2dftHamiltonians
from hambench.tasks.omol_csh_file import OmolCshFile
from hambench.tasks.schnorb import SchnorbDatabase

FIXTURES = Path(__file__).parent.parent / "fixtures"


def rows_of(name: str, tmp_path: Path) -> Rows:
    if name == "nabla":
        path = FIXTURES / "nabla_mini.db"
        return Nabla2dftHamiltonians(path, conventions=Conventions("bohr", "psi4"))
    if name == "schnorb":
        pytest.importorskip("ase")
        return SchnorbDatabase(FIXTURES / "schnorb_water.db")
    if name == "omol":
        return OmolCshFile(FIXTURES / "omol_csh_mini.h5", progress=False)
    rows = rows_of("nabla", tmp_path)
    write_store(tmp_path / "store.h5", rows, basis=rows.basis)
    return Store(tmp_path / "store.h5")


def real_places(layout: BlockLayout, numbers: np.ndarray, edges: np.ndarray) -> list[int]:
    return layout.entries(numbers, edges)[0].tolist()


@pytest.mark.parametrize("name", ["nabla", "schnorb", "omol", "store"])
@pytest.mark.parametrize("space", ["coupled", "uncoupled"])
def test_labels_are_those_of_whole_molecules(name: str, space: str, tmp_path: Path) -> None:
    """Against `pack` and `couple` of the canonical matrix, which know nothing of stored ones."""
    rows = rows_of(name, tmp_path)
    for dtype in (torch.float32, torch.float64):
        for index, whole in enumerate(rows[:3]):
            spec = GraphSpec(rows.basis, cutoff=2.5, space=space, dtype=dtype)
            molecule, stored = rows.stored(index)
            assert stored is not None
            assert molecule.hamiltonian is None
            assert (molecule.id, molecule.charge, molecule.energy) == (
                whole.id, whole.charge, whole.energy,
            )  # fmt: skip
            assert np.array_equal(stored.canonical(), whole.hamiltonian)
            graph = build_graph(molecule, spec, stored)
            full = torch.from_numpy(whole.hamiltonian)
            edges = graph.edge_index.numpy()
            node, edge = pack(full, spec.layout, edges, whole.numbers)
            if space == "coupled":
                node, edge = spec.layout.couple(node), spec.layout.couple(edge)
            places, labels = pair_labels(graph)
            assert sorted(places.tolist()) == real_places(spec.layout, whole.numbers, edges)
            for values, vectors, at in (
                (graph.node_values, node, graph.node_places),
                (labels, edge, places),
            ):
                assert values.dtype == dtype
                expected = vectors.reshape(-1)[at].to(dtype)
                tolerance = 0 if space == "uncoupled" else 1e-12 + 1e-6 * (dtype == torch.float32)
                torch.testing.assert_close(values, expected, rtol=tolerance, atol=tolerance)


def test_geometries_are_those_of_the_rows(tmp_path: Path) -> None:
    for name in ("nabla", "schnorb", "omol", "store"):
        rows = rows_of(name, tmp_path)
        bare, whole = rows[1:].geometry(0), rows[1]
        assert bare.hamiltonian is None
        assert np.array_equal(bare.numbers, whole.numbers)
        assert np.array_equal(bare.positions, whole.positions)
        assert (bare.charge, bare.multiplicity) == (whole.charge, whole.multiplicity)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(packed: bool, value: float) -> None:
    basis = hambench.load_task("water_mini").basis
    numbers = np.array([8, 1, 1])
    nao = basis.nao(numbers)
    values = np.ones(nao * (nao + 1) // 2 if packed else nao**2, dtype=np.float32)
    matrix = StoredMatrix(values, numbers, basis, "canonical", packed)
    assert matrix.checked("H") is matrix
    values[[25, 1 if packed else 24 * 2 + 1]] = value
    with pytest.raises(DataError, match="H holds NaN or infinity"):
        matrix.checked("H")
    values[:] = 1
    if not packed:
        values[5] = 1.1
        with pytest.raises(DataError, match=r"H is not symmetric \(largest difference 1.00e-01"):
            matrix.checked("H")
    short = StoredMatrix(values[:-1], numbers, basis, "canonical", packed)
    with pytest.raises(DataError, match=f"H has {len(values) - 1} numbers, expected {len(values)}"):
        short.checked("H")


def test_a_damaged_row_is_refused_in_training_too(tmp_path: Path) -> None:
    path = tmp_path / "mini.h5"
    path.write_bytes((FIXTURES / "omol_csh_mini.h5").read_bytes())
    key = OmolCshFile(path, progress=False).ids[0]
    with h5py.File(path, "r+") as file:
        file[key]["fock"][3] = np.nan
    with pytest.raises(DataError, match=rf"mini\.h5, group '{key}': 'fock' holds NaN"):
        OmolCshFile(path, progress=False).stored(0)


def test_the_cache_is_bounded_by_bytes() -> None:
    made: list[int] = []
    cache: ByteCache[bytes] = ByteCache(100, len)

    def get(key: int, size: int) -> int:
        return len(cache.get(key, lambda: made.append(key) or bytes(size)))

    assert [get(1, 40), get(2, 40), get(1, 40), get(3, 40)] == [40] * 4
    assert made == [1, 2, 3]
    assert (len(cache), cache.bytes) == (2, 80)
    get(1, 40)  # used after 2, which went
    get(2, 40)
    assert made == [1, 2, 3, 2]
    get(4, 101)  # too large to keep
    assert (len(cache), cache.bytes) == (2, 80)
    cache.clear()
    assert (len(cache), cache.bytes) == (0, 0)


def test_maps_do_not_depend_on_what_was_forgotten() -> None:
    layout = GraphSpec(hambench.load_task("water_mini").basis).layout
    numbers, edges = np.array([8, 1, 1]), np.array([[0, 1], [1, 0]])

    def mapped() -> LabelMap:
        return label_map(layout, numbers, edges, order="orca", packed=True, coupled=False)

    before = mapped()
    assert mapped() is before
    forget_maps()
    after = mapped()
    assert after is not before
    assert torch.equal(after.pair, before.pair)
