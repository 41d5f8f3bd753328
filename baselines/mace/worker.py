"""Trains and predicts with MACE, under the interpreter of MACE's own environment.

`hambench/external/host.py` calls `train` and `predict` there; nothing of hambench is imported.
Energies are in eV and lengths in Angstrom.

Training is MACE's own, ``mace.cli.run_train``. It has no options for two things, so two of its
names are replaced: its logger, through which it tells every step and every validation, and, where
forces are no labels, its loss, which asks for them even if they have no weight.

The folder of a training holds ``course.json``, the truth about how far it came, and the checkpoints
that this names. MACE goes on from the last one with its moving average as the weights.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

MODEL = "mace"  # MACE calls its files so
COURSE = "course.json"
Listener = Callable[[dict[str, Any]], None]
"""Gets the rows of MACE's log."""


class Stop(Exception):  # noqa: N818 (no error)
    """Training ends here; ``str`` says why."""


@dataclass
class Course:
    """How far a training came, over all its starts.

    Attributes:
        epoch, step: finished and saved.
        seconds, training_seconds: with and without validations.
        molecules: seen in training.
        best, best_epoch, best_step: lowest validation error, mean ``|dE|`` in eV.
        restarts: how often it was started again.
        stopped_by: why it ended; empty while it has not.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0
    molecules: int = 0
    best: float = math.inf
    best_epoch: int = 0
    best_step: int = 0
    restarts: int = 0
    stopped_by: str = ""

    @classmethod
    def of(cls, folder: Path) -> Course:
        """The course that a folder has, a new one where there is none."""
        path = folder / COURSE
        return cls(**json.loads(path.read_text("utf-8"))) if path.is_file() else cls()

    def save(self, folder: Path) -> None:
        """Write ``course.json``, whole or not at all, and drop checkpoints it no longer names."""
        temporary = folder / f".{COURSE}"
        temporary.write_text(json.dumps(asdict(self)), "utf-8")
        os.replace(temporary, folder / COURSE)
        named = {checkpoint(folder, epoch) for epoch in (self.epoch, self.best_epoch)}
        for path in set(folder.glob("epoch-*.pt")) - named:
            path.unlink()


def checkpoint(folder: Path, epoch: int) -> Path:
    """Checkpoint after so many epochs."""
    return folder / f"epoch-{epoch}.pt"


class Training:
    """One start of a training: listens to MACE, keeps checkpoints, ends it in time.

    Args:
        job: see `hambench.baselines.mace.model`.
        host: gets the events.
    """

    def __init__(self, job: dict[str, Any], host: Any) -> None:
        self.job, self.host = job, host
        self.device = host.device(job["device"])
        self.folder = Path(job["folder"])
        self.scratch = self.folder / "scratch"  # MACE's own files
        self.course = Course.of(self.folder)
        self.signal: str | None = None

    def run(self) -> None:
        """Train until the budget ends, and write the model of the best epoch."""
        if not self.course.stopped_by:
            self.host.tell("start", **self._place())
            if self.course.epoch:
                self.course.restarts += 1
            self._train()
        parameters = self._write_best()
        self.host.tell(
            "done", parameters=parameters, **asdict(self.course), **self.host.resources(self.device)
        )

    def _train(self) -> None:
        course = self.course
        self._begin = time.monotonic()
        self._base = course.seconds
        self._step, self._seen, self._trained = course.step, course.molecules, 0.0
        self._epoch: int | None = None  # MACE counts from 0
        self._validated: float | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        try:
            self._mace(course.epoch, self._heard)
        except Stop as stop:
            course.stopped_by = str(stop)
            course.save(self.folder)
            return
        self.host.fail("MACE ended its training by itself, before the budget was used up")

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name

    def _heard(self, row: dict[str, Any]) -> None:
        """A row of MACE's log: a step, or a validation."""
        if row["mode"] == "opt":
            self._heard_step(row)
        elif row["epoch"] is not None:  # it also validates before the first step
            self._heard_validation(row)

    def _heard_step(self, row: dict[str, Any]) -> None:
        if self._validated is not None:
            self._keep()
        if self._epoch is None and row["epoch"] != self.course.epoch:
            self.host.fail(
                f"MACE could not go on from its checkpoint of epoch {self.course.epoch} and began "
                f"with epoch {row['epoch']}"
            )
        if self.signal:
            raise SystemExit(128 + signal.Signals[self.signal])
        self._epoch = row["epoch"]
        self._trained += row["time"]
        self._step += 1
        self._seen += self.job["arguments"]["batch_size"]  # MACE drops incomplete batches
        self.host.tell(
            "step",
            step=self._step,
            epoch=row["epoch"],
            seconds=self._seconds(),
            loss=float(row["loss"]),
            molecules=self._seen,
        )

    def _heard_validation(self, row: dict[str, Any]) -> None:
        self._validated = float(row["mae_e"])
        if not math.isfinite(self._validated):
            self.host.fail(
                f"the validation error is {self._validated} after step {self._step}; lower the "
                "learning rate, e.g. recipe.optimizer.lr=0.003"
            )
        self.host.tell(
            "validation",
            step=self._step,
            epoch=row["epoch"] + 1,
            seconds=self._seconds(),
            mae=self._validated,
            loss=float(row["loss"]),
        )

    def _keep(self) -> None:
        """Take over the checkpoint MACE wrote after its newest validation; end if it is time."""
        course, done = self.course, self._epoch
        assert done is not None and self._validated is not None
        (written,) = self.scratch.glob(f"checkpoints/*_epoch-{done}.pt")
        os.replace(written, checkpoint(self.folder, done + 1))
        course.epoch, course.step, course.molecules = done + 1, self._step, self._seen
        course.seconds = self._seconds()
        course.training_seconds += self._trained
        self._trained = 0.0
        if self._validated < course.best:
            course.best, course.best_epoch, course.best_step = self._validated, done + 1, self._step
        course.save(self.folder)
        self._validated = None
        self.host.tell("kept", **self._place())
        if course.epoch >= self.job["epochs"]:
            raise Stop("max_steps")
        minutes = self.job["max_minutes"]
        if minutes is not None and course.seconds >= 60 * minutes:
            raise Stop("max_minutes")
        patience = self.job["patience_epochs"]
        if patience is not None and course.epoch - course.best_epoch >= patience:
            raise Stop("patience")

    def _write_best(self) -> int:
        """``mace.model`` of the best epoch; returns its number of parameters.

        MACE writes it when a training ends, so one of no epoch is started from that checkpoint.
        """
        import torch

        target = self.folder / f"{MODEL}.model"
        if not target.is_file():
            errors = []
            self._mace(self.course.best_epoch, lambda row: errors.append(row["mae_e"]), train=False)
            if not math.isclose(errors[0], self.course.best, rel_tol=1e-3, abs_tol=1e-6):
                self.host.fail(
                    f"the weights of epoch {self.course.best_epoch} have a validation error of "
                    f"{errors[0]} eV, in training it was {self.course.best} eV"
                )
            os.replace(self.scratch / target.name, target)
            shutil.rmtree(self.scratch)
        model = torch.load(target, map_location="cpu", weights_only=False)
        return sum(p.numel() for p in model.parameters())

    def _mace(self, epoch: int, heard: Listener, train: bool = True) -> None:
        """Let MACE train from the checkpoint of an epoch, or only write the model of it."""
        import mace.tools
        from mace.cli import run_train

        shutil.rmtree(self.scratch, ignore_errors=True)
        checkpoints = self.scratch / "checkpoints"
        checkpoints.mkdir(parents=True)
        begin = epoch if train else 0
        if epoch:
            tag = mace.tools.get_tag(MODEL, self.job["seed"])
            shutil.copyfile(checkpoint(self.folder, epoch), checkpoints / f"{tag}_epoch-{begin}.pt")
        words = {
            "name": MODEL,
            "train_file": self.job["train"],
            "valid_file": self.job["validation"],
            "work_dir": self.scratch,
            "seed": self.job["seed"],
            "device": self.device,
            # one step more than is kept: the checkpoint of an epoch is there when the next begins
            "max_num_epochs": self.job["epochs"] + 1 if train else 0,
            "patience": self.job["epochs"] + 2,  # ours is not MACE's
            "plot": False,
            **self.job["arguments"],
        }
        flags = ["restart_latest", "keep_checkpoints", "save_all_checkpoints", "save_cpu"]
        words |= dict.fromkeys(flags, True)
        parser = mace.tools.build_default_arg_parser()
        args = parser.parse_args(
            [f"--{key}" if value is True else f"--{key}={value}" for key, value in words.items()]
        )
        logging.getLogger().handlers.clear()  # MACE adds its own with every run
        mace.tools.MetricsLogger = listener(heard)
        if not self.job["forces"]:
            run_train.get_loss_fn = lambda *_: energy_loss()
        run_train.run(args)

    def _seconds(self) -> float:
        return self._base + time.monotonic() - self._begin

    def _place(self) -> dict[str, Any]:
        course = self.course
        return {"epoch": course.epoch, "step": course.step, "seconds": course.seconds}


def listener(heard: Listener) -> type:
    """A class that takes the place of MACE's logger and hands on what is logged."""

    class Logger:
        def __init__(self, directory: str, tag: str) -> None:
            self.path = os.path.join(directory, tag)

        def log(self, row: dict[str, Any]) -> None:
            heard(row)

    return Logger


def energy_loss() -> Any:
    """MACE's loss of energies: the mean square of the error per atom."""
    import torch
    from mace.modules.loss import weighted_mean_squared_error_energy

    class EnergyLoss(torch.nn.Module):
        def forward(self, ref: Any, pred: Any, ddp: bool | None = None) -> torch.Tensor:
            return weighted_mean_squared_error_energy(ref, pred, ddp)

    return EnergyLoss()


def train(job: dict[str, Any], host: Any) -> None:
    """Train, or go on with it; the event ``done`` sums up."""
    Training(job, host).run()


def predict(job: dict[str, Any], host: Any) -> None:
    """Energies of the molecules of an extxyz file."""
    import ase.io
    import mace.tools
    import torch
    from mace import data
    from mace.tools import torch_geometric

    on = host.device(job["device"])
    model = torch.load(job["model"], map_location=on, weights_only=False).eval()
    kind = next(model.parameters()).dtype
    torch.set_default_dtype(kind)
    frames = ase.io.read(job["molecules"], index=":")
    table = mace.tools.AtomicNumberTable([int(z) for z in model.atomic_numbers])
    loader = torch_geometric.dataloader.DataLoader(
        dataset=[
            data.AtomicData.from_config(
                data.config_from_atoms(atoms), z_table=table, cutoff=float(model.r_max)
            )
            for atoms in frames
        ],
        batch_size=job["batch_size"],
        shuffle=False,
    )
    energies: list[float] = []
    for batch in loader:
        with torch.no_grad():
            values = model(batch.to(on).to_dict(), compute_force=False)["energy"]
        energies += values.tolist()
        host.tell("predicted", molecules=len(energies))
    host.write_predictions(job["out"], [atoms.info["row"] for atoms in frames], energies)
