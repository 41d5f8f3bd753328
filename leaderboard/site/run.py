"""The page of a run: its metrics, how it was trained, on what, where, and how to do it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from hambench.leaderboard.ranking import Entry, Ranking
from hambench.leaderboard.runs import Run
from hambench.leaderboard.site.log import read_course
from hambench.leaderboard.site.settings import MOST, Facts, facts
from hambench.leaderboard.submitted import Submission
from hambench.leaderboard.table import Cell, Column, Link, Table, duration
from hambench.results import Cost, DataFile, Metric, Pretraining, Result
from hambench.scoring import METRICS
from hambench.scoring.display import format_numbers, format_score, reporting_unit
from hambench.scoring.metrics import Score


def run_content(ranking: Ranking, entry: Entry, run: Run) -> dict[str, Any]:
    """What the template shows of a run."""
    result = run.result
    course = read_course(run.folder)
    return {
        "title": f"{entry.label} on {result.task}, seed {result.seed}",
        "result": result,
        "primary": _primary(result),
        "seeds": [Link("run", other.name) for other in entry.runs if other is not run],
        "metrics": _metrics("Metrics", f"on the {result.split} split", result.metrics),
        "training_metrics": _metrics(
            "On the training set", f"on the {result.training_split} split", result.training_metrics
        ),
        "course": course,
        "curves": [
            {
                "title": chart.title,
                "unit": chart.unit,
                "curves": [curve._asdict() for curve in chart.curves],
            }
            for chart in course.charts
        ],
        "hyperparameters": facts(result.hyperparameters),
        "recipe": facts(result.recipe),
        "data": _data(result, ranking),
        "files": [(file.file, _file(file)) for file in result.data[:MOST]],
        "scoring": facts(result.scoring),
        "cost": _cost(result.cost),
        "pretraining": _pretraining(result.pretraining) if result.pretraining else (),
        "provenance": _provenance(run, entry),
        "submission": _submission(run.submission) if run.submission else (),
    }


def _primary(result: Result) -> str:
    return f"{result.primary}: {_score(result.metrics[result.primary], result.primary)}"


def _score(metric: Metric, name: str) -> str:
    score = Score(metric.value, metric.unit, metric.ci95, metric.n, metric.std)
    return format_score(score, name)


def _metrics(title: str, subtitle: str, metrics: Mapping[str, Metric]) -> Table | None:
    """Metrics of one split; None where there are none."""
    if not metrics:
        return None
    columns = (
        Column("metric", numeric=False),
        Column("value"),
        Column("95 % interval", numeric=False, hint="over test molecules, by bootstrap"),
        Column("unit", numeric=False),
        Column("sd", hint="standard deviation over molecules, where it is told"),
        Column("n", hint="molecules that went into it"),
        Column("what it is", numeric=False),
    )
    shown = list(metrics.items())[:MOST]
    return Table(title, subtitle, columns, tuple(_metric_row(*item) for item in shown))


def _metric_row(name: str, metric: Metric) -> tuple[Cell, ...]:
    unit, factor = reporting_unit(metric.unit, name)
    ends = metric.ci95 and (metric.ci95[0] * factor, metric.ci95[1] * factor)
    number, interval = format_numbers(metric.value * factor, ends)
    spread = "" if metric.std is None else f"{metric.std * factor:.2g}"
    about = METRICS[name].description if name in METRICS else "not known to this version"
    return (
        Cell(name),
        Cell(number, metric.value * factor),
        Cell(interval.strip("[]").replace(", ", " to ")),
        Cell(unit),
        Cell(spread),
        Cell(f"{metric.n:,}", metric.n),
        Cell(about),
    )


def _submission(submission: Submission) -> Facts:
    """Who handed it in; the address is text, as nobody has looked where it leads."""
    authors = ", ".join(submission.authors)
    return facts({"authors": authors, "url": submission.url, "notes": submission.notes})


def _data(result: Result, ranking: Ranking) -> Facts:
    """What it was trained and scored on."""
    domain = result.domain
    found = {
        "task": f"{result.task}, version {result.task_version}",
        "labels": result.source,
        "splits": result.variant,
        "trained on": result.training_split,
        "scored on": result.split,
        "rows trained on": "" if result.training_rows is None else f"{result.training_rows:,}",
        "molecules trained on": ""
        if result.training_molecules is None
        else f"{result.training_molecules:,}",
        "elements": " ".join(domain.elements) if domain else "",
        "charges": ", ".join(map(str, domain.charges)) if domain else "",
        "largest molecule": f"{domain.atoms} atoms" if domain else "",
        "fingerprint": ranking.fingerprint,
    }
    return tuple((name, text) for name, text in found.items() if text)


def _file(file: DataFile) -> Facts:
    """A data file, and what its verification found."""
    residuals = {k: v if v is None else f"{v:.3g}" for k, v in file.residuals.items()}
    told = file.model_dump(exclude={"file", "bytes", "residuals"})
    return facts({"size": _bytes(file.bytes), **told, "worst": residuals})


def _cost(cost: Cost) -> Facts:
    found = {
        "device": cost.device,
        "training": duration(cost.wall_s).text,
        "steps": f"{cost.steps:,}",
        "epochs": f"{cost.epochs:,.4g}",
        "stopped by": cost.stopped_by,
        "steps per second": _number(cost.steps_per_s),
        "molecules per second": _number(cost.molecules_per_s),
        "peak memory": _bytes(cost.peak_memory),
    }
    if cost.inference is not None:
        predict = cost.inference
        threads = "" if predict.threads is None else f", threads: {predict.threads}"
        found |= {
            "prediction": f"{1e3 * predict.molecule_s:.3g} ms per molecule{threads}",
            "the model alone": f"{predict.model_molecules_per_s:,.4g} molecules per second",
            "initial guess": "" if predict.guess_s is None else f"{1e3 * predict.guess_s:.3g} ms",
            "operations": f"{predict.flops / 1e6:,.4g} MFLOP per molecule",
            "peak memory of prediction": _bytes(predict.peak_memory),
        }
    return tuple((name, text) for name, text in found.items() if text)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"


def _bytes(value: int | None) -> str:
    return "" if value is None else f"{value / 2**20:,.4g} MiB"


def _pretraining(before: Pretraining) -> Facts:
    score = Score(before.value, "Eh", None, before.audit.rows)
    audit = before.audit
    return (
        ("model", f"{before.preset}, seed {before.seed}"),
        ("task", f"{before.task}, version {before.task_version}, {before.source} labels"),
        ("trained on", before.training_split),
        ("training", f"{before.steps:,} steps in {duration(before.wall_s).text}"),
        ("reached", f"{before.metric}: {format_score(score, before.metric)}"),
        ("parts that were new", ", ".join(before.fresh) or "none"),
        ("parts left out", ", ".join(before.left_out) or "none"),
        ("rows it saw", f"{audit.rows:,}"),
        (
            "of the scored rows it saw",
            f"{audit.same_molecules:,} of {audit.scored:,} by their molecule, "
            f"{audit.same_geometries:,} by their geometry (no {audit.unseen} may be)",
        ),
        ("fingerprint", before.fingerprint),
        ("run", before.run_id),
    )


def _provenance(run: Run, entry: Entry) -> Facts:
    """Code, libraries, machine, and times."""
    where = run.result.provenance
    folder = PurePosixPath(run.name).parts
    commit = "none" if where.commit is None else where.commit
    found = {
        "hambench": where.package,
        "commit": f"{commit}, with changes" if where.dirty else commit,
        "python": where.python,
        "cuda": where.cuda or "",
        "gpu": where.gpu or "",
        "cpu": f"{where.cpu}, {where.cores} cores",
        "system": where.os,
        "started": where.started.isoformat(),
        "finished": where.finished.isoformat(),
        "restarts": str(where.restarts),
        "settings": entry.settings,
        "run": run.result.run_id,
        "folder": "/".join(folder[1:]),
    }
    shown = tuple((name, text) for name, text in found.items() if text)
    plugins = {k: v for k, v in where.plugins.items() if k != "hambench"}
    return shown + facts({"library": where.libraries} | ({"plug-in": plugins} if plugins else {}))
