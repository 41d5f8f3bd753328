"""The manifest: what is read is what was written, damage is named, one process submits."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from hambench.errors import ConfigError, DataError, HambenchError, RunError
from hambench.launch.manifest import (
    MANIFEST,
    Entry,
    Head,
    Job,
    Manifest,
    find_sweep,
    manifest_of,
    manifests,
    read_manifest,
    submitting,
)
from hambench.launch.plan import Plan
from hambench.results import now

TEXTS = some.text(some.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = some.one_of(TEXTS, some.integers(-9, 9), some.booleans(), some.none(), some.lists(TEXTS))
MOMENTS = some.just(now())
JOBS = some.builds(
    Job, id=TEXTS, submitted=MOMENTS, folder=TEXTS, script=TEXTS,
    cancelled=some.none() | MOMENTS,
)  # fmt: skip
ENTRIES = some.builds(
    Entry, cell=TEXTS, needs=some.none() | TEXTS, swept=some.dictionaries(TEXTS, TEXTS),
    asks=some.dictionaries(TEXTS, VALUES), jobs=some.lists(JOBS, max_size=2).map(tuple),
    max_minutes=some.none() | some.floats(0.1, 1e6),
)  # fmt: skip
HEADS = some.builds(
    Head, sweep=TEXTS, cluster=TEXTS, profile=some.none() | some.dictionaries(TEXTS, VALUES),
    created=MOMENTS, cwd=TEXTS, board=some.lists(JOBS, max_size=1).map(tuple),
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HEADS, some.lists(ENTRIES, max_size=3))
def test_what_is_read_is_what_was_written(tmp_path: Path, head: Head, entries: list[Entry]):
    manifest = Manifest(folder=tmp_path, head=head, entries=tuple(entries))
    manifest.write()
    assert read_manifest(tmp_path) == manifest
    assert len((tmp_path / MANIFEST).read_bytes().splitlines()) == 1 + len(entries)


def written(root: Path, count: int = 2) -> Manifest:
    """A manifest of some cells, each with a job, on disk."""
    folder = root / "sweeps" / "s"
    entries = tuple(Entry(cell=f"cell{k}", jobs=(job(str(k)),)) for k in range(count))
    head = Head(sweep="s", cluster="slurm", created=now(), cwd=str(root), board=(job("board"),))
    manifest = Manifest(folder=folder, head=head, entries=entries)
    manifest.write()
    return manifest


def job(name: str) -> Job:
    return Job(id=name, submitted=now(), folder=f"/jobs/{name}", script="0")


@pytest.mark.parametrize(
    ("line", "text", "said"),
    [
        (1, "{", "line 1 of {} is damaged: "),
        (1, '{"schema_version": 2}', "line 1 of {} is damaged: "),
        (2, '{"cell": 3}', "line 2 of {} is damaged: "),
        (3, "", "line 3 of {} is damaged: "),
        (3, '{"cell": "x", "jobs": [{"id": "3"}]}', "line 3 of {} is damaged: Field required"),
        (3, '{"cell": "x", "more": 1}', "line 3 of {} is damaged: Extra inputs"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: int, text: str, said: str):
    path = written(tmp_path).folder / MANIFEST
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError) as caught:
        read_manifest(path.parent)
    assert said.format(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(manifests(tmp_path)) == []


def test_what_cannot_be_read_is_refused(tmp_path: Path):
    path = written(tmp_path).folder / MANIFEST
    path.write_text("")
    with pytest.raises(DataError, match="is empty; start the sweep anew"):
        read_manifest(path.parent)
    path.write_bytes(b"\xff")
    with pytest.raises(DataError, match="cannot read "):
        read_manifest(path.parent)
    path.unlink()
    for folder in (path.parent, tmp_path / "no", __file__):
        with pytest.raises(DataError, match=r"is no folder of a sweep: it has no manifest\.jsonl"):
            read_manifest(Path(folder))


def test_jobs_are_added_and_marked(tmp_path: Path):
    manifest = written(tmp_path).with_jobs({"cell1": job("7")})
    assert [[j.id for j in e.jobs] for e in manifest.entries] == [["0"], ["1", "7"]]
    marked = manifest.with_cancelled(["7", "board"])
    cancelled = {j.id for e in marked.entries for j in e.jobs if j.cancelled is not None}
    assert cancelled == {"7"}
    assert marked.head.board[0].cancelled is not None
    assert marked.folder_of("cell1") == tmp_path / "cell1"
    assert marked.jobs_folder == tmp_path / "sweeps" / "s" / "jobs"
    assert job("7").log == Path("/jobs/7/7_0_log.out")


def test_a_full_disk_leaves_the_former_one(tmp_path: Path):
    manifest = written(tmp_path)
    before = (manifest.folder / MANIFEST).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(RunError, match=r"cannot write .*manifest"):
            manifest.with_jobs({"cell1": job("7")}).write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {p.name for p in manifest.folder.iterdir()} == {MANIFEST}
    assert (manifest.folder / MANIFEST).read_bytes() == before


def test_one_process_submits_at_a_time(tmp_path: Path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from hambench.launch.manifest import submitting\n"
        "with submitting(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with (
            pytest.raises(
                RunError, match=r"another process submits or cancels jobs of .*try again"
            ),
            submitting(tmp_path),
        ):
            pass
    finally:
        other.kill()
        other.communicate()
    with submitting(tmp_path):  # what a dead one held is free
        assert (tmp_path / "sweeps" / ".lock").is_file()
    assert not (tmp_path / "sweeps" / ".lock").exists()


def test_a_sweep_is_found_by_its_folder_or_its_name(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "runs")
    assert find_sweep(Path("runs/sweeps/s")) == Path("runs/sweeps/s")
    assert find_sweep(Path("s")) == Path("runs/sweeps/s")
    with pytest.raises(
        ConfigError, match=r"there is no sweep t: expected its folder, e\.g\. runs/"
    ):
        find_sweep(Path("t"))


def test_jobs_of_earlier_launches_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    energy = ["task=organic_mini_energy", "model=helm_small", "device=cpu"]
    plan = Plan.make([*energy, "strategy=frozen", "seed=0,1", "pretraining.max_steps=2"])
    first = manifest_of(plan, "site", {"time": "1:00"})
    assert first.folder == plan.folder.absolute()
    assert first.head.cwd == str(tmp_path)
    assert [entry.cell for entry in first.entries] == [node.name for node in plan.nodes]
    assert [entry.needs for entry in first.entries[2:]] == [e.cell for e in first.entries[:2]]
    assert [first.folder_of(e.cell) for e in first.entries] == [
        node.folder.absolute() for node in plan.nodes
    ]
    cells = {entry.cell: job(entry.cell) for entry in first.entries}
    first = first.with_jobs(cells)
    first.write()
    again = manifest_of(plan, "other", {"time": "2:00"})
    assert again.entries == first.entries
    assert (again.head.cluster, again.head.created) == ("other", first.head.created)
    (first.folder / MANIFEST).write_text("{\n")
    with pytest.raises(HambenchError, match="line 1 of"):
        manifest_of(plan, "other", None)


def test_cells_outside_of_the_root_have_their_whole_path(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = Plan.make(["task=water_mini", "model=minao", "run_dir=apart/run"])
    (entry,) = manifest_of(plan, "slurm", None).entries
    assert entry.cell == plan.nodes[0].name == os.fspath(tmp_path / "apart" / "run")
    assert manifest_of(plan, "slurm", None).folder_of(entry.cell) == tmp_path / "apart" / "run"
