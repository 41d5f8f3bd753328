"""Learning curves as tables, CSV and JSON; the same analyses give the same bytes."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hambench.files import atomic_write
from hambench.leaderboard.arms import Analysis, Comparison, Compute, Measured, analyse
from hambench.leaderboard.convergence import courses
from hambench.leaderboard.curves import METRICS, Curves, ErrorMetric
from hambench.leaderboard.figures.curves import draw_convergence, draw_curves
from hambench.leaderboard.gains import Bounded
from hambench.leaderboard.table import Cell, Column, Table, duration
from hambench.leaderboard.text import markdown
from hambench.scoring.display import format_numbers

NOTE = (
    "Errors are means over seeds. In brackets 95 % intervals of a bootstrap that draws test "
    "molecules, with all their conformers and the same ones for all lines, and seeds; sd is the "
    "sample standard deviation over seeds. Two seeds say little about others: where they scatter "
    "by 10 % and more, intervals are too narrow. gain is the error of direct training over that "
    "of the pretrained model. labels is how many times more labelled molecules direct training "
    "needs for the error of the pretrained model, read off the direct curve between its points "
    "(straight in log-log, first crossing) and never beyond them: > and <= are bounds. One "
    "interval in twenty misses. Time is that of the energy stage, and of the whole pretraining "
    "where there was one."
)

_SECONDS = 3600.0  # up to which times are in seconds: two arms are compared by them

Record = dict[str, Any]
Analyses = dict[ErrorMetric, list[Analysis]]


def tables(analyses: Iterable[Analysis]) -> list[Table]:
    """Two tables for each analysis: its curves, and its comparisons where it has some."""
    made = []
    for analysis in analyses:
        made.append(_curves_table(analysis))
        if analysis.comparisons:
            made.append(_gains_table(analysis))
    return made


def curve_records(analyses: Analyses) -> list[Record]:
    """One flat record per point and metric, as in ``curves.csv``."""
    return [
        _study(a) | _arm(m) | _numbers(m) | {"remarks": "; ".join(m.remarks)}
        for a in _flat(analyses)
        for m in a.points
    ]


def gain_records(analyses: Analyses) -> list[Record]:
    """One flat record per comparison and metric, as in ``gains.csv``."""
    return [_study(a) | _comparison(c) for a in _flat(analyses) for c in a.comparisons]


def as_csv(records: Sequence[Record]) -> str:
    """Records as CSV with a head, floats with 10 digits; empty text for no records."""
    text = io.StringIO()
    if records:
        writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _plain(value) for key, value in r.items()} for r in records)
    return text.getvalue()


def as_json(analyses: Analyses, left_out: Sequence[tuple[str, str]]) -> str:
    """Everything as one JSON document."""
    content = {
        "note": NOTE,
        "curves": curve_records(analyses),
        "gains": gain_records(analyses),
        "left_out": [{"run": name, "reason": why} for name, why in left_out],
    }
    return json.dumps(_rounded(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def analyse_all(curves: Curves) -> Analyses:
    """Every study in both metrics."""
    return {metric: [analyse(study, metric) for study in curves.studies] for metric in METRICS}


def write_curves(
    curves: Curves, analyses: Analyses, metric: ErrorMetric, folder: str | os.PathLike[str]
) -> list[Path]:
    """Write tables and pictures of curves in ``folder``; returns their paths.

    CSV and JSON hold both metrics, Markdown and pictures ``metric``.

    Raises:
        ConfigError: matplotlib or seaborn is not installed; nothing is written then.
        RunError: the folder cannot be written, or the disk is full.
    """
    out = Path(folder)
    found, unread = courses(curves.studies)
    left_out = [*curves.left_out, *unread]
    written = draw_curves(analyses[metric], out)
    if found:
        written += draw_convergence(curves.studies, found, out)
    contents = {
        "curves.csv": as_csv(curve_records(analyses)),
        "gains.csv": as_csv(gain_records(analyses)),
        "curves.json": as_json(analyses, left_out),
        "curves.md": markdown("Learning curves", NOTE, tables(analyses[metric]), left_out),
    }
    for name, content in contents.items():
        with atomic_write(out / name) as file:
            file.write(content)
        written.append(out / name)
    return written


def _flat(analyses: Analyses) -> list[Analysis]:
    return [analysis for some in analyses.values() for analysis in some]


def _study(analysis: Analysis) -> Record:
    study = analysis.study
    return {
        "tasks": " ".join(study.tasks),
        "version": study.version,
        "source": study.source,
        "split": study.split,
        "test_molecules": len(study.rows),
        "test_rows": len(study.test),
        "metric": analysis.metric,
        "unit": METRICS[analysis.metric],
    }


def _arm(m: Measured) -> Record:
    run = m.point.runs[0]
    return {
        "preset": m.line.preset,
        "strategy": m.line.strategy,
        "line": m.line.label,
        "settings": " ".join(dict.fromkeys(run.settings for run in m.point.runs)),
        "training_task": run.result.task,
        "training_split": run.result.training_split,
        "training_molecules": m.point.molecules,
        "training_rows": run.result.training_rows,
        "seeds": " ".join(map(str, m.point.seeds)),
    }


def _numbers(m: Measured) -> Record:
    low, high = m.ci95 or (None, None)
    return {
        "error": m.error,
        "error_low": low,
        "error_high": high,
        "sd_seeds": m.spread,
        "train_error": m.train_error,
        "energy_s": m.compute.energy_s,
        "energy_steps": m.compute.energy_steps,
        "pretraining_s": m.compute.pretraining_s,
        "pretraining_steps": m.compute.pretraining_steps,
    }


def _comparison(c: Comparison) -> Record:
    low, high = c.gain.ci95 or (None, None)
    ends = c.labels.ci95 or (None, None)
    return {
        **_arm(c.other),
        "direct_line": c.direct.line.label,
        "direct_seeds": " ".join(map(str, c.direct.point.seeds)),
        "direct_error": c.direct.error,
        "error": c.other.error,
        "gain": c.gain.value,
        "gain_low": low,
        "gain_high": high,
        "verdict": c.gain.verdict,
        **_bounded("labels", c.labels.value),
        **_bounded("labels_low", ends[0]),
        **_bounded("labels_high", ends[1]),
        "direct_s": c.direct.compute.total_s,
        "total_s": c.other.compute.total_s,
        "direct_steps": c.direct.compute.energy_steps,
        "energy_steps": c.other.compute.energy_steps,
        "pretraining_steps": c.other.compute.pretraining_steps,
        "fair_compute": c.fair,
        "remarks": "; ".join(c.remarks),
    }


def _bounded(name: str, bounded: Bounded | None) -> Record:
    value, sign = bounded or (None, None)
    return {name: value, f"{name}_bound": sign}


def _plain(value: object) -> object:
    return f"{value:.10g}" if isinstance(value, float) else value


def _rounded(value: Any) -> Any:
    """Floats to the 10 digits of the CSV files."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.10g}") if isinstance(value, float) else value


def _curves_table(analysis: Analysis) -> Table:
    unit = METRICS[analysis.metric]
    columns = (
        Column("line", numeric=False),
        Column("molecules", hint="different molecules it was trained on"),
        Column("rows", hint="labelled conformers it was trained on"),
        Column("seeds"),
        Column("test error"),
        Column("sd", hint="sample standard deviation over seeds"),
        Column("train error"),
        Column("energy stage"),
        Column("pretraining"),
        Column("remarks", numeric=False),
    )
    rows = tuple(
        (
            Cell(m.line.label),
            Cell(str(m.point.molecules), m.point.molecules),
            Cell(str(m.point.first.training_rows), m.point.first.training_rows),
            Cell(str(len(m.point.seeds)), len(m.point.seeds)),
            _value(m.error, m.ci95),
            Cell("" if m.spread is None else f"{m.spread:.2g}", m.spread),
            Cell("-" if m.train_error is None else f"{m.train_error:.3g}", m.train_error),
            _stage(m.compute.energy_s, m.compute.energy_steps),
            _stage(m.compute.pretraining_s, m.compute.pretraining_steps),
            Cell("; ".join(m.remarks)),
        )
        for m in analysis.points
    )
    subtitle = f"mean absolute error in {unit} on {_tested_on(analysis)}"
    if not analysis.comparisons:
        subtitle += (
            "; no gains: they take a direct run beside a frozen or finetuned one of the same "
            "preset and training set"
        )
    return Table(f"{analysis.study.title}: learning curves", subtitle, columns, rows)


def _gains_table(analysis: Analysis) -> Table:
    columns = (
        Column("compared", numeric=False),
        Column("molecules", hint="different molecules both were trained on"),
        Column("gain", hint="error of direct over that of the other; above 1 the other is better"),
        Column("the other is", numeric=False),
        Column("labels", hint="times more labelled molecules that direct needs"),
        Column("direct took"),
        Column("the other took", hint="with all of its pretraining"),
        Column("remarks", numeric=False),
    )
    rows = tuple(
        (
            Cell(f"{c.direct.line.label} / {c.other.line.label}"),
            Cell(str(c.other.point.molecules), c.other.point.molecules),
            _value(c.gain.value, c.gain.ci95),
            Cell(c.gain.verdict or "-"),
            _labels(c),
            _total(c.direct.compute),
            _total(c.other.compute),
            Cell("; ".join(c.remarks)),
        )
        for c in analysis.comparisons
    )
    subtitle = f"ratios of errors in {METRICS[analysis.metric]} on {_tested_on(analysis)}"
    return Table(f"{analysis.study.title}: what pretraining gains", subtitle, columns, rows)


def _tested_on(analysis: Analysis) -> str:
    study = analysis.study
    return (
        f"{study.split}, {len(study.rows)} molecules in {len(study.test)} rows, {study.source} data"
    )


def _value(value: float, ci95: tuple[float, float] | None) -> Cell:
    number, brackets = format_numbers(value, ci95)
    return Cell(f"{number} {brackets}".strip(), value)


def _labels(c: Comparison) -> Cell:
    ends = "" if c.labels.ci95 is None else f" [{c.labels.ci95[0]}, {c.labels.ci95[1]}]"
    return Cell(f"{c.labels.value}{ends}", c.labels.value.value)


def _stage(seconds: float, steps: float) -> Cell:
    if not seconds and not steps:
        return Cell("")
    time = f"{seconds:,.0f} s" if seconds < _SECONDS else duration(seconds).text
    return Cell(f"{time}, {steps:,.0f} steps", seconds)


def _total(compute: Compute) -> Cell:
    return _stage(compute.total_s, compute.energy_steps + compute.pretraining_steps)
