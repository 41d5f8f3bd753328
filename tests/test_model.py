"""The model interface: losses add exactly, predictions know their space, defaults say no."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import collate
from hambench.errors import ConfigError, DataError
from hambench.helm import Helm, HelmEnergy
from hambench.losses import rmse_plus_mse
from hambench.model import Loss, Prediction

BASIS = OrbitalBasis.load("def2-svp", [1, 8])


def waters(rng: np.random.Generator, n: int) -> list[Molecule]:
    out = []
    for k in range(n):
        matrix = rng.normal(size=(24, 24))
        out.append(
            Molecule(
                np.array([8, 1, 1]),
                rng.normal(size=(3, 3)),
                basis="def2-svp",
                id=str(k),
                hamiltonian=matrix + matrix.T,
            )
        )
    return out


def test_loss_of_a_batch_is_the_joined_loss_of_its_parts(rng: np.random.Generator) -> None:
    model = Helm(BASIS, channels=8, layers=1, gaussians=8).double()
    mols = waters(rng, 6)
    model.prepare(mols)

    def loss(part: list[Molecule]) -> Loss:
        batch = collate(part, model.graph)
        return model.loss(model(batch), batch)

    whole, parts = loss(mols), [loss(mols[:1]), loss(mols[1:4]), loss(mols[4:])]
    joined = whole.finish(sum(p.terms for p in parts), sum(p.counts for p in parts))
    assert float(joined.detach()) == pytest.approx(float(whole.value().detach()), rel=1e-14)
    assert float(whole.counts) == 6 * 24 * 24
    assert float(whole.value()) != pytest.approx(float(sum(p.value() for p in parts)) / 3, rel=1e-6)


def test_rmse_plus_mse() -> None:
    value = rmse_plus_mse(torch.tensor([8.0]), torch.tensor([2.0]))
    assert float(value) == 2 + 4


def test_what_a_model_does_not_offer_is_said(rng: np.random.Generator) -> None:
    mols = waters(rng, 1)
    helm, energies = Helm(BASIS, channels=8, layers=1), HelmEnergy(BASIS, channels=8, layers=1)
    with pytest.raises(ConfigError, match="Helm predicts no energies"):
        helm.energy(collate(mols, helm.graph))
    with pytest.raises(ConfigError, match="predicts energies, not Hamiltonians"):
        energies(collate(mols, energies.graph)).matrices()
    bare = Molecule(mols[0].numbers, mols[0].positions)
    batch = collate([bare], helm.graph)
    with pytest.raises(DataError, match="no Hamiltonian labels"):
        helm.loss(helm(batch), batch)
    assert isinstance(helm(batch), Prediction)
