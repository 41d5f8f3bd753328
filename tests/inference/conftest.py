"""Finished runs that were never trained, and files of molecules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hambench import results, rundir
from hambench.cell import model_of, open_task
from hambench.compose import compose
from hambench.learn.loop import BEST
from hambench.learn.weights import cast, save_weights
from hambench.provenance import provenance
from hambench.results import Domain
from hambench.trained import load_trained

WATERS_AND_MORE = """\
3
a comment and no id
O 0.0 0.0 0.1173
H 0.0 0.7572 -0.4692
H 0.1 -0.7572 -0.4692
6
id=dimer charge=0
O 0.0 0.0 0.1173
H 0.0 0.7572 -0.4692
H 0.1 -0.7572 -0.4692
O 3.0 0.2 0.1173
H 3.0 0.9572 -0.4692
H 3.1 -0.5572 -0.4692
2
id=hydroxide charge=-1
O 0.0 0.0 0.0
H 0.3 0.4 0.8
"""

DOMAIN = Domain(elements=("H", "O"), charges=(0,), atoms=3)

CHEAP = "model.hyperparameters.theory={xc:hf,basis:def2-svp}"  # needs no grid
SMALL = [f"model.hyperparameters.{word}" for word in ("channels=4", "layers=1", "gaussians=8")]


def finished_run(
    folder: Path, *overrides: str, task: str = "water_mini", domain: Domain | None = DOMAIN
) -> Path:
    """A run directory with all that a use of its model needs, its weights as they begin."""
    config = compose([f"task={task}", "device=cpu", f"run_dir={folder}", *overrides])
    torch.manual_seed(0)
    model = model_of(config, open_task(config))
    cast(model, getattr(torch, config.precision or "float32"))
    folder.mkdir(parents=True)
    (folder / rundir.CONFIG).write_text(config.to_yaml())
    save_weights(folder / rundir.CHECKPOINTS / BEST, model, 0, None)
    cost = results.Cost(
        device="cpu", wall_s=0, steps=0, epochs=0, steps_per_s=None, molecules_per_s=None,
        stopped_by="max_steps",
    )  # fmt: skip
    results.write_result(
        folder,
        results.Result(
            run_id=config.run_id,
            task=config.task["name"],
            task_version=config.task["version"],
            fingerprint="ab" * 32,
            source="generated",
            variant=open_task(config).spec.variant,
            split="test",
            domain=domain,
            model="none",
            preset=config.model["name"],
            hyperparameters=model.hyperparameters,
            parameters=0,
            recipe={},
            seed=0,
            metrics={"h_mae": results.Metric(value=1, unit="Eh", ci95=None, n=1)},
            primary="h_mae",
            cost=cost,
            provenance=provenance(results.now(), 0, {}),
        ),
    )
    return folder


@pytest.fixture(scope="session")
def finished() -> Callable[..., Path]:
    """`finished_run`."""
    return finished_run


@pytest.fixture(scope="session")
def minao(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose predictions are Hartree-Fock matrices of a guess, rough ones."""
    return finished_run(tmp_path_factory.mktemp("runs") / "minao", "model=minao", CHEAP)


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny network in float32."""
    return finished_run(tmp_path_factory.mktemp("runs") / "helm", "model=helm_small", *SMALL)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A run whose predictions are not finite."""
    folder = finished_run(tmp_path / "broken", "model=helm_small", *SMALL)
    model = load_trained(folder).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    save_weights(folder / rundir.CHECKPOINTS / BEST, model, 0, None)
    return folder


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """An xyz file of three molecules of different sizes."""
    path = tmp_path / "many.xyz"
    path.write_text(WATERS_AND_MORE)
    return path


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """An xyz file of one."""
    path = tmp_path / "one.xyz"
    path.write_text("\n".join(WATERS_AND_MORE.splitlines()[:5]) + "\n")
    return path
