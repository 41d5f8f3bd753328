"""What is submitted: the text of scripts, what the shell does in them, the pickled path."""

from __future__ import annotations

import os
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from slurm_stand_in import StandIn

from hambench import rundir
from hambench.config import RunConfig, read_config
from hambench.errors import ConfigError, RunError
from hambench.launch.arrays import resources_of
from hambench.launch.job import CellJob, after_a_kill
from hambench.launch.manifest import read_manifest
from hambench.launch.plan import Node, Plan
from hambench.launch.profile import Profile
from hambench.launch.slurm import Slurm, _parameters, script_of
from hambench.results import read_status, write_status

WATER = ("task=water_mini", "model=minao")
CELL = {"task": {"name": "t"}, "model": {"name": "m"}, "recipe": {"name": "m"}, "seed": 0}
ENERGY = ("task=organic_mini_energy", "model=helm_small", "pretraining.max_steps=2")
EXPECTED = """#!/bin/bash

# Parameters
#SBATCH --array=0-1%2
#SBATCH --chdir={cwd}
#SBATCH --cpus-per-task=4
#SBATCH --exclusive
#SBATCH --gpus-per-node=a100:1
#SBATCH --job-name=hambench-{sweep}
#SBATCH --mem=65536M
#SBATCH --nice=100
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output={jobs}/%A_%a/%A_%a_0_log.out
#SBATCH --partition=gpu,long
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=150

# setup
module load cuda/12

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output {jobs}/%A_%a/%A_%a_%t_log.out --kill-on-bad-exit=1 --cpus-per-task=4 \
{python} -u -m submitit.core._submit {jobs}/%j


# teardown
code=$?
if [ "$code" -eq 200 ]; then
  scontrol requeue "${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_}}\
${{SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}}"
elif [ "$code" -eq 137 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt 5 ]; then
  echo "its processes were killed: the job goes back into the queue"
  scontrol requeue "${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_}}\
${{SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}}"
fi
exit "$code\""""

TEXTS = some.text("abc ,:=;$'\"&", min_size=1, max_size=6)
PROFILES = some.fixed_dictionaries(
    {},
    optional={
        "partition": TEXTS, "account": TEXTS, "comment": TEXTS, "wckey": TEXTS,
        "exclusive": some.booleans(), "cpus_per_task": some.integers(1, 64),
        "memory": some.sampled_from(["64GB", "500 MB"]), "gpu_type": some.just("a100"),
        "ask_gpus": some.sampled_from(["gres", "gpus-per-node", "none"]),
        "time": some.sampled_from(["2:30:00", "1-0", "7"]),
        "setup": some.lists(some.sampled_from(["module load x", "set -u"]), max_size=2),
        "extra": some.fixed_dictionaries(
            {}, optional={"gres": some.just("disk:3"), "hold": some.just(True), "nice": TEXTS}
        ),
    },
)  # fmt: skip


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a b"  # which the shell would take for two words
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def site(**changes: Any) -> Profile:
    return Profile.model_validate(changes)


def test_the_whole_text_is_what_is_submitted(stand_in: StandIn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = Plan.make([*WATER, "seed=0,1"])
    profile = site(
        partition="gpu,long", gpu_type="a100", cpus_per_task=4, memory="64GB", time="2:30:00",
        exclusive=True, setup=["module load cuda/12"], extra={"nice": 100},
    )  # fmt: skip
    slurm = Slurm(plan, "site", profile)
    (array,) = slurm.arrays()
    text = slurm.text(array)
    jobs = tmp_path / plan.folder / "jobs"
    assert text == EXPECTED.format(
        cwd=tmp_path, sweep=plan.folder.name, jobs=jobs, python=sys.executable
    )
    assert not (tmp_path / "runs").exists()
    slurm.submit()
    assert stand_in.script(101) == text
    assert (jobs / "101" / "101_submission.sh").read_text() == text
    tested = (stand_in.folder / "tested.sh").read_text()
    same = [line for line in text.splitlines() if "%" not in line]
    assert [line for line in tested.splitlines() if "%" not in line] == same


@settings(max_examples=60, deadline=None)
@given(PROFILES, some.integers(1, 4), some.integers(1, 3), some.sampled_from(["auto", "cpu"]))
def test_whatever_a_profile_says_the_script_is_sound(given_, gpus, nodes, device):
    asked = {"device": device, "gpus": gpus, "nodes": nodes}
    node = Node(RunConfig.model_validate({**CELL, **asked}))
    profile = Profile.model_validate(given_)
    parameters = _parameters(resources_of(node, profile), "name", "afterok", ["7"])
    text = script_of(Path("/a b/jobs"), profile.python, parameters, 1)
    options = [shlex.split(line)[1:] for line in re.findall(r"^#SBATCH .*$", text, re.M)]
    assert all(len(words) == 1 for words in options)
    said = [word.partition("=")[::2] for (word,) in options]
    found = dict(said)
    assert len(found) == len(said)
    assert not {"False", "None", "True"} & set(found.values())
    wants = device == "auto" and profile.ask_gpus != "none"
    kind = "a100:" if profile.gpu_type else ""
    gres = [f"gpu:{kind}{gpus}"] * (wants and profile.ask_gpus == "gres")
    gres += filter(None, [profile.extra.get("gres")])
    assert found.get("--gres") == (",".join(gres) or None)
    typed = f"{kind}{gpus}" if wants and profile.ask_gpus != "gres" else None
    assert found.get("--gpus-per-node") == typed
    assert not typed or "gpu:" not in found.get("--gres", "")
    assert (found["--nodes"], found["--ntasks-per-node"]) == (str(nodes), str(gpus))
    assert (found["--chdir"], found["--requeue"]) == (os.getcwd(), "")
    assert (found["--dependency"], found["--kill-on-invalid-dep"]) == ("afterok:7", "yes")
    assert found["--time"] == str(profile.minutes)
    assert found.get("--mem") == profile.memory
    assert ("--exclusive" in found) == profile.exclusive
    for key in ("partition", "account", "comment", "wckey"):
        assert found.get(f"--{key}") == getattr(profile, key)
    assert found["--output"] == "/a b/jobs/%j/%j_0_log.out"
    lines = text.splitlines()
    (command,) = [shlex.split(line) for line in lines if line.startswith("srun")]
    assert command[-4:] == ["-u", "-m", "submitit.core._submit", "/a b/jobs/%j"]
    assert lines[-len(after_a_kill()) :] == after_a_kill()
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_another_python(cwd: Path, stand_in: StandIn):
    container = "apptainer exec --nv image.sif python"
    plan = Plan.make([*WATER, "seed=0,1"])
    nodes = (plan.nodes[0], Node(plan.nodes[1].config, asks={"python": container}))
    Slurm(Plan(nodes), "site", site()).submit()
    commands = [
        next(line for line in stand_in.script(k).splitlines() if line.startswith("srun"))
        for k in (101, 102)
    ]
    assert f"{shlex.quote(sys.executable)} -u -m submitit" in commands[0]
    assert f" {container} -u -m submitit" in commands[1]


def test_a_percent_in_the_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "50%").mkdir()
    monkeypatch.chdir(tmp_path / "50%")
    with pytest.raises(ConfigError, match=r"50%/runs has a '%', which SLURM would replace"):
        Slurm(Plan.make(WATER), "slurm", site())


@pytest.mark.parametrize("setup", ["", "set -u"])
@pytest.mark.parametrize(
    ("code", "restarts", "array", "requeued"),
    [
        (0, None, False, None), (1, None, False, None), (130, "1", True, None),
        (137, None, False, "12"), (137, "4", False, "12"), (137, "5", False, None),
        (137, None, True, "11_3"), (137, "4", True, "11_3"), (137, "9", True, None),
    ],
)  # fmt: skip
def test_the_shell_keeps_the_exit_code(
    stand_in: StandIn, setup: str, code: int, restarts: str | None, array: bool,
    requeued: str | None, monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    if restarts is not None:
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    if array:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "11")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    text = "\n".join([setup, f"(exit {code})", "", *after_a_kill()])
    for works in (True, False):  # nor does a refusal of the scheduler change the code
        done = subprocess.run(["bash"], input=text, text=True, capture_output=True)
        assert done.returncode == code
        assert ("goes back into the queue" in done.stdout) == (requeued is not None)
        if works:
            stand_in.command("scontrol", "exit 1")
    wanted = [] if requeued is None else [f"scontrol requeue {requeued}"] * 2
    assert stand_in.calls() == wanted


class Strict(pickle.Unpickler):
    """Finds nothing but what a job consists of; notes what was looked for."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.found: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        self.found.append(f"{module}.{name}")
        assert self.found[-1] in {
            "submitit.core.utils.DelayedSubmission", "hambench.launch.job.CellJob",
            "hambench.launch.job.BoardJob",
        }  # fmt: skip
        return super().find_class(module, name)


def test_what_is_pickled_is_a_path(cwd: Path, stand_in: StandIn):
    plan = Plan.make([*WATER, "seed=0,1"])
    sent = Slurm(plan, "site", site()).submit()
    jobs = [entry.jobs[-1] for entry in sent.manifest.entries]
    assert [job.id for job in jobs] == ["101_0", "101_1"]
    for node, job in zip(plan.nodes, jobs, strict=True):
        path = Path(job.folder) / f"{job.id}_submitted.pkl"
        with path.open("rb") as file:
            task = Strict(file).load()
        assert isinstance(task.function, CellJob)
        assert vars(task.function) == {"folder": str(node.folder.absolute())}
        assert (task.args, task.kwargs) == ((), {})
        assert path.stat().st_size < 1000
    with (cwd / plan.folder / "jobs" / "102" / "102_submitted.pkl").open("rb") as file:
        assert vars(Strict(file).load().function) == {"folder": str(cwd / plan.folder)}


def test_a_sweep_in_stages(cwd: Path, stand_in: StandIn):
    plan = Plan.make([*ENERGY, "strategy=direct,frozen", "seed=0,1"])
    sent = Slurm(plan, "site", site(ask_gpus="none")).submit()
    assert (sent.submitted, dict(sent.attached), sent.busy) == (6, {}, ())
    wanted = [
        line.partition("=")[2]
        for k in (101, 102, 103)
        for line in stand_in.script(k).splitlines()
        if line.startswith("#SBATCH --dependency")
    ]
    assert wanted == ["aftercorr:101", "afterany:101:102"]
    manifest = read_manifest(cwd / plan.folder)
    assert manifest == sent.manifest
    jobs = {entry.cell: entry.jobs[-1].id for entry in manifest.entries}
    for entry in manifest.entries:
        if entry.needs is not None:
            assert jobs[entry.cell].replace("102_", "101_") == jobs[entry.needs]
    for node in plan.nodes:
        assert read_status(node.folder).state == "queued"
        assert read_config(node.folder / rundir.ASKED) == node.config
    assert [job.id for job in manifest.head.board] == ["103"]


def test_what_is_in_the_queue_is_not_submitted_again(cwd: Path, stand_in: StandIn):
    plan = Plan.make([*WATER, "seed=0,1"])
    Slurm(plan, "site", site()).submit()
    stand_in.queue("101_0|RUNNING|n|1:00|None", "101_1|FAILED|n|1:00|None", "102|PENDING||0:00|x")
    wider = Plan.make([*WATER, "seed=0,1,2"])  # another sweep, with the same cells
    sent = Slurm(wider, "site", site()).submit()
    first, second, third = (node.name for node in wider.nodes)
    assert (sent.submitted, dict(sent.attached)) == (2, {first: "101_0"})
    assert {e.cell: [job.id for job in e.jobs] for e in sent.manifest.entries} == {
        first: ["101_0"], second: ["103_0"], third: ["103_1"],
    }  # fmt: skip
    stand_in.queue("101_0|RUNNING|n|1:00|None", "103_0|PENDING||0:00|x", "103_1|PENDING||0:00|x")
    again = Slurm(wider, "site", site()).submit()
    assert (again.submitted, len(again.attached)) == (0, 3)
    assert again.manifest.entries == sent.manifest.entries
    assert len(stand_in.calls("sbatch")) == 6  # twice an array, a board, and what was tested


def test_a_cell_outside_of_the_root_has_its_job(cwd: Path, stand_in: StandIn):
    sent = Slurm(Plan.make([*WATER, "run_dir=apart"]), "site", site()).submit()
    (entry,) = read_manifest(sent.manifest.folder).entries
    assert (entry.cell, [job.id for job in entry.jobs]) == (str(cwd / "apart"), ["101"])


def test_what_slurm_does_not_take_leaves_nothing(cwd: Path, stand_in: StandIn):
    stand_in.command("sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    plan = Plan.make(WATER)
    with pytest.raises(ConfigError) as refused:
        Slurm(plan, "site", site(partition="x")).submit()
    assert "SLURM does not take these jobs: sbatch: error: invalid partition" in str(refused.value)
    assert "'site'" in str(refused.value)
    assert not plan.nodes[0].folder.exists()
    assert not (plan.folder / "manifest.jsonl").exists()


def test_a_refusal_on_the_way_says_what_is_submitted(cwd: Path, stand_in: StandIn):
    body = (stand_in.folder / "sbatch").read_text()
    limit = 'if [ "$1" != --test-only ] && [ $(cat "$here/number") -ge 101 ]; then '
    stand_in.command(
        "sbatch", f"{limit} echo 'sbatch: error: QOSMaxSubmitJob' >&2; exit 1; fi\n{body}"
    )
    plan = Plan.make([*ENERGY, "strategy=frozen", "seed=0,1"])
    with pytest.raises(RunError) as refused:
        Slurm(plan, "site", site()).submit()
    assert "QOSMaxSubmitJob" in str(refused.value)
    assert "jobs of 2 cells are submitted, of 2 not; the same command" in str(refused.value)
    jobs = [len(entry.jobs) for entry in read_manifest(cwd / plan.folder).entries]
    assert jobs == [1, 1, 0, 0]
    stand_in.command("sbatch", body)
    stand_in.queue("101_0|PENDING||0:00|x", "101_1|PENDING||0:00|x")
    sent = Slurm(Plan.make([*ENERGY, "strategy=frozen", "seed=0,1"]), "site", site()).submit()
    assert (sent.submitted, len(sent.attached)) == (2, 2)
    behind = re.findall(r"--dependency=(\S+)", stand_in.script(102) + stand_in.script(103))
    assert behind == ["afterok:101_0", "afterok:101_1"]


def test_overwriting_is_done_once(cwd: Path, stand_in: StandIn):
    plan = Plan.make([*WATER, "overwrite=true"])
    (node,) = plan.nodes
    rundir.begin(node.folder, node.config, "f" * 64)
    (node.folder / rundir.RESULT).write_text("{}")
    Slurm(plan, "site", site()).submit()
    assert not rundir.is_finished(node.folder)
    asked = read_config(node.folder / rundir.ASKED)
    assert not asked.overwrite
    status = rundir.begin(node.folder, asked, "f" * 64)  # a start, and one after a requeue
    write_status(node.folder, status.model_copy(update={"step": 7}))
    assert rundir.begin(node.folder, asked, "f" * 64).step == 7


def test_the_lock_of_a_lost_job_is_released(cwd: Path, stand_in: StandIn):
    plan = Plan.make(WATER)
    Slurm(plan, "site", site()).submit()
    lock = plan.nodes[0].folder / rundir.LOCK
    lock.write_text('{"host": "lost", "pid": 1, "job": "101"}')
    assert Slurm(Plan.make(WATER), "site", site()).submit().submitted == 1
    assert not lock.exists()
    lock.write_text('{"host": "lost", "pid": 1, "job": "77"}')  # whose that is nobody knows
    with pytest.raises(RunError, match=r"process 1 on lost, job 77; if that process is gone"):
        Slurm(Plan.make(WATER), "site", site()).submit()


def test_settings_of_all_cells_hold_for_the_leaderboard(cwd: Path, stand_in: StandIn):
    plan = Plan.make([*WATER, "seed=0,1"])
    common = {"partition": "p", "setup": ["a"]}
    asks = [{**common, "time": "9:00:00"}, {**common, "qos": "q"}]
    nodes = tuple(Node(n.config, asks=a) for n, a in zip(plan.nodes, asks, strict=True))
    Slurm(Plan(nodes), "site", site()).submit()
    board = stand_in.script(103)
    assert "#SBATCH --partition=p" in board
    assert "#SBATCH --time=30" in board
    assert "\n# setup\na\n" in board
    assert "qos" not in board
