"""From a trained model to scores: predict a split, keep what was predicted, compare with labels.

What every molecule adds to every metric is a `ScoreTable`, molecules in the order of the split.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hambench import rundir
from hambench.cell import Cell, table_of
from hambench.chem.molecule import Molecule
from hambench.chem.rotation import scoring_rotation
from hambench.data.rows import Rows, Unlabelled
from hambench.data.splits import clusters
from hambench.data.task import Task
from hambench.data.workers import cores, pool
from hambench.errors import DataError
from hambench.external import ExternalModel
from hambench.learn.device import open_fabric
from hambench.learn.outputs import outputs_of
from hambench.learn.reporters import bar
from hambench.results import Metric
from hambench.scoring import Score, Scorer
from hambench.scoring.energy_table import EnergyRow, read_energies, write_energies
from hambench.scoring.predictions import Predictions, PredictionWriter, write_predictions
from hambench.scoring.score_table import ScoreTable
from hambench.scoring.summary import scores_of

Array = NDArray[np.float64]


def predict(cell: Cell, split: str, progress: bool = True) -> Iterator[tuple[Molecule, Array]]:
    """Molecules of a split, each with its predicted Hamiltonian or energy.

    The model predicts in evaluation mode, with float32 products in full precision.

    Args:
        cell: its model as it is now; moved to the device.
        split: of its task.
        progress: show a bar on a terminal.

    Yields:
        The molecule, and float64 in Eh: (nao, nao), symmetric, canonical order; or the total
        energy, of shape ().
    """
    molecules, model = cell.task.split(split), cell.model
    if isinstance(model, ExternalModel):
        folder = cell.config.folder / rundir.EXTERNAL
        energies = model.predict(molecules, folder, device=cell.config.device, progress=progress)
        yield from zip(molecules, energies, strict=True)
        return
    yield from _predicted(cell, molecules, f"predict {split}", progress)


def predict_turned(cell: Cell, split: str, progress: bool = True) -> Iterator[Array]:
    """As `predict`, the Hamiltonians of the molecules turned by their `scoring_rotation`."""
    turned = _Turned(cell.task.split(split))
    yield from (output for _, output in _predicted(cell, turned, f"turned {split}", progress))


def _predicted(
    cell: Cell, molecules: Rows, label: str, progress: bool
) -> Iterator[tuple[Molecule, Array]]:
    """Molecules and what the network of a cell predicts for them."""
    model = cell.model
    assert not isinstance(model, ExternalModel)  # which predicts energies alone
    device = open_fabric(cell.config.device).device
    model.to(device)
    if (guess := model.graph.guess) is not None:
        guess.complete(molecules, bar if progress else None)
    outputs = outputs_of(
        model, molecules, batch_size=cell.recipe.batch_size, max_edges=cell.recipe.max_edges
    )
    shown = tqdm(
        outputs, total=len(molecules), desc=label, unit="mol", leave=False,
        disable=not (progress and sys.stderr.isatty()),
    )  # fmt: skip
    yield from ((molecules[row], output) for row, output in shown)


class _Turned(Unlabelled):
    """Molecules turned by their `scoring_rotation`, without labels."""

    def row(self, index: int) -> Molecule:
        """Elements, turned positions, charge and multiplicity."""
        bare = super().row(index)
        return replace(bare, positions=bare.positions @ scoring_rotation(bare).T)


def scorer_of(
    cell: Cell, executor: Executor | None = None, inference_s: float | None = None
) -> Scorer:
    """What computes the metrics of a cell; see `Scorer` for the other arguments."""
    device = open_fabric(cell.config.device).device
    return Scorer(
        cell.metrics, cell.cutoff, cell.task.basis, cell.theory, executor, ahead=2 * cores(),
        samples=cell.samples, inference_s=inference_s,
        device=str(device) if device.type == "cuda" else None,
    )  # fmt: skip


def score_predictions(
    cell: Cell,
    predictions: Iterable[tuple[Molecule, Array]],
    split: str,
    kept: Path | None = None,
    turned: Iterable[Array] | None = None,
    *,
    inference_s: float | None = None,
    progress: bool = False,
) -> ScoreTable:
    """Scores of Hamiltonians or energies predicted for a split; Hamiltonians go to ``kept``.

    Metrics that need PySCF are computed by one process per core, on the samples of the
    configuration; a bar shows how far they are. ``turned`` are predictions for the molecules
    turned, where a metric needs them (`Cell.needs_turned`); ``inference_s`` seconds that predicting
    a molecule takes.
    """
    groups = clusters(cell.task.split(split).ids)
    dear = len(frozenset[str]().union(*(sample.ids for sample in cell.samples.values())))
    many = cell.theory is not None and cores() > 1
    with pool(cores()) if many else nullcontext() as executor, _shown(dear, progress) as shown:
        counted = None if executor is None else _Counted(executor, shown)
        scorer = scorer_of(cell, counted, inference_s)
        with nullcontext() if kept is None else _writing(cell, kept) as writer:
            others: Iterable[Array | None] = repeat(None) if turned is None else turned
            for (molecule, predicted), other in zip(predictions, others, strict=turned is not None):
                scorer.add(predicted, molecule, groups[molecule.id], other)
                if writer is not None:
                    writer.add(molecule.id, predicted, other)
        return table_of(scorer, cell.task, split)


def keep_predictions(cell: Cell, kept: Path, progress: bool = True) -> None:
    """Predict the scored split and keep the Hamiltonians, without scoring them once more."""
    split = cell.config.score.split
    turned = predict_turned(cell, split, progress) if cell.needs_turned else repeat(None)
    with _writing(cell, kept) as writer:
        for (molecule, predicted), other in zip(
            predict(cell, split, progress), turned, strict=cell.needs_turned
        ):
            writer.add(molecule.id, predicted, other)


def _writing(cell: Cell, kept: Path) -> AbstractContextManager[PredictionWriter]:
    task = cell.task
    return write_predictions(
        kept, task=task.name, task_version=task.version, fingerprint=task.fingerprint,
        dtype=cell.config.predictions_dtype,
    )  # fmt: skip


def _shown(total: int, progress: bool) -> tqdm[Any]:
    """A bar of the molecules that PySCF works on, below that of predictions."""
    hidden = not (progress and total and sys.stderr.isatty())
    return tqdm(total=total, desc="PySCF", unit="mol", leave=False, position=1, disable=hidden)


class _Counted(Executor):
    """An executor whose finished work moves a bar."""

    def __init__(self, executor: Executor, shown: tqdm[Any]) -> None:
        self.executor, self.shown = executor, shown

    def submit(self, fn: Callable[..., Any], /, *words: Any, **named: Any) -> Future[Any]:
        """As the executor's own."""
        future = self.executor.submit(fn, *words, **named)
        future.add_done_callback(lambda _: self.shown.update())
        return future


def score_split(
    cell: Cell,
    progress: bool = True,
    kept: Path | None = None,
    *,
    inference_s: float | None = None,
) -> ScoreTable:
    """Predict and score the split of the configuration; Hamiltonians go to ``kept``."""
    split = cell.config.score.split
    turned = predict_turned(cell, split, progress) if cell.needs_turned else None
    predictions = predict(cell, split, progress)
    return score_predictions(
        cell, predictions, split, kept, turned, inference_s=inference_s, progress=progress
    )


def kept_hamiltonians(
    cell: Cell, kept: Predictions, progress: bool = True
) -> Iterator[tuple[Molecule, Array]]:
    """Molecules of the scored split and the Hamiltonians that a run kept of these very ones."""
    split = cell.config.score.split
    molecules = cell.task.split(split)
    kept.check_complete(molecules.ids, cell.task.fingerprint)
    yield from tqdm(
        zip(molecules, kept.matrices(molecules.ids), strict=True),
        total=len(molecules), desc=f"score {split}", unit="mol", leave=False,
        disable=not (progress and sys.stderr.isatty()),
    )  # fmt: skip


def score_kept(
    cell: Cell, kept: Predictions, progress: bool = True, *, inference_s: float | None = None
) -> ScoreTable:
    """Scores of the Hamiltonians that a run kept, which must be of these very molecules."""
    split = cell.config.score.split
    ids = cell.task.split(split).ids
    turned = kept.turned(ids) if cell.needs_turned else None
    predictions = kept_hamiltonians(cell, kept, progress)
    return score_predictions(
        cell, predictions, split, turned=turned, inference_s=inference_s, progress=progress
    )


def score_energies(
    cell: Cell, kept: Path, progress: bool = True
) -> tuple[ScoreTable, dict[str, Any]]:
    """Predict the training and the scored split, and write the table ``kept``.

    Returns:
        The scores of the scored split; fields of a `Result`: ``training_metrics``,
        ``training_rows``, ``training_molecules``.
    """
    trained, scored = cell.training_split, cell.config.score.split
    rows: list[EnergyRow] = []
    scores: dict[str, ScoreTable] = {}
    for split in dict.fromkeys((trained, scored)):
        found = list(predict(cell, split, progress))
        scores[split] = score_predictions(cell, found, split)
        groups = clusters([m.id for m, _ in found])
        rows += [
            EnergyRow(split, m.id, groups[m.id], len(m), _label(m), float(energy))
            for m, energy in found
        ]
    write_energies(kept, rows)
    own = [row for row in rows if row.split == trained]
    return scores[scored], {
        "training_metrics": as_metrics(scores_of(scores[trained], cell.metrics)),
        "training_rows": len(own),
        "training_molecules": len({row.group for row in own}),
    }


def score_kept_energies(cell: Cell, kept: Path) -> ScoreTable:
    """Scores of the energies that a run kept, which must be of these very molecules."""
    split = cell.config.score.split
    found = {row.id: row.prediction for row in read_energies(kept) if row.split == split}
    molecules = cell.task.split(split)
    if found.keys() != set(molecules.ids):
        raise DataError(
            f"{kept} has {len(found)} molecules of split '{split}', which has {len(molecules)} "
            "others; it is the table of another run: run this one anew with overwrite=true"
        )
    return score_predictions(cell, ((m, np.array(found[m.id])) for m in molecules), split)


def as_metrics(scores: dict[str, Score]) -> dict[str, Metric]:
    """Scores as a result holds them."""
    return {name: Metric(**score._asdict()) for name, score in scores.items()}


def primary_of(task: Task, metrics: Mapping[str, Metric]) -> str:
    """The task's own primary metric; of a run that was not scored by it, its first."""
    own = task.metrics[0]
    return own if own in metrics else next(iter(metrics))


def _label(molecule: Molecule) -> float:
    assert molecule.energy is not None  # the scorer compared with it
    return molecule.energy
