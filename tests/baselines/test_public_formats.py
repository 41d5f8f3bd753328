"""Every model learns from rows of the public formats: MD17, nabla2DFT and OMol_CSH."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import hambench
from hambench.data.conventions import Conventions
from hambench.data.graph import collate
from hambench.data.rows import Rows
from hambench.tasks.nabla2dft_hamiltonian import Nabla2dftHamiltonians
from hambench.tasks.omol_csh_file import OmolCshFile
from hambench.tasks.schnorb import SchnorbDatabase

FIXTURES = Path(__file__).parent.parent / "fixtures"
OPTIONS = {"sphnet_small": {"initial_guess": "none"}}  # guesses have tests of their own
MODELS = ("helm_small", "qhnet_small", "phisnet_small", "sphnet_small", "schnorb_small")


def rows_of(name: str) -> Rows:
    if name == "md17":
        pytest.importorskip("ase")
        return SchnorbDatabase(FIXTURES / "schnorb_water.db")
    if name == "nabla2dft":
        path = FIXTURES / "nabla_mini.db"
        return Nabla2dftHamiltonians(path, conventions=Conventions("bohr", "psi4"))
    return OmolCshFile(FIXTURES / "omol_csh_mini.h5", progress=False)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        pytest.param(
            data,
            name,
            marks=[pytest.mark.slow] if (data, name) == ("omol", "phisnet_small") else [],
        )
        for data in ("md17", "nabla2dft", "omol")
        for name in MODELS
    ],
)
def test_a_few_steps_lower_the_loss(name: str, data: str) -> None:
    rows = rows_of(data)
    molecules = rows[:2]
    torch.manual_seed(0)
    model = hambench.build_model(name, rows.basis, **OPTIONS.get(name, {}))
    model.prepare(molecules)
    batch = collate(molecules, model.graph)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        losses.append(model.loss(model(batch), batch).value())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    for matrix, molecule in zip(model(batch).matrices(), molecules, strict=True):
        assert matrix.shape == molecule.hamiltonian.shape
        assert torch.equal(matrix, matrix.T)
        assert matrix.isfinite().all()
