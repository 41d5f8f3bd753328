"""Per-element statistics of on-site scalars, that labels are shifted or standardised by.

The means reach 483 Eh (Br 1s), the errors a model aims at are micro-Hartree: removing them in
float64 is what lets a float32 network learn heavy elements at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from hambench.chem.blocks import layout, pack
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.neighbours import neighbour_pairs
from hambench.errors import DataError

Scaling = Literal["none", "shift", "standardize"]
SMALL = 1e-4
"""Standard deviations below this (Eh) are taken as 1, as published."""


def label_statistics(molecules: Iterable[Molecule], basis: OrbitalBasis) -> tuple[Tensor, Tensor]:
    """Mean and population deviation of every L = 0 coupled on-site entry, per element.

    One pass, float64 (Welford's update, molecule by molecule). Entries of L > 0 and of slots an
    element lacks have mean 0 and deviation 1. Computed on the training set alone.

    Returns:
        Two (Z, K^2) tensors in Eh, Z the largest atomic number of the basis plus one.

    Raises:
        DataError: a molecule without a Hamiltonian.
    """
    blocks = layout(basis)
    scalars = torch.tensor([i.start for i in blocks.irreps if i.l == 0])
    size = max(basis.elements) + 1
    count = torch.zeros(size, 1, dtype=torch.float64)
    mean = torch.zeros(size, len(scalars), dtype=torch.float64)
    spread = torch.zeros_like(mean)
    no_edges = neighbour_pairs(torch.zeros(1, 3).numpy(), None)[0]
    for molecule in molecules:
        if molecule.hamiltonian is None:
            raise DataError(f"molecule '{molecule.id}' has no Hamiltonian to take statistics of")
        matrix = torch.from_numpy(molecule.hamiltonian)
        node, _ = pack(matrix, blocks, no_edges, molecule.numbers)
        values = blocks.couple(node)[:, scalars]
        numbers = torch.from_numpy(molecule.numbers)
        for z in numbers.unique().tolist():
            rows = values[numbers == z]
            new = count[z] + len(rows)
            delta = rows.mean(0) - mean[z]
            within = (rows - rows.mean(0)).square().sum(0)
            spread[z] += within + delta.square() * count[z] * len(rows) / new
            mean[z] += delta * len(rows) / new
            count[z] = new
    deviation = (spread / count.clamp(min=1)).sqrt()
    deviation[deviation < SMALL] = 1
    full_mean = torch.zeros(size, blocks.size, dtype=torch.float64)
    full_deviation = torch.ones_like(full_mean)
    full_mean[:, scalars], full_deviation[:, scalars] = mean, deviation
    return full_mean, full_deviation
