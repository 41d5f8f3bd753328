"""Spectra of batches by PyTorch, on a CPU and on a GPU, against those by NumPy; without PySCF."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hambench import load_task
from hambench.scoring.spectra import Trouble, spectral_errors


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_torch_gives_the_same(device: str, rng: np.random.Generator) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    water = load_task("water_mini").rows[0]
    noise = rng.laplace(scale=1e-4, size=water.hamiltonian.shape)
    predicted = water.hamiltonian + (noise + noise.T) / 2
    stacks = [a[None] for a in (predicted, water.hamiltonian, water.overlap)]
    ours, torchs = (
        spectral_errors(*stacks, electrons=10, threshold=1e-6, device=where)[0]
        for where in (None, device)
    )
    np.testing.assert_allclose(torchs, ours, rtol=1e-8, atol=1e-13)
    singular = [*stacks[:2], np.ones((1, 24, 24))]
    for where in (None, device):
        found = spectral_errors(*singular, electrons=10, threshold=1e-6, device=where)
        assert found == [Trouble.FEW_ORBITALS]
