"""PhiSNet against its public code's way to compute the same, path by path: values and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phisnet_oracle import PathByPath

import hambench
from hambench.baselines.phisnet.names import entries
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import collate

SMALL = {"features": 4, "basis_functions": 5, "modules": 2, "head_blocks": 1, "cutoff": 2.5}


def molecules(rng: np.random.Generator) -> list[Molecule]:
    """Of mixed elements and sizes, some pairs beyond the cutoff; one atom alone."""
    found = []
    for numbers in ([6, 8, 1, 1], [8, 6], [1]):
        positions = rng.normal(size=(len(numbers), 3)) * 1.3
        found.append(Molecule(numbers, positions, basis="def2-svp", id=str(len(found))))
    return found


@pytest.mark.parametrize("order", [4, 3])
def test_values_and_gradients(order: int, rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    basis = OrbitalBasis.load("def2-svp", [1, 6, 8])
    model = hambench.build_model(
        "phisnet_md17_malondialdehyde", basis, **SMALL, order=order, molecule=None
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():  # those that nothing depends on, too
            parameter.add_(0.2 * torch.randn_like(parameter))
        for spare in model.unused.by_name().values():
            if not spare.requires_grad:
                spare.zero_()
    slow = PathByPath(model)
    batch = collate(molecules(rng), model.graph)
    batch.positions.requires_grad_()
    prediction = model(batch)
    overlap = hambench.model.Prediction(batch, model.graph, *prediction.overlap)
    found = prediction.raw_matrices() + overlap.raw_matrices()
    hamiltonians, overlaps = slow(batch)
    expected = hamiltonians + overlaps
    scale = max(float(h.detach().abs().max()) for h in expected)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < 1e-10 * max(scale, 1)
    seeds = [torch.randn_like(h) / scale for h in expected]
    gradients = []
    for matrices in (found, expected):
        batch.positions.grad = None
        sum((h * s).sum() for h, s in zip(matrices, seeds, strict=True)).backward()
        gradients.append(batch.positions.grad)
    largest = max(float(gradients[0].abs().max()), 1.0)
    assert (gradients[0] - gradients[1]).abs().max() < 1e-10 * largest
    for entry in entries(model):
        theirs = slow.weights[entry.name].grad
        if entry.parameter is None:
            # no matter what they are: zeros times anything
            unused = entry.name.startswith("output_over_ii") or theirs is None
            assert unused or theirs.abs().max() < 1e-10 * largest, entry.name
            continue
        ours = entry.parameter.grad[entry.index]
        wanted = torch.zeros_like(ours) if theirs is None else entry.ours(theirs)
        size = max(float(wanted.abs().max()) if wanted.numel() else 0.0, 1.0)
        assert wanted.numel() == 0 or (ours - wanted).abs().max() < 1e-10 * size, entry.name
        if theirs is not None and entry.unused is not None:
            assert entry.rest(theirs).abs().max() < 1e-12 * size, entry.name
