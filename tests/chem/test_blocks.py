"""Blocks and irreps: exact inverses, transposition, rotation, independent loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from e3nn import o3
from scipy.spatial.transform import Rotation

from hambench.chem.blocks import layout, pack, unpack
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.rotation import ao_rotation
from hambench.data.neighbours import neighbour_pairs
from hambench.harmonics import harmonic_rotation

MOLECULES = {
    "water": ("def2-svp", [8, 1, 1]),
    "ethanol": ("def2-svp", [6, 6, 8, 1, 1, 1, 1, 1, 1]),
    "eight elements": ("def2-svp", [35, 1, 6, 7, 8, 9, 16, 17]),
    "iodine and gold": ("def2-tzvpd", [79, 53, 1, 8]),
}
WIDE = {
    "water": (1, 6, 7, 8, 9),
    "ethanol": (1, 6, 7, 8, 9),
    "eight elements": (1, 6, 7, 8, 9, 16, 17, 35),
    "iodine and gold": None,
}


def symmetric(rng: np.random.Generator, n: int) -> torch.Tensor:
    a = torch.from_numpy(rng.normal(size=(n, n)))
    return a + a.T


@pytest.fixture(params=MOLECULES)
def case(request: pytest.FixtureRequest, rng: np.random.Generator):
    name, numbers = MOLECULES[request.param]
    basis = OrbitalBasis.load(name, WIDE[request.param])
    numbers = np.array(numbers)
    edges, pairs = neighbour_pairs(rng.normal(size=(len(numbers), 3)), None)
    return layout(basis), numbers, edges, pairs, symmetric(rng, basis.nao(numbers))


def test_round_trips_are_exact(case) -> None:
    blocks, numbers, edges, _, matrix = case
    node, edge = pack(matrix, blocks, edges, numbers)
    assert torch.equal(unpack(node, edge, blocks, edges, numbers), matrix)
    for vectors in (node, edge):
        assert (blocks.uncouple(blocks.couple(vectors)) - vectors).abs().max() < 1e-12


def test_derivatives_of_conversions() -> None:
    """First and second, against finite differences."""
    blocks = layout(OrbitalBasis.load("def2-svp", [8]))
    vectors = torch.randn(1, 2, blocks.size, dtype=torch.float64, requires_grad=True)
    for convert in (blocks.couple, blocks.uncouple):
        assert torch.autograd.gradcheck(convert, (vectors,), fast_mode=True)
        assert torch.autograd.gradgradcheck(convert, (vectors,), fast_mode=True)


def test_empty_places_stay_empty_in_both_forms(case) -> None:
    blocks, numbers, edges, _, matrix = case
    node, edge = pack(torch.ones_like(matrix), blocks, edges, numbers)
    for vectors in (node, edge):
        assert torch.equal(
            blocks.couple(torch.randn_like(vectors) * vectors)[vectors == 0].abs(),
            torch.zeros(int((vectors == 0).sum()), dtype=torch.float64),
        )


def test_blocks_against_plain_slicing(case) -> None:
    """The vector of an edge, looked up by `square`, is the block cut out of the matrix."""
    blocks, numbers, edges, _, matrix = case
    _, edge = pack(matrix, blocks, edges, numbers)
    counts = blocks.basis.ao_counts(numbers)
    start = np.cumsum(counts) - counts
    slots = list(blocks.basis.slots)
    for e, (i, j) in enumerate(edges.T):
        cut = matrix[start[i] : start[i] + counts[i], start[j] : start[j] + counts[j]]
        places = [slot_orbitals(blocks, slots, numbers[a]) for a in (i, j)]
        assert torch.equal(edge[e][blocks.square[places[0]][:, places[1]]], cut)


def slot_orbitals(blocks, slots: list[int], z: int) -> list[int]:
    """Places of an element's orbitals among the K of the slots, by counting labels in a loop."""
    first = [sum(2 * (s % 10) + 1 for s in slots[:k]) for k in range(len(slots))]
    used: dict[int, int] = {}
    places: list[int] = []
    for label in blocks.basis.shells[int(z)].labels:
        slot = slots.index(label) + used.get(label, 0)
        used[label] = used.get(label, 0) + 1
        places += range(first[slot], first[slot] + 2 * (label % 10) + 1)
    return places


def test_coupling_against_the_formula(rng: np.random.Generator) -> None:
    blocks = layout(OrbitalBasis.load("def2-svp", [1, 8]))
    vector = torch.from_numpy(rng.normal(size=blocks.size))
    coupled = blocks.couple(vector)
    first = np.cumsum([0] + [2 * l + 1 for l in blocks.slots])
    square = vector[blocks.square]
    for irrep in blocks.irreps:
        la, lb = blocks.slots[irrep.a], blocks.slots[irrep.b]
        part = square[first[irrep.a] : first[irrep.a + 1], first[irrep.b] : first[irrep.b + 1]]
        symbol = o3.wigner_3j(irrep.l, la, lb, dtype=torch.float64)
        expected = (2 * irrep.l + 1) * torch.einsum("Mij,ij->M", symbol, part)
        found = coupled[irrep.start : irrep.start + 2 * irrep.l + 1]
        assert (found - expected).abs().max() < 1e-13
    norm = sum(
        coupled[i.start : i.start + 2 * i.l + 1].square().sum() / (2 * i.l + 1)
        for i in blocks.irreps
    )
    assert abs(norm - vector.square().sum()) < 1e-11


def test_transposed_blocks(case) -> None:
    """x_ba,L(ji) = (-1)^(la+lb+L) x_ab,L(ij), for pairs and within an atom."""
    blocks, numbers, edges, pairs, matrix = case
    node, edge = (blocks.couple(v) for v in pack(matrix, blocks, edges, numbers))
    parity = blocks.parity.double()
    assert (edge[pairs[1]] - parity * edge[pairs[0]][:, blocks.transposed]).abs().max() < 1e-12
    assert (node - parity * node[:, blocks.transposed]).abs().max() < 1e-12


def test_irreps_turn_by_wigner_matrices(case) -> None:
    blocks, numbers, edges, _, matrix = case
    turn = Rotation.random(rng=5).as_matrix()
    full = torch.from_numpy(ao_rotation(numbers, blocks.basis, turn))
    before = blocks.couple(pack(matrix, blocks, edges, numbers)[1])
    after = blocks.couple(pack(full @ matrix @ full.T, blocks, edges, numbers)[1])
    for irrep in blocks.irreps:
        here = slice(irrep.start, irrep.start + 2 * irrep.l + 1)
        wigner = torch.from_numpy(harmonic_rotation(irrep.l, turn))
        assert (after[:, here] - before[:, here] @ wigner.T).abs().max() < 1e-11


def test_published_irreps_content() -> None:
    """Multiplicities of the layouts as published for MD17, nabla2DFT and OMol_CSH."""

    def content(basis: OrbitalBasis) -> list[int]:
        degrees = [i.l for i in layout(basis).irreps]
        return [degrees.count(l) for l in range(max(degrees) + 1)]

    assert content(OrbitalBasis.load("def2-svp", [1, 6, 7, 8, 9])) == [14, 21, 15, 5, 1]
    nabla = OrbitalBasis.load("def2-svp", [1, 6, 7, 8, 9, 16, 17, 35])
    assert content(nabla) == [50, 89, 79, 33, 9]
    assert content(OrbitalBasis.load("def2-tzvpd")) == [114, 229, 239, 161, 73, 24, 4]


def test_flip_is_the_transposed_block() -> None:
    blocks = layout(OrbitalBasis.load("def2-svp", [1, 6, 17]))
    x = torch.randn(3, blocks.size, dtype=torch.float64)
    square = blocks.uncouple(x)[:, blocks.square]
    assert (blocks.uncouple(blocks.flip(x))[:, blocks.square] - square.mT).abs().max() < 1e-12
