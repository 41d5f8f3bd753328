"""Tensor products, harmonics and orbital expansion against their equations; rotations."""

from __future__ import annotations

import math

import products_oracle as oracle
import pytest
import torch
from e3nn import o3
from scipy.spatial.transform import Rotation
from torch import Tensor

from hambench.harmonics import harmonic_rotation
from hambench.o3 import columns, contraction, mixing
from hambench.o3.expansion import OrbitalExpansion
from hambench.o3.frames import EdgeFrames
from hambench.o3.products import HarmonicProduct, Path, PathProduct, harmonics, triangle_paths
from hambench.o3.wigner import POLAR


def features(rows: int, lmax: int, channels: int) -> Tensor:
    return torch.randn(rows, (lmax + 1) ** 2, channels, dtype=torch.float64, requires_grad=True)


def agree(found: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert (found - expected).abs().max() < 1e-12 * expected.abs().max().clamp(1)
    seed = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad((found * seed).sum(), inputs),
        torch.autograd.grad((expected * seed).sum(), inputs),
        strict=True,
    ):
        assert (one - other).abs().max() < 1e-11 * other.abs().max().clamp(1)


def test_counts_of_paths() -> None:
    """QHNet, section 3; PhiSNet and SPHNet have the same."""
    assert [len(triangle_paths(l)) for l in (2, 3, 4, 6)] == [15, 34, 65, 175]
    assert [len(triangle_paths(l, natural=True)) for l in (4, 6)] == [42, 106]
    assert triangle_paths(4, left=0) == [Path(0, l, l) for l in range(5)]
    assert triangle_paths(1)[:4] == [Path(0, 0, 0), Path(0, 1, 1), Path(1, 0, 1), Path(1, 1, 0)]


@pytest.fixture(params=["narrow", "wide", "small blocks"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Products as a CPU does them, as other devices do, and in blocks of a row or two."""
    if request.param == "wide":
        for room in (contraction, mixing):
            monkeypatch.setattr(room, "wide", lambda device: True)
    if request.param == "small blocks":
        monkeypatch.setattr(columns, "CACHE", 81 * 3 * 8 * 2)
    return request.param


def draw(paths: list[Path], rows: int, channels: int, shared: bool = False) -> list[Tensor]:
    left, right = max(p.l1 for p in paths), max(p.l2 for p in paths)
    size = (1 if shared else rows, len(paths), channels)
    weights = torch.randn(size, dtype=torch.float64, requires_grad=True)
    return [features(rows, left, channels), features(rows, right, channels), weights]


@pytest.mark.parametrize("natural", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_product_by_its_equation(natural: bool, shared: bool, way: str) -> None:
    paths = triangle_paths(4, natural=natural)
    coefficients = [0.3 + 0.1 * k for k in range(len(paths))]
    a, b, weights = inputs = draw(paths, 7, 3, shared)
    found = PathProduct(paths, coefficients)(a, b, weights)
    agree(found, oracle.by_broadcasting(paths, coefficients, a, b, weights), inputs)


SUBSETS = {
    "few": [Path(0, 2, 2), Path(1, 1, 0), Path(2, 0, 2)],
    "left below right": [p for p in triangle_paths(4) if p.l1 < p.l2],
    "20 of 65": triangle_paths(4)[3::3][:20],
    "any order": triangle_paths(3)[::-2],
    "twice": [Path(1, 2, 1), Path(1, 2, 2), Path(1, 2, 1), Path(2, 1, 3)],
    "degree 6": [p for p in triangle_paths(6) if max(p) > 4][::5],
    "one": [Path(1, 1, 2)],
}


@pytest.mark.parametrize("name", SUBSETS)
def test_product_of_some_paths(name: str, way: str) -> None:
    """Any paths in any order; degrees without one are zero."""
    paths = SUBSETS[name]
    a, b, weights = inputs = draw(paths, 5, 4)
    found = PathProduct(paths)(a, b, weights)
    agree(found, oracle.by_broadcasting(paths, [1.0] * len(paths), a, b, weights), inputs)
    for l in range(max(p.l3 for p in paths) + 1):
        if all(p.l3 != l for p in paths):
            assert (found[:, l * l : (l + 1) ** 2] == 0).all()


def test_product_of_all_paths_of_degree_6() -> None:
    paths = triangle_paths(6)
    a, b, weights = inputs = draw(paths, 3, 2)
    found = PathProduct(paths)(a, b, weights)
    agree(found, oracle.by_products(paths, [1.0] * len(paths), a, b, weights), inputs)


def test_product_of_itself_of_more_degrees_and_of_one_channel() -> None:
    """Further degrees of a factor take no part; a right factor may serve all channels."""
    paths = triangle_paths(2)
    a, b = features(4, 3, 3), features(4, 2, 1)
    weights = torch.randn(1, len(paths), 3, dtype=torch.float64, requires_grad=True)
    one = [1.0] * len(paths)
    agree(PathProduct(paths)(a, a, weights), oracle.by_products(paths, one, a, a, weights), [a])
    found = PathProduct(paths)(a, b, weights)
    agree(found, oracle.by_products(paths, one, a, b, weights), [a, b, weights])


def test_product_of_features_that_are_views() -> None:
    paths = triangle_paths(2)
    a, b, weights = draw(paths, 4, 3)
    views = [a[:, :, ::2], b.transpose(0, 1).contiguous().transpose(0, 1)[..., 1:]]
    found = PathProduct(paths)(*views, weights[..., :2])
    expected = oracle.by_products(paths, [1.0] * len(paths), *views, weights[..., :2])
    agree(found, expected, [a, b, weights])


def test_products_in_float32_and_without_rows(way: str) -> None:
    paths = triangle_paths(4)
    one = [1.0] * len(paths)
    frames = EdgeFrames(torch.randn(5, 3), 4)
    a, b, weights = (x.detach().float() for x in draw(paths, 5, 4))
    found = PathProduct(paths)(a, b, weights)
    assert found.dtype == torch.float32
    expected = oracle.by_products(paths, one, a.double(), b.double(), weights.double())
    assert (found - expected).abs().max() < 1e-5
    found = HarmonicProduct(paths)(a, frames, weights)
    expected = oracle.by_products(
        paths, one, a.double(), harmonics(frames, torch.float64), weights.double()
    )
    assert (found - expected).abs().max() < 1e-4
    empty = [x[:0].requires_grad_() for x in (a, b, weights)]
    PathProduct(paths)(*empty).sum().backward()
    assert empty[0].grad.shape == (0, 25, 4)
    found = HarmonicProduct(paths)(empty[0], EdgeFrames(torch.randn(0, 3), 4), empty[2])
    assert found.shape == (0, 25, 4)
    found.sum().backward()


def test_product_with_too_few_degrees() -> None:
    with pytest.raises(ValueError, match="left factor has 1 components; these paths need 9"):
        PathProduct([Path(2, 0, 2)])(features(2, 0, 3), features(2, 0, 3), torch.ones(1, 1, 3))
    frames = EdgeFrames(torch.randn(2, 3, dtype=torch.float64), 2)
    with pytest.raises(ValueError, match="left factor has 1 components; these paths need 9"):
        HarmonicProduct([Path(2, 0, 2)])(features(2, 0, 3), frames, torch.ones(1, 1, 3))


@pytest.mark.parametrize(
    ("lmax", "paths"),
    [
        (4, triangle_paths(4, natural=True)),
        (4, triangle_paths(4)),
        (4, triangle_paths(4, left=0)),
        (4, triangle_paths(4, left=2)),
        (2, [p for p in triangle_paths(4) if max(p.l1, p.l3) <= 2][::-2]),
        (4, [Path(0, 0, 0), Path(0, 2, 2)]),
        (3, [Path(1, 2, 1), Path(1, 2, 2), Path(1, 2, 1), Path(2, 1, 3)]),
        (6, triangle_paths(6, natural=True)[::3]),
    ],
)
def test_product_with_harmonics(lmax: int, paths: list[Path], way: str) -> None:
    """Values and all gradients, those along the polar axis and of the edges' directions too."""
    vectors = torch.randn(6, 3, dtype=torch.float64)
    vectors[0], vectors[1] = torch.tensor([0, 0, 1.5]), torch.tensor([0, 0, -0.3])
    vectors.requires_grad_()
    frames = EdgeFrames(vectors[:, POLAR], lmax)
    a, _, weights = draw(paths, 6, 3)
    degrees = list(range(max(p.l2 for p in paths) + 1))
    y = o3.spherical_harmonics(degrees, vectors[:, POLAR], True, "component")[..., None]
    coefficients = [0.3 + 0.02 * k for k in range(len(paths))]
    found = HarmonicProduct(paths, coefficients)(a, frames, weights)
    expected = oracle.by_broadcasting(paths, coefficients, a, y, weights)
    agree(found, expected, [a, weights, vectors])


def test_harmonics() -> None:
    vectors = torch.randn(6, 3, dtype=torch.float64)
    y = o3.spherical_harmonics([0, 1, 2, 3, 4], vectors[:, POLAR], True, "component")[..., None]
    frames = EdgeFrames(vectors[:, POLAR], 4)
    assert (harmonics(frames, torch.float64) - y).abs().max() < 1e-12


def test_products_turn_with_their_factors() -> None:
    rotation = Rotation.random(rng=5).as_matrix()
    paths = triangle_paths(4)
    a, b = features(5, 4, 3), features(5, 4, 3)
    weights = torch.randn(5, len(paths), 3, dtype=torch.float64)
    blocks = [torch.from_numpy(harmonic_rotation(l, rotation)) for l in range(5)]
    turn = torch.block_diag(*blocks)
    multiply = PathProduct(paths)
    turned = multiply(turn @ a, turn @ b, weights)
    assert (turned - turn @ multiply(a, b, weights)).abs().max() < 1e-12


@pytest.mark.parametrize("slots", [(0, 0, 0, 1, 1, 2), (0, 0, 1, 2, 3, 0, 1), (0,)])
def test_expansion_by_its_equation(slots: tuple[int, ...]) -> None:
    lmax, channels, rows = 4, 6, 3
    expansion = OrbitalExpansion(slots, lmax, channels)
    f = features(rows, lmax, channels)
    weights = torch.randn(rows, expansion.weights, dtype=torch.float64, requires_grad=True)
    biases = torch.randn(rows, expansion.biases, dtype=torch.float64, requires_grad=True)
    widths = [2 * l + 1 for l in slots]
    expected = torch.zeros(rows, sum(widths) ** 2, dtype=torch.float64)
    used = biased = 0
    for l in range(lmax + 1):
        for la in sorted(set(slots)):
            for lb in sorted(set(slots)):
                if not abs(la - lb) <= l <= la + lb:
                    continue
                some = [k for k, s in enumerate(slots) if s == la]
                other = [k for k, s in enumerate(slots) if s == lb]
                count = channels * len(some) * len(other)
                matrix = weights[:, used : used + count].view(rows, channels, len(some), len(other))
                used += count
                t = torch.einsum("rwuv,rkw->ruvk", matrix, f[:, l * l : (l + 1) ** 2])
                if l == 0:
                    bias = biases[:, biased : biased + len(some) * len(other)]
                    t = t + bias.view(rows, len(some), len(other), 1)
                    biased += len(some) * len(other)
                for u, a in enumerate(some):
                    for v, b in enumerate(other):
                        before = sum(
                            widths[a2] * widths[b2] for a2 in range(a) for b2 in range(len(slots))
                        )
                        before += sum(widths[a] * widths[b2] for b2 in range(b))
                        before += sum(2 * k + 1 for k in range(abs(la - lb), l))
                        part = torch.zeros_like(expected)
                        part[:, before : before + 2 * l + 1] = t[:, u, v] / channels
                        expected = expected + part
    assert (used, biased) == (expansion.weights, expansion.biases)
    agree(expansion(f, weights, biases), expected, [f, weights, biases])


def test_sizes_of_the_published_expansions() -> None:
    """QHNet 4.1 (14 and 32 rows), SPHNet section 4 (def2-TZVP)."""
    for slots, lmax, weights, biases in (
        ((0, 0, 0, 1, 1, 2), 4, 1792, 14),
        ((0,) * 5 + (1,) * 4 + (2,) * 3, 4, 8320, 50),
        ((0,) * 5 + (1,) * 5 + (2,) * 2 + (3,), 6, 10144, 55),
    ):
        expansion = OrbitalExpansion(slots, lmax, 32)
        assert (expansion.weights, expansion.biases) == (weights, biases)
        assert math.isqrt(expansion.size) == sum(2 * l + 1 for l in slots)
