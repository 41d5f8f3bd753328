"""Sweeps with real processes: what they leave, failures, interruption, attaching, resources."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from hambench import cli, rundir
from hambench.compose import compose
from hambench.config import OF_PRETRAINING, read_config
from hambench.data.workers import THREADS, cores
from hambench.launch.local import End, Local, Progress, Watch
from hambench.launch.plan import Node, Plan
from hambench.launch.screen import summary
from hambench.results import read_result, read_status

ROOT = Path(__file__).resolve().parents[2]
WATER = ("task=water_mini", "device=cpu")
DIVERGES = "recipe.optimizer.lr=1e38"


@pytest.fixture
def toy_cells(toy: str, toy_site: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Overrides of cells of the plug-in's model, which the processes of this test know too."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{toy_site}")
    monkeypatch.chdir(tmp_path)
    return [*WATER, f"model={toy}", "recipe.validate_every=1000", "root=runs"]


@pytest.fixture
def sweep(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    """Runs ``hambench sweep`` in this process: (exit code, out, err)."""
    monkeypatch.setenv("COLUMNS", "100")

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main(["sweep", *words])
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call


def test_a_sweep_runs_its_cells_once_and_tells_of_them(toy_cells, sweep, tmp_path: Path):
    words = [*toy_cells, "max_steps=4"]
    both = [*words, "recipe.optimizer.lr=1e-3,1e38"]
    code, out, _ = sweep(*both, "--dry-run", "--no-estimate", "cluster=local")
    assert code == 0
    assert not any(tmp_path.iterdir())
    plan = Plan.make(both)
    rows = [line.split() for line in out.splitlines()[2:4]]
    assert rows == [
        [str(number), "new", str(node.folder), *(f"{k}={v}" for k, v in node.swept.items())]
        for number, node in enumerate(plan.nodes, start=1)
    ]
    assert out.endswith("2 cells, 2 to run, 2 at a time; nothing was started\n") or cores() == 1

    code, out, err = sweep(*both, "--jobs", "2")
    assert code == 1
    assert err.endswith(
        "error: 1 of 2 cells did not get done, see above; the same command tries them again\n"
    )
    good, bad = plan.nodes
    result = read_result(good.folder)
    assert result.cost.steps == 4
    assert (
        result.provenance.command == f"python -m hambench run --config {good.folder / rundir.ASKED}"
    )
    for node in plan.nodes:
        assert read_config(node.folder / rundir.CONFIG) == node.config
        assert "parameters" in (node.folder / rundir.CONSOLE).read_text()
    reason = read_status(bad.folder).reason
    assert "the training loss became" in reason
    assert out.count(f"\ndone: {good.name}: h_mae ") + out.startswith("done: ") == 1
    table = out[out.index("\ncell  ") :].split("\n")[1:]
    assert table[0].split() == ["cell", "seed", "recipe.optimizer.lr", "primary", "metric", "state"]
    assert table[2].split()[:4] == [good.name, "0", "0.001", "h_mae"]
    assert table[2].split()[-1] == "done"
    assert table[3].split() == [bad.name, "0", "1e+38", "failed"]
    assert table[4:] == [
        "", f"failed: {bad.name}: {reason}", "leaderboard: hambench leaderboard runs", ""
    ]  # fmt: skip
    again = sweep(*both, "--dry-run", "--no-estimate")[1]
    assert [line.split()[1] for line in again.splitlines()[2:4]] == ["done", "failed"]
    assert "2 cells, 1 to run, 1 at a time" in again

    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    code, out, _ = sweep(*words, "recipe.optimizer.lr=1e-3")
    assert code == 0
    assert f"{good.name}  0     h_mae" in out
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before


def test_unknown_clusters_and_settings_without_one_are_refused(toy_cells, sweep):
    code, _, err = sweep(*toy_cells, "cluster=moon")
    assert code == 2
    assert err.startswith("error: no cluster 'moon': there is no moon.yaml in clusters and ")
    assert err.endswith(" Known: debug, local, slurm.\n")
    code, _, err = sweep(*toy_cells, "cluster.time=10:00")
    assert code == 2
    assert "'cluster.time=10:00' is for jobs of a cluster: add cluster=slurm" in err


def test_in_this_process_cells_run_one_by_one(toy_cells, sweep):
    code, out, _ = sweep(*toy_cells, "max_steps=4", "seed=0,1", "cluster=debug")
    assert code == 0
    for node in Plan.make([*toy_cells, "max_steps=4", "seed=0,1"]).nodes:
        assert read_result(node.folder).cost.steps == 4
        assert f"done: {node.name}: h_mae " in out


def test_the_shared_pretraining_runs_first_and_once(toy_cells, sweep):
    """On the first rows of organic_mini, whose file the cells of both tasks read."""
    words = [word for word in toy_cells if not word.startswith("task=")]
    words += ["task=organic_mini_energy", f"data={ROOT / 'tests/fixtures/organic_mini_24.h5'}"]
    words += ["strategy=frozen,finetuned", "max_steps=4", "pretraining.max_steps=3"]
    code, out, err = sweep(*words, "--jobs", "2")
    assert code == 0, err
    first, *others = Plan.make(words).nodes
    assert [node.config.strategy for node in others] == ["frozen", "finetuned"]
    before = read_result(first.folder)
    assert (before.task, before.cost.steps, before.provenance.restarts) == ("organic_mini", 3, 0)
    for node in others:
        result = read_result(node.folder)
        assert result.pretraining is not None
        assert result.pretraining.run_id == before.run_id == first.config.run_id
        assert result.provenance.started >= before.provenance.finished
    assert "learning curves: hambench curves runs" in out
    head = out[out.index("\ncell ") :].split("\n")[1].split()
    assert head == ["cell", "strategy", "seed", "primary", "metric", "state"]


def test_a_failure_stops_what_depends_on_it_alone(toy_cells):
    bad = Node(compose([*toy_cells, DIVERGES]))
    needing = Node(compose([*toy_cells, "seed=1"]), {"seed": "1"}, needs=bad.folder)
    other = Node(compose([*toy_cells, "max_steps=4"]))
    plan = Plan((bad, needing, other))
    told: list[tuple[str, str]] = []

    class Notes(Watch):
        def ended(self, node: Node, end: End, progress: Progress) -> None:
            assert end.state != "cancelled" or progress.failed == 1
            told.append((node.name, end.state))

    ends = Local(plan, 1, Notes()).run()
    assert [ends[node.folder].state for node in plan.nodes] == ["failed", "cancelled", "done"]
    assert told == [(bad.name, "failed"), (needing.name, "cancelled"), (other.name, "done")]
    reason = read_status(bad.folder).reason
    assert ends[bad.folder].reason == f"{reason} ({OF_PRETRAINING})"
    assert "the training loss became" in ends[bad.folder].reason
    assert ends[needing.folder].reason == f"its pretraining in {bad.folder} failed"
    assert not needing.folder.exists()


def test_a_cell_that_cannot_start_has_failed(toy_cells, tmp_path: Path):
    plan = Plan.make([*toy_cells, "run_dir=file/in"])
    (tmp_path / "file").touch()
    (end,) = Local(plan).run().values()
    assert end.state == "failed"
    assert "cannot make the folder file" in end.reason


@pytest.mark.slow
def test_ctrl_c_lets_a_cell_write_its_checkpoint_and_the_same_command_goes_on(toy_cells):
    words = ["sweep", *toy_cells, "max_steps=600", "recipe.batch_size=5", "seed=0,1"]
    first, second = Plan.make(words[1:]).nodes
    command = [sys.executable, "-m", "hambench", *words, "--jobs", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = first.folder / rundir.LOG
    while not (log.exists() and log.stat().st_size):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "interrupted: stopped by SIGINT; the same command goes on" in said
    status = read_status(first.folder)
    assert status.state == "interrupted"
    assert any((first.folder / rundir.CHECKPOINTS).iterdir())
    assert not rundir.is_running(first.folder)
    assert not second.folder.exists()

    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for node, restarts in ((first, 1), (second, 0)):
        now = read_status(node.folder)
        assert (now.state, now.step, now.restarts) == ("done", 600, restarts)
    console = (first.folder / rundir.CONSOLE).read_text()
    assert f"stopped by SIGTERM after step {status.step}" in console


@pytest.mark.slow
def test_a_cell_that_another_process_computes_is_waited_for(toy_cells, caplog):
    plan = Plan.make([*toy_cells, "max_steps=4"])
    (node,) = plan.nodes
    held, released = threading.Event(), []

    def hold() -> None:
        with rundir.lock(node.folder):
            held.set()
            time.sleep(1)
            released.append(time.time())

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with caplog.at_level("INFO", "hambench"):
        assert Local(plan).run() == {node.folder: End("done")}
    thread.join()
    assert caplog.messages == [f"waiting for another process that computes {node.folder}"]
    assert (node.folder / rundir.CONSOLE).stat().st_mtime > released[0]


def test_cells_share_the_cores(monkeypatch: pytest.MonkeyPatch):
    config = compose([*WATER, "model=mean_block"])
    plan = Plan(tuple(Node(config.model_copy(update={"seed": seed})) for seed in range(1000)))
    for jobs in (None, 1, 7):
        launcher = Local(plan, jobs)
        assert launcher.jobs == (jobs or cores())
        for name in THREADS:
            monkeypatch.delenv(name, raising=False)
        environment = launcher._environment(plan.nodes[0], [0])
        assert {environment[name] for name in THREADS} == {str(launcher.threads)}
        assert launcher.threads == max(1, cores() // launcher.jobs)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        environment = launcher._environment(plan.nodes[0], [0])
        assert [environment.get(name) for name in THREADS] == ["3", None, None]
    assert Local(Plan(plan.nodes[:1]), 7).jobs == 1


@pytest.mark.parametrize(("given", "names"), [(None, ["0", "1"]), ("5,3", ["5", "3"])])
def test_gpus_are_given_in_turn(given: str | None, names: list[str], monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    words = ["task=water_mini", "model=mean_block", "seed=0,1,2"]
    plan = Plan.make(words)
    launcher = Local(plan)
    assert launcher.jobs == 2
    found = [launcher._environment(plan.nodes[0], [slot]) for slot in range(3)]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in found] == [*names, names[0]]
    for device in ("cpu", "cuda:1"):
        plan = Plan.make([*words, f"device={device}"])
        environment = Local(plan, 3)._environment(plan.nodes[0], [0])
        assert environment.get("CUDA_VISIBLE_DEVICES") == given


@pytest.mark.parametrize("jobs", [None, 2, 4])
def test_a_cell_gets_a_gpu_for_each_of_its_processes(jobs: int | None, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    words = ["task=water_mini", "model=mean_block"]
    wide, narrow, wider = (Node(compose([*words, f"gpus={count}"])) for count in (2, 1, 3))
    launcher = Local(Plan((wide, narrow, wider)), jobs)
    assert launcher.jobs == (jobs or 2)
    slots = launcher._free_slots(wide)
    assert len(slots) == 2
    environment = launcher._environment(wide, slots)
    assert environment["CUDA_VISIBLE_DEVICES"] == "5,3"
    assert {environment[name] for name in THREADS} == {str(launcher.threads)}
    assert launcher._free_slots(wider) == slots  # all there are; the cell itself refuses
    launcher._slots.remove(slots[0])  # as if a cell had taken it
    assert launcher._free_slots(narrow)
    both = launcher._free_slots(wide)
    assert {slot % 2 for slot in both} == ({0, 1} if launcher.jobs == 4 else set())


def test_a_cell_of_several_processes_takes_the_cores_of_all(monkeypatch):
    monkeypatch.setattr("hambench.launch.local.cores", lambda: 8)
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    nodes = tuple(
        Node(compose([*WATER, "model=mean_block", f"gpus={count}", f"seed={k}"]))
        for k, count in enumerate((4, 1, 1))
    )
    launcher = Local(Plan(nodes), 5)
    assert launcher._free_slots(nodes[0]) == [0, 1, 2, 3]
    alone = Local(Plan(nodes), 1)
    assert alone._free_slots(nodes[0]) == [0]
    environment = alone._environment(nodes[0], [0])
    assert {environment[name] for name in THREADS} == {"2"}  # 8 cores for 4 processes


def test_what_is_left_is_told():
    def said(seconds: float | None) -> str:
        return summary(Progress(9, 3, 2, 1, 0, 3, seconds))

    assert said(None) == "3 done, 2 running, 1 failed, 3 waiting"
    assert said(130) == "3 done, 2 running, 1 failed, 3 waiting, about 02:10 left"
