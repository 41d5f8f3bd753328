"""Small networks with all parameters random, molecules for them, and their oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sphnet_oracle import Oracle, Paths, Settings

from hambench.baselines.sphnet.model import SPHNet
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis, Shells

SVP = OrbitalBasis.load("def2-svp", [1, 6, 7, 8, 9])
TZVP = OrbitalBasis(  # slots 5s5p2d1f
    "def2-tzvp",
    {
        1: Shells((0, 0, 0, 1)),
        6: Shells((0,) * 5 + (1,) * 3 + (2,) * 2 + (3,)),
        16: Shells((0,) * 5 + (1,) * 5 + (2,) * 2 + (3,)),
    },
)
TINY = OrbitalBasis("tiny", {1: Shells((0,)), 8: Shells((0, 0, 1))})
"""Of degree 2 at most: 15 paths, of which 4 are drawn and the best 5 kept."""
HEAVY = OrbitalBasis.load("def2-tzvpd")
SMALL: dict[str, Any] = {"channels": 8, "short_layers": 2, "long_layers": 2, "bottleneck": 4}
PUBLISHED: dict[str, Any] = {
    "grouping": "kmeans",
    "norm_layout": "published",
    "unit_vectors": "published",
    "vector_lengths": "published",
    "pair_order": "published",
    "gate_form": "hard",
    "gate_scope": "batch",
    "loss_blocks": "published",
}


def randomised(basis: OrbitalBasis = SVP, seed: int = 0, **options: Any) -> SPHNet:
    """A float64 model all of whose parameters differ from what they begin with."""
    torch.manual_seed(seed)
    model = SPHNet(basis, **{**SMALL, **options}).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.1 if name.endswith("betas") else 0.3
            parameter.mul_(1 + scale * torch.rand_like(parameter))
            if parameter.ndim < 2 and not name.endswith(("betas", "means")):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def molecules(
    basis: OrbitalBasis = SVP, sizes: tuple[int, ...] = (6, 4), seed: int = 3, labels: bool = False
) -> list[Molecule]:
    """Molecules of mixed elements and charges, no two atoms closer than 0.9 Angstrom."""
    rng = np.random.default_rng(seed)
    elements = [1, 53, 79, 8] if basis is HEAVY else list(basis.elements)[:4]
    found = []
    for k, n in enumerate(sizes):
        x = np.zeros((0, 3))
        while len(x) < n:
            new = rng.uniform(-1, 1, 3) * 1.1 * n ** (1 / 3)
            if len(x) == 0 or np.linalg.norm(x - new, axis=1).min() > 0.9:
                x = np.vstack([x, new])
        numbers = rng.choice(elements, n)
        half = rng.normal(size=(basis.nao(numbers),) * 2)
        matrix = half + half.T if labels else None
        found.append(
            Molecule(numbers, x, charge=k % 2, basis=basis.name, id=f"m{k}", hamiltonian=matrix)
        )
    return found


def settings(model: SPHNet, **options: Any) -> Settings:
    """What the oracle has to know of a model of these options."""
    known = {key: options[key] for key in vars(Settings(0)) if key in options}
    if options.get("sparse", True):
        known["sparsity"] = options.get("sparsity", 0.7)
    return Settings(model.backbone.lmax, **known)


def oracle(model: SPHNet, paths: list[Paths] | None = None, **options: Any) -> Oracle:
    """The oracle with a model's weights."""
    slots = model.graph.layout.slots
    return Oracle(dict(model.named_parameters()), slots, settings(model, **options), paths)


def squares(model: SPHNet, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The model's on-site blocks, and blocks of pairs, later atom first, as matrices."""
    prediction, place = model(batch), model.graph.layout.square
    return prediction.node[:, place], prediction.edge[batch.pair_index[1]][:, place]
