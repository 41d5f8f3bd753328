"""Published numbers: valid names and units, plausible among each other, shown and not ranked."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from hambench.errors import DataError
from hambench.leaderboard.reported import (
    COLUMNS,
    DEFINITIONS,
    Reported,
    parse,
    reported,
    reported_table,
)
from hambench.registry import MODELS, load_task, task_names
from hambench.scoring import METRICS

ROWS = reported()
OTHER_TASKS = {"md17_mixed", "nabla2dft_energy_100k", "scfbench", "scfbench_qmugs"}
OTHER_MODELS = {
    "dimenet++", "equiformer_v2", "escn", "gemnet_oc", "graphormer3d_small", "linear_regression",
    "nequip_l", "painn", "qhflow", "qhflow2", "scfbench_model", "schnet",
}  # fmt: skip
HEAD = ",".join(COLUMNS)
GOOD = "md17_water,qhnet42,test,qhnet,,h_mae,10.79,uEh,,,arXiv 1,Table 1,source,"


def by_metric(rows: list[Reported]) -> dict[str, float]:
    return {row.metric: float(row.printed) for row in rows}


def grouped() -> dict[tuple[str, ...], list[Reported]]:
    """Rows that are columns of one line of a table."""
    found = defaultdict(list)
    for row in ROWS:
        place = (row.task, row.variant, row.split, row.model, row.setting, row.source, row.locator)
        found[place].append(row)
    return found


def test_names_are_ours_or_known_to_be_others():
    ours = {preset.entry for preset in MODELS.presets.values()}
    assert {row.model for row in ROWS} - ours == OTHER_MODELS
    assert {row.task for row in ROWS} - set(task_names()) == OTHER_TASKS
    for task in {row.task for row in ROWS} - OTHER_TASKS:
        spec = load_task(task).spec
        for row in ROWS:
            if row.task == task:
                assert row.variant in ("", spec.variant, *spec.variants), row
                assert row.split in spec.splits or row.split.startswith("test_common"), row


def test_metrics_and_units():
    used = {row.metric for row in ROWS}
    assert used <= set(METRICS) | set(DEFINITIONS)
    assert set(DEFINITIONS) <= used
    assert not set(DEFINITIONS) & set(METRICS)
    for row in ROWS:
        assert row.value > 0 or row.metric == "scfbench_convergence_rate", row
        if row.unit == "1" and row.metric not in ("scfbench_ric", "qhflow_total_time_ratio"):
            assert row.value <= 1, row
    (water,) = (r for r in ROWS if (r.task, r.model, r.printed) == ("md17_water", "helm", "9.33"))
    assert (water.value, water.unit) == (pytest.approx(9.33e-6), "Eh")
    (energy,) = (r for r in ROWS if r.printed == "791.02")
    assert energy.value == pytest.approx(0.0290694, rel=1e-5)  # 791.02 meV over 27211.386


def test_every_row_has_a_place_in_a_source():
    for row in ROWS:
        assert re.fullmatch(r"arXiv \d{4}\.\d{5}|[\w-]+/[\w-]+", row.source), row
        assert row.locator, row


def test_contradictions_say_so():
    found = defaultdict(list)
    for row in ROWS:
        found[row.key].append(row)
    contradictory = [rows for rows in found.values() if len({row.value for row in rows}) > 1]
    assert len(contradictory) >= 8  # PhiSNet and QHNet on the four molecules of MD17
    for rows in contradictory:
        assert len({row.source for row in rows}) == len(rows), rows
        assert all(row.caveat for row in rows), rows


def test_blocks_of_qh9_make_the_whole():
    """All is near the off-diagonal error, but in the row whose columns look exchanged."""
    checked = 0
    for rows in grouped().values():
        found = by_metric(rows)
        if "h_mae_diag" not in found:
            continue
        diagonal, other = found["h_mae_diag"], found["h_mae_offdiag"]
        share = (found["h_mae"] - diagonal) / (other - diagonal)
        exchanged = any("wrong column" in row.caveat for row in rows)
        assert 0.9 < (1 - share if exchanged else share) < 0.96, rows
        checked += 1
    assert checked == 22


def test_gaps_obey_the_triangle_inequality():
    lines = [by_metric(rows) for rows in grouped().values() if "gap" in {r.metric for r in rows}]
    assert len(lines) == 7
    for line in lines:
        assert abs(line["homo"] - line["lumo"]) <= line["gap"] <= line["homo"] + line["lumo"]


def test_scf_ratios_belong_together():
    """Cycles from the prediction are the same whatever they are compared with."""
    cycles = defaultdict(dict)
    for rows in grouped().values():
        found = by_metric(rows)
        if "qh9_optimal_ratio" in found:
            assert found["qh9_optimal_ratio"] < found["qh9_achieved_ratio"]
            ratio = found["qh9_achieved_ratio"] / found["qh9_optimal_ratio"]
            cycles[rows[0].task, rows[0].variant][rows[0].setting] = ratio
    assert len(cycles) == 6
    for one in cycles.values():
        first, second = one.values()
        assert first == pytest.approx(second, rel=0.05)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GOOD.replace("10.79", "ten"), r"line 3: could not convert string to float: 'ten'"),
        (GOOD.replace("10.79", "-1"), "the value is '-1', expected a number from 0 on"),
        (GOOD.replace("10.79", "nan"), "expected a number from 0 on"),
        (GOOD.replace("uEh", "mEh"), "unknown unit 'mEh', expected one of uEh"),
        (GOOD.replace("uEh", "%"), "'h_mae' is in 'Eh', which '%' is not"),
        (GOOD.replace("h_mae", "h_mea"), "unknown metric 'h_mea'"),
        (GOOD.replace("arXiv 1", ""), "it has no source"),
        (GOOD.replace(",source,", ",hearsay,"), "read is 'hearsay', expected one of source, sum"),
        (GOOD + ",", "expected 14 columns, got 15"),
    ],
)
def test_mistakes_are_named(line: str, message: str):
    with pytest.raises(DataError, match=message):
        parse("md17.csv", f"{HEAD}\n{GOOD}\n{line}\n")


def test_a_file_without_its_columns_is_refused():
    for text in ("", "a,b\n", GOOD):
        with pytest.raises(DataError, match=r"x\.csv does not begin with task,variant,split,model"):
            parse("x.csv", text)


def test_tables_show_source_and_caveat():
    assert reported_table("water_mini") is None
    made = reported_table("md17_water")
    assert made is not None
    assert "never ranked" in made.subtitle
    assert made.columns[0].label == "metric"  # no rank
    lines = [[cell.text for cell in row] for row in made.rows]
    assert ["h_mae", "qhnet42 test", "helm", "9.33", "uEh"] in [line[:5] for line in lines]
    phisnet = [line for line in lines if line[2] == "phisnet"]
    assert {line[3] for line in phisnet} == {"17.59", "15.67"}
    for line in phisnet:
        assert line[5].startswith("arXiv 25")
        assert "other runs or implementations; read in a summary of the source" in line[6]


def test_nothing_names_where_it_was_gathered():
    folder = Path(__file__).parents[2] / "leaderboard" / "reported"
    for path in folder.iterdir():
        assert not re.search(r"/work|reported_results|secondary summary", path.read_text("utf-8"))
