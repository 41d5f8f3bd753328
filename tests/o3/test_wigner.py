"""Rotations of harmonics, and packed edge Wigner matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from e3nn import o3
from scipy.spatial.transform import Rotation

from hambench.harmonics import harmonic_rotation
from hambench.o3.wigner import POLAR, edge_wigner, wigner_blocks


def harmonics(l: int, points: np.ndarray) -> np.ndarray:
    """e3nn's real harmonics m = -l..l about the physical z axis, (n, 2l+1)."""
    turned = torch.tensor(points[:, [1, 2, 0]])
    return o3.spherical_harmonics(l, turned, True, normalization="component").numpy()


@pytest.mark.parametrize("l", range(7))
def test_harmonics_turn_as_told(l: int, rng: np.random.Generator) -> None:
    points, turn = rng.normal(size=(20, 3)), Rotation.random(rng=3).as_matrix()
    turned = harmonics(l, points @ turn.T)
    assert np.abs(turned - harmonics(l, points) @ harmonic_rotation(l, turn).T).max() < 1e-12


def test_rotations_are_a_representation() -> None:
    first, second = (Rotation.random(rng=k).as_matrix() for k in (1, 2))
    for l in range(7):
        product = harmonic_rotation(l, first) @ harmonic_rotation(l, second)
        assert np.abs(product - harmonic_rotation(l, first @ second)).max() < 1e-13
        assert np.abs(product @ product.T - np.eye(2 * l + 1)).max() < 1e-13


def edges_and_poles(rng: np.random.Generator) -> torch.Tensor:
    poles = np.array(
        [[0, 0, 1.5], [0, 0, -0.7], [1e-9, 0, 1], [0, 1e-9, -1], [1, 0, 0], [0, -2, 0]]
    )
    return torch.from_numpy(np.concatenate([rng.normal(size=(30, 3)), poles]))


@pytest.mark.parametrize("lmax", [0, 1, 4, 6])
def test_edges_arrive_at_the_polar_axis(lmax: int, rng: np.random.Generator) -> None:
    """In its frame an edge's harmonics vanish but for m = 0; the matrices are orthogonal."""
    vectors = edges_and_poles(rng)
    blocks = wigner_blocks(edge_wigner(vectors[:, list(POLAR)], lmax), lmax)
    for l, block in enumerate(blocks):
        values = torch.from_numpy(harmonics(l, vectors.numpy()))
        framed = torch.einsum("emk,ek->em", block, values)
        expected = torch.zeros_like(framed)
        expected[:, l] = math.sqrt(2 * l + 1)
        assert (framed - expected).abs().max() < 1e-12 * math.sqrt(2 * l + 1)
        identity = block @ block.transpose(1, 2)
        assert (identity - torch.eye(2 * l + 1, dtype=torch.float64)).abs().max() < 1e-12


def test_wigner_matrices_are_those_of_a_rotation(rng: np.random.Generator) -> None:
    """Degree l's matrix is the representation of the rotation that degree 1 shows."""
    vectors = edges_and_poles(rng)[:, list(POLAR)]
    blocks = wigner_blocks(edge_wigner(vectors, 5), 5)
    for e in range(len(vectors)):
        turn = blocks[1][e].numpy()[np.ix_([2, 0, 1], [2, 0, 1])]  # (y, z, x) back to (x, y, z)
        assert np.linalg.det(turn) == pytest.approx(1)
        for l in range(6):
            assert np.abs(blocks[l][e].numpy() - harmonic_rotation(l, turn)).max() < 2e-12


def test_float32_is_safe_at_the_poles() -> None:
    """Edges a thousandth of a radian from the pole keep float32 accuracy (arccos would lose it)."""
    angles = torch.linspace(0, 2 * torch.pi, 50, dtype=torch.float64)
    near = torch.stack([1e-3 * angles.cos(), torch.ones(50), 1e-3 * angles.sin()], 1)
    error = edge_wigner(near.float(), 4).double() - edge_wigner(near.float().double(), 4)
    assert error.abs().max() < 2e-6
