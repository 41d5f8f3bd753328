"""Tensor products, harmonics and orbital expansion against their equations; rotations."""

from __future__ import annotations

import math

import pytest
import torch
from e3nn import o3
from scipy.spatial.transform import Rotation
from torch import Tensor

from hambench.harmonics import harmonic_rotation
from hambench.o3.expansion import OrbitalExpansion
from hambench.o3.products import HarmonicProduct, Path, PathProduct, harmonics, triangle_paths
from hambench.o3.so2 import EdgeFrames
from hambench.o3.wigner import POLAR


def features(rows: int, lmax: int, channels: int) -> Tensor:
    return torch.randn(rows, (lmax + 1) ** 2, channels, dtype=torch.float64, requires_grad=True)


def by_equation(paths, coefficients, a: Tensor, b: Tensor, weights: Tensor, lmax: int) -> Tensor:
    out = torch.zeros(len(a), (lmax + 1) ** 2, a.shape[-1], dtype=a.dtype)
    for k, (l1, l2, l3) in enumerate(paths):
        left, right = a[:, l1 * l1 : (l1 + 1) ** 2], b[:, l2 * l2 : (l2 + 1) ** 2]
        symbol = o3.wigner_3j(l1, l2, l3, dtype=a.dtype)
        right = right.expand(*right.shape[:2], a.shape[-1])
        term = torch.einsum("ijk,ria,rja->rka", symbol, left, right)
        index = slice(l3 * l3, (l3 + 1) ** 2)
        part = torch.zeros_like(out)
        part[:, index] = coefficients[k] * weights[:, k, None] * term
        out = out + part
    return out


def agree(found: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-12
    seed = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad((found * seed).sum(), inputs),
        torch.autograd.grad((expected * seed).sum(), inputs),
        strict=True,
    ):
        assert (one - other).abs().max() < 1e-11


def test_counts_of_paths() -> None:
    """QHNet, section 3; PhiSNet and SPHNet have the same."""
    assert [len(triangle_paths(l)) for l in (2, 3, 4, 6)] == [15, 34, 65, 175]
    assert [len(triangle_paths(l, natural=True)) for l in (4, 6)] == [42, 106]
    assert triangle_paths(4, left=0) == [Path(0, l, l) for l in range(5)]
    assert triangle_paths(1)[:4] == [Path(0, 0, 0), Path(0, 1, 1), Path(1, 0, 1), Path(1, 1, 0)]


@pytest.mark.parametrize("natural", [False, True])
@pytest.mark.parametrize("rows", [1, 7])
def test_product_by_its_equation(natural: bool, rows: int) -> None:
    paths = triangle_paths(4, natural=natural)
    coefficients = [0.3 + 0.1 * k for k in range(len(paths))]
    a, b = features(7, 4, 3), features(7, 4, 3)
    weights = torch.randn(rows, len(paths), 3, dtype=torch.float64, requires_grad=True)
    found = PathProduct(paths, coefficients)(a, b, weights)
    agree(found, by_equation(paths, coefficients, a, b, weights, 4), [a, b, weights])


def test_product_of_few_paths() -> None:
    """Degrees without a path are zero, and inputs may be of lower degree."""
    paths = [Path(0, 2, 2), Path(1, 1, 0), Path(2, 0, 2)]
    a, b = features(5, 2, 4), features(5, 2, 4)
    weights = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    found = PathProduct(paths)(a, b, weights)
    agree(found, by_equation(paths, [1.0] * 3, a, b, weights, 2), [a, b, weights])
    assert (found[:, 1:4] == 0).all()


@pytest.mark.parametrize(("natural", "left"), [(True, None), (False, None), (True, 0)])
def test_product_with_harmonics(natural: bool, left: int | None) -> None:
    paths = triangle_paths(4, natural=natural, left=left)
    vectors = torch.randn(6, 3, dtype=torch.float64)
    vectors[0], vectors[1] = torch.tensor([0, 0, 1.5]), torch.tensor([0, 0, -0.3])
    frames = EdgeFrames(vectors[:, POLAR], 4)
    a = features(6, 4 if left is None else left, 3)
    weights = torch.randn(6, len(paths), 3, dtype=torch.float64, requires_grad=True)
    degrees = list(range(5))
    y = o3.spherical_harmonics(degrees, vectors[:, POLAR], True, "component")[..., None]
    assert (harmonics(frames, torch.float64) - y).abs().max() < 1e-12
    coefficients = [0.3 + 0.02 * k for k in range(len(paths))]
    found = HarmonicProduct(paths, coefficients)(a, frames, weights)
    agree(found, by_equation(paths, coefficients, a, y, weights, 4), [a, weights])


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
