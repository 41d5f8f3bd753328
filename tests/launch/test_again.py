"""``hambench status``, ``cancel`` and ``retry`` on the manifest of a submitted sweep."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from slurm_stand_in import StandIn

from hambench.cli import cli
from hambench.errors import HambenchError, RunError
from hambench.launch import again
from hambench.launch.manifest import read_manifest
from hambench.launch.plan import Plan
from hambench.launch.profile import Profile
from hambench.launch.slurm import Slurm

ENERGY = ("task=organic_mini_energy", "model=helm_small", "device=cpu", "pretraining.max_steps=2")
WAITING = [f"10{k}_{n}|PENDING||0:00|x" for k in (1, 2) for n in (0, 1)] + ["103|PENDING||0:00|x"]


@pytest.fixture
def sweep(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A submitted sweep: jobs 101_0, 101_1, behind them 102_0, 102_1, and the board 103."""
    monkeypatch.chdir(tmp_path)
    plan = Plan.make([*ENERGY, "strategy=frozen", "seed=0,1"])
    Slurm(plan, "slurm", Profile.model_validate({"partition": "p"})).submit()
    stand_in.queue(*WAITING)
    return tmp_path / plan.folder


def said(*words: object) -> str:
    done = CliRunner().invoke(cli, [str(word) for word in words])
    if isinstance(done.exception, Exception):
        raise done.exception
    return done.output


def states(sweep: Path) -> list[str]:
    return [cell["state"] for cell in json.loads(said("status", sweep, "--json"))]


def jobs(sweep: Path) -> list[list[str]]:
    return [[job.id for job in entry.jobs] for entry in read_manifest(sweep).entries]


def test_status_asks_once(sweep: Path, stand_in: StandIn):
    before = len(stand_in.calls())
    assert states(sweep) == ["queued", "queued", "waiting", "waiting"]
    assert [call.split()[0] for call in stand_in.calls()[before:]] == ["squeue"]
    assert "0 done, 2 queued, 2 waiting of 4 (slurm)" in said("status", sweep.name)


def test_cancelled_cells_are_marked(
    sweep: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(again, "_ENDING", 0.0)  # the queue of the stand-in keeps its jobs
    assert said("cancel", sweep, 3) == "cancelled: 1 job\n"
    assert stand_in.calls("scancel") == ["scancel 102_0"]
    assert said("cancel", sweep) == "cancelled: 5 jobs\n"
    assert stand_in.calls("scancel")[1] == "scancel 101_0 101_1 102_0 102_1 103"
    stand_in.queue()
    assert states(sweep) == ["cancelled"] * 4
    assert said("cancel", sweep) == "cancelled: 0 jobs\n"
    assert len(stand_in.calls("scancel")) == 2


def test_a_cancelling_that_fails_halfway_is_marked(sweep: Path, stand_in: StandIn):
    stand_in.command("scancel", "echo 'scancel: error: Kill job error' >&2; exit 1")
    with pytest.raises(RunError, match="scancel failed"):
        said("cancel", sweep, 1)
    assert states(sweep)[0] == "queued"  # of one that goes on the queue tells
    stand_in.queue(*WAITING[1:])
    assert states(sweep)[0] == "cancelled"


def test_cells_are_tried_again(sweep: Path, stand_in: StandIn):
    assert said("retry", sweep).startswith("nothing to start again")
    stand_in.queue(
        "101_0|FAILED|n|0:01|None", "101_1|COMPLETED|n|0:01|None",
        "102_0|CANCELLED||0:00|None", "102_1|TIMEOUT|n|9:00|None",
    )  # fmt: skip
    done = read_manifest(sweep).folder_of(read_manifest(sweep).entries[1].cell)
    (done / "result.json").write_text("{}")
    assert states(sweep) == ["failed", "done", "cancelled", "timeout"]
    assert said("retry", sweep, 2).startswith("nothing to start again")
    # the third cell needs the first one again; changes of the profile stay
    said("retry", sweep, 3, "cluster.time=4:00:00")
    assert jobs(sweep) == [["101_0", "104"], ["101_1"], ["102_0", "105"], ["102_1"]]
    assert "#SBATCH --dependency=afterok:104\n" in stand_in.script(105)
    assert "#SBATCH --time=240\n" in stand_in.script(104)
    assert "#SBATCH --partition=p\n" in stand_in.script(104)
    assert read_manifest(sweep).head.profile["time"] == "4:00:00"
    stand_in.queue("104|FAILED|n|0:01|None", "105|CANCELLED||0:00|None", "102_1|TIMEOUT|n|9|None")
    said("retry", sweep, "--failed")
    assert [len(ids) for ids in jobs(sweep)] == [3, 1, 2, 1]
    assert re.search("--time=240", stand_in.script(107))


def test_wrong_words(sweep: Path, stand_in: StandIn):
    stand_in.queue()
    before = stand_in.calls("sbatch")
    for word, message in {
        "x": "no cell 'x' in this sweep: give a number from 1 to 4",
        "9": "no cell '9' in this sweep: give a number from 1 to 4",
        "cluster.tim=3": "unknown key 'tim' in cluster.tim=3. Did you mean",
        "cluster.time=x": "time=x in cluster.time=x: expected a time",
    }.items():
        with pytest.raises(HambenchError) as caught:
            said("retry", sweep, word)
        assert message in str(caught.value)
    assert not stand_in.calls("scancel")
    assert stand_in.calls("sbatch") == before


def test_what_is_gone_is_named(sweep: Path, stand_in: StandIn, tmp_path: Path):
    stand_in.queue("101_0|FAILED|n|0:01|None")
    path = sweep / "manifest.jsonl"
    text = path.read_text()

    def refused(instead: str) -> str:
        path.write_text(instead)
        with pytest.raises(HambenchError) as caught:
            said("retry", sweep)
        return str(caught.value)

    head, *rest = text.splitlines(keepends=True)
    gone = json.loads(head) | {"cwd": "/no/such"}
    message = refused(json.dumps(gone) + "\n" + "".join(rest))
    assert message == "the working folder of the launch is gone: /no/such; make it anew"
    odd = json.loads(head) | {"profile": {"colour": "red"}}
    message = refused(json.dumps(odd) + "\n" + "".join(rest))
    assert f"unknown key 'colour' in line 1 of {path}" in message
    (read_manifest(sweep).folder_of(read_manifest(sweep).entries[0].cell) / "asked.yaml").unlink()
    assert "config.yaml" in refused(text)
