"""How far cells are, of what their runs, the manifest and the scheduler say."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hambench import rundir
from hambench.errors import DataError
from hambench.launch import standing as module
from hambench.launch.manifest import Entry, Head, Job, Manifest
from hambench.launch.scheduler import JobState, Scheduler
from hambench.launch.standing import Standing, chosen, standing, summary
from hambench.results import Status, now, write_status

LONG_AGO = now() - timedelta(hours=2)
JUST_NOW = now() + timedelta(hours=1)  # whenever the test gets its turn
WORDS = "says hello\ninterrupted: stopped by SIGUSR2\nerror: it broke\nsrun: bye\n"


class Told(Scheduler):
    """A scheduler that knows these jobs; `asked` notes for which ones it was asked."""

    def __init__(self, jobs: dict[str, JobState]) -> None:
        super().__init__()
        self.jobs, self.asked = jobs, []

    def states(self, jobs: Any) -> dict[str, JobState]:
        self.asked.append(list(jobs))
        return {job: self.jobs[job] for job in self.asked[-1] if job in self.jobs}


def job(folder: Path, number: int = 12, **changes: Any) -> Job:
    values = {"id": str(number), "submitted": LONG_AGO, "folder": str(folder), "script": "0"}
    return Job.model_validate(values | changes)


def manifest_of(root: Path, *entries: Entry) -> Manifest:
    head = Head(sweep="s", cluster="slurm", created=now(), cwd=str(root))
    return Manifest(folder=root / "sweeps" / "s", head=head, entries=entries)


def says(folder: Path, state: str, **changes: Any) -> None:
    """What the run says of itself; of the newest job unless said otherwise."""
    values = {"state": state, "started": LONG_AGO, "updated": LONG_AGO, "job": "12"}
    write_status(folder, Status.model_validate(values | changes))


def one(root: Path, known: str | None, **changes: Any) -> Standing:
    """How far the cell ``cell`` is whose job 12 the scheduler knows in this state."""
    jobs = {} if known is None else {"12": JobState(known, "n1", "1:00", "its reason")}
    entry = Entry(cell="cell", jobs=(job(root, **changes),))
    (found,) = standing(manifest_of(root, entry), Told(jobs))
    return found


EARLIER = {"job": "11", "updated": LONG_AGO - timedelta(minutes=1)}
TABLE: list[tuple[str | None, str | None, dict[str, Any], dict[str, Any], str, str]] = [
    # what the scheduler knows, what the run says, of which job, what the job is, state, reason
    ("PENDING", "queued", {}, {}, "queued", "its reason"),
    ("PENDING", "failed", EARLIER, {}, "queued", "its reason"),
    ("REQUEUE_HOLD", "running", {}, {}, "queued", "its reason"),
    ("RUNNING", "running", {}, {}, "running", ""),
    ("RUNNING", "failed", EARLIER, {}, "running", ""),
    ("SUSPENDED", "running", {}, {}, "running", ""),
    ("COMPLETING", "failed", {}, {}, "running", ""),
    ("FAILED", "failed", {"reason": "no data"}, {}, "failed", "no data"),
    ("FAILED", "failed", {"reason": "new", "job": "", "updated": now()}, {}, "failed", "new"),
    ("FAILED", "failed", {"reason": "old", **EARLIER}, {}, "failed", "it broke"),
    ("FAILED", "running", {}, {}, "failed", "it broke"),
    ("FAILED", None, {}, {}, "failed", "it broke"),
    ("FAILED", "interrupted", {"reason": "SIGTERM"}, {}, "interrupted", "SIGTERM"),
    ("COMPLETED", "running", {}, {}, "failed", "the job ended without a result"),
    ("COMPLETED", None, {}, {}, "failed", "the job ended without a result"),
    ("OUT_OF_MEMORY", "running", {}, {}, "failed", "too little memory; ask for more (cluster.mem"),
    ("OUT_OF_MEMORY", "failed", {"reason": "CUDA"}, {}, "failed", "CUDA"),
    ("NODE_FAIL", "running", {}, {}, "failed", "its node failed"),
    ("BOOT_FAIL", "queued", {}, {}, "failed", "its node did not start"),
    ("DEADLINE", "running", {}, {}, "failed", "the deadline"),
    ("PREEMPTED", "running", {}, {}, "failed", "preempted, and the cluster"),
    ("PREEMPTED", "interrupted", {"reason": "SIGTERM"}, {}, "interrupted", "SIGTERM"),
    ("TIMEOUT", "running", {}, {}, "timeout", "`hambench retry` goes on"),
    ("TIMEOUT", "interrupted", {}, {}, "timeout", "`hambench retry` goes on"),
    ("TIMEOUT", "running", {}, {"cancelled": now()}, "timeout", "`hambench retry` goes on"),
    ("CANCELLED", "interrupted", {}, {}, "cancelled", "by scancel"),
    ("CANCELLED", "running", {}, {"cancelled": now()}, "cancelled", "by hambench cancel"),
    ("CANCELLED", "failed", {"reason": "first"}, {"cancelled": now()}, "failed", "first"),
    ("RUNNING", "running", {}, {"cancelled": now()}, "running", ""),
    (None, "queued", {}, {"cancelled": now()}, "cancelled", "by hambench cancel"),
    (None, "queued", {}, {"submitted": JUST_NOW}, "queued", "does not know it yet"),
    (None, "failed", EARLIER, {"submitted": JUST_NOW}, "queued", "does not know it yet"),
    (None, "running", {}, {}, "lost", "it broke"),
    (None, None, {}, {}, "lost", "it broke"),
    (None, "failed", {"reason": "no data"}, {}, "failed", "no data"),
    (None, "interrupted", {"reason": "SIGTERM"}, {}, "interrupted", "SIGTERM"),
    (None, "failed", EARLIER, {}, "lost", "it broke"),
]  # fmt: skip


@pytest.mark.parametrize(("known", "said", "of", "changes", "state", "reason"), TABLE)
def test_what_is_said_of_a_cell(
    tmp_path: Path, known: str | None, said: str | None, of: dict[str, Any],
    changes: dict[str, Any], state: str, reason: str,
):  # fmt: skip
    (tmp_path / "12_0_log.out").write_text(WORDS)
    if said is not None:
        says(tmp_path / "cell", said, **of)
    found = one(tmp_path, known, **changes)
    assert found.state == state
    assert reason in found.reason
    assert bool(found.reason) == bool(reason)
    (tmp_path / "cell").mkdir(exist_ok=True)
    (tmp_path / "cell" / "result.json").write_text("{}")
    assert one(tmp_path, known, **changes).state == "done"


def test_a_job_that_nobody_knows_is_lost_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert one(tmp_path, None, submitted=now()).state == "queued"
    monkeypatch.setattr(module, "_GRACE", -1.0)
    found = one(tmp_path, None, submitted=now())
    assert (found.state, found.reason) == ("lost", "the scheduler does not know its job any more")


def test_an_unknown_end_is_named(tmp_path: Path):
    assert one(tmp_path, "REVOKED").reason == "the job ended as REVOKED"


def test_the_scheduler_is_asked_once_about_what_is_open(tmp_path: Path):
    entries = [
        Entry(cell=f"cell{k}", jobs=(job(tmp_path, 5), job(tmp_path, 20 + k))) for k in range(4)
    ]
    (tmp_path / "cell2").mkdir()
    (tmp_path / "cell2" / "result.json").write_text("{}")
    told = Told({"20": JobState("RUNNING", "n1", "2:00")})
    cells = standing(manifest_of(tmp_path, *entries), told)
    assert told.asked == [["20", "21", "23"]]
    assert [cell.state for cell in cells] == ["running", "lost", "done", "lost"]
    assert (cells[0].node, cells[0].elapsed, cells[0].job) == ("n1", "2:00", "20")
    assert summary(cells) == "1 done, 1 running, 2 lost"
    nothing = Told({})
    standing(manifest_of(tmp_path, Entry(cell="cell2", jobs=entries[2].jobs)), nothing)
    assert not nothing.asked


@pytest.mark.parametrize(
    ("before", "behind", "marked", "state", "reason"),
    [
        ("RUNNING", "PENDING", False, "waiting", "for first"),
        ("PENDING", "PENDING", False, "waiting", "for first"),
        ("FAILED", "CANCELLED", False, "cancelled", "its pretraining first: failed"),
        ("FAILED", "PENDING", False, "cancelled", "its pretraining first: failed"),
        ("CANCELLED", "CANCELLED", False, "cancelled", "its pretraining first: cancelled"),
        ("TIMEOUT", None, False, "cancelled", "its pretraining first: timeout"),
        (None, None, False, "cancelled", "its pretraining first: lost"),
        ("RUNNING", "CANCELLED", True, "cancelled", "by hambench cancel"),
        ("RUNNING", None, False, "lost", "does not know its job"),
        ("done", "PENDING", False, "queued", "its reason"),
        ("done", "CANCELLED", False, "cancelled", "by scancel"),
        ("FAILED", "FAILED", False, "failed", "the job ended as FAILED"),
    ],
)
def test_cells_behind_a_pretraining(
    tmp_path: Path, before: str | None, behind: str | None, marked: bool, state: str, reason: str
):
    if before == "done":
        (tmp_path / "first").mkdir()
        (tmp_path / "first" / "result.json").write_text("{}")
    found = {"7": before, "8": behind}
    known = {k: JobState(v, reason="its reason") for k, v in found.items() if v is not None}
    second = job(tmp_path, 8, cancelled=now() if marked else None)
    cells = standing(
        manifest_of(
            tmp_path, Entry(cell="first", jobs=(job(tmp_path, 7),)),
            Entry(cell="second", needs="first", jobs=(second,)),
        ),
        Told(known),
    )  # fmt: skip
    assert cells[1].state == state
    assert reason in cells[1].reason


def test_cells_of_this_machine(tmp_path: Path):
    folder = tmp_path / "cell"

    def found() -> tuple[str, str]:
        told = Told({})
        (cell,) = standing(manifest_of(tmp_path, Entry(cell="cell")), told)
        assert not told.asked
        assert cell.log == folder / "console.log"
        return cell.state, cell.reason

    assert found() == ("queued", "not started yet")
    says(folder, "running", job="")
    assert found() == ("interrupted", "its process was killed")
    with rundir.lock(folder):
        assert found() == ("running", "")
    says(folder, "failed", job="", reason="no data")
    assert found() == ("failed", "no data")


def test_progress_and_metric(tmp_path: Path):
    def shown(**changes: Any) -> tuple[str, str, int]:
        entry = Entry(cell="cell", jobs=(job(tmp_path),), **changes)
        told = Told({"12": JobState("RUNNING")})
        (cell,) = standing(manifest_of(tmp_path, entry), told)
        return cell.progress, cell.metric, cell.restarts

    assert shown(max_steps=9) == ("", "", 0)
    says(tmp_path / "cell", "queued")
    assert shown(max_steps=9) == ("", "", 0)
    says(
        tmp_path / "cell", "running", fingerprint="f", step=4, elapsed_s=90, restarts=2,
        metric="h_mae", value=1e-3,
    )  # fmt: skip
    assert shown(max_steps=9) == ("4/9 steps", "val h_mae 1000 uEh", 2)
    assert shown(max_minutes=5)[0] == "1.5/5 min"
    assert shown()[0] == "4 steps"


def test_cells_are_chosen_by_number_or_name(tmp_path: Path):
    entries = [Entry(cell=f"t/m{k}/seed0") for k in range(3)]
    cells = standing(manifest_of(tmp_path, *entries), Told({}))
    assert chosen(cells, []) == cells
    assert chosen(cells, ["2", "m1", "m0"]) == [cells[1], cells[0]]
    assert chosen(cells, ["seed0"]) == cells
    for word in ("4", "0", "x"):
        with pytest.raises(
            DataError, match=f"no cell '{word}' in this sweep: give a number from 1"
        ):
            chosen(cells, [word])


def test_a_damaged_status_is_none(tmp_path: Path):
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / "status.json").write_text("{")
    found = one(tmp_path, "FAILED")
    assert (found.state, found.status) == ("failed", None)
