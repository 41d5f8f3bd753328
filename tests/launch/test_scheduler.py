"""What SLURM's commands say: with and without accounting, and where they do not answer."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest
from slurm_stand_in import StandIn

from hambench.errors import ConfigError, RunError
from hambench.launch import scheduler
from hambench.launch.scheduler import JobState, Scheduler


def test_one_query_tells_of_all_jobs(stand_in: StandIn):
    stand_in.queue(
        "12_0|RUNNING|n[1-2]|1-02:03:04|None", "12_1|PENDING||0:00|Dependency",
        "13|COMPLETED|n3|5:00|None", "14|PENDING||0:00|(launch failed | requeued)",
    )  # fmt: skip
    asked = Scheduler()
    found = asked.states(job for job in ["12_0", "12_1", "13", "14", "13"])
    assert found == {
        "12_0": JobState("RUNNING", "n[1-2]", "1-02:03:04"),
        "12_1": JobState("PENDING", reason="Dependency", elapsed="0:00"),
        "13": JobState("COMPLETED", "n3", "5:00"),
        "14": JobState("PENDING", reason="(launch failed | requeued)", elapsed="0:00"),
    }
    assert [found[job].alive for job in found] == [True, True, False, True]
    assert [found[job].waits for job in found] == [False, True, False, True]
    assert len(stand_in.calls("squeue")) == 1
    assert f"-u {os.getuid()} " in stand_in.calls("squeue")[0]
    assert not stand_in.calls("sacct")
    assert asked.states(["13"]) == {"13": found["13"]}
    assert len(stand_in.calls()) == 1  # of one that has ended nothing is asked again
    assert asked.states([]) == {}
    asked.states(["12_0", "13"])
    assert len(stand_in.calls()) == 2


def test_jobs_that_left_the_queue_are_looked_up_once(stand_in: StandIn):
    stand_in.queue("15|RUNNING|n1|1:00|None")
    stand_in.accounting(
        "12_0|PREEMPTED|n1|00:00:10", "12_0|COMPLETED|n2|00:01:00",
        "12_[3-9]|PENDING|None assigned|00:00:00", "13|CANCELLED by 1000|None assigned|00:00:00",
        "14|OUT_OF_MEMORY|n1|00:02:00", "16|RUNNING|n1|3-00:00:00", "17", "",
    )  # fmt: skip
    asked = Scheduler()
    jobs = ["12_0", "13", "14", "15", "16", "17", "18"]
    found = asked.states(jobs)
    assert {job: (state.state, state.nodes) for job, state in found.items()} == {
        "12_0": ("COMPLETED", "n2"), "13": ("CANCELLED", ""), "14": ("OUT_OF_MEMORY", "n1"),
        "15": ("RUNNING", "n1"), "17": ("", ""),
    }  # fmt: skip
    (call,) = stand_in.calls("sacct")
    assert call.endswith("-j 12_0,13,14,16,17,18")
    assert asked.states(jobs) == found
    assert stand_in.calls("sacct")[1].endswith("-j 16,18")


def test_many_ids_are_looked_up_in_parts(stand_in: StandIn):
    Scheduler().states(f"9_{k}" for k in range(1000))
    words = [call.split()[-1].split(",") for call in stand_in.calls("sacct")]
    assert [len(ids) for ids in words] == [400, 400, 200]
    assert [job for ids in words for job in ids] == [f"9_{k}" for k in range(1000)]


@pytest.mark.parametrize("lacking", ["broken", "missing"])
def test_without_accounting_ended_jobs_are_unknown(
    stand_in: StandIn, lacking: str, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    caplog.set_level(logging.INFO, "hambench")
    if lacking == "broken":
        stand_in.command("sacct", "echo 'sacct: error: slurmdbd is away' >&2; exit 1")
    else:
        (stand_in.folder / "sacct").unlink()
        bash = shutil.which("bash")
        assert bash is not None
        for name in ("bash", "cat"):
            (stand_in.folder / name).symlink_to(Path(bash).parent / name)
        monkeypatch.setenv("PATH", str(stand_in.folder))
    stand_in.queue("12|RUNNING|n1|1:00|None")
    asked = Scheduler()
    for _ in range(3):
        assert list(asked.states(["11", "12"])) == ["12"]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (lacking == "broken")  # once
    assert all("slurmdbd is away" in line for line in said)
    assert len(stand_in.calls("squeue")) == 3


def test_a_controller_that_does_not_answer(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch):
    stand_in.command("squeue", "echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1")
    with pytest.raises(RunError, match=r"squeue failed: slurm_load_jobs error: Unable to contact"):
        Scheduler().states(["1"])
    stand_in.command("squeue", "exit 3")
    with pytest.raises(RunError, match=r"squeue failed: exit code 3"):
        Scheduler().states(["1"])
    monkeypatch.setattr(scheduler, "_TIMEOUT", 0.2)
    stand_in.command("squeue", "exec sleep 30")
    with pytest.raises(RunError, match=r"gave no answer to squeue within 0 s; try again later"):
        Scheduler().states(["1"])


@pytest.mark.parametrize("program", ["sbatch", "srun", "squeue"])
def test_where_slurm_is_not_installed(
    stand_in: StandIn, program: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(stand_in.folder))
    scheduler.require()
    (stand_in.folder / program).unlink()
    with pytest.raises(ConfigError, match=rf"not installed here \({program} is missing\): run"):
        scheduler.require()
    with pytest.raises(ConfigError, match=rf"not installed here \({program} is missing\): run"):
        scheduler.run([program])


@pytest.mark.parametrize(
    ("config", "largest"),
    [
        ("MaxArraySize            = 1001\nMaxJobCount = 5", 1001),
        ("MaxArraySize=1", 1),
        ("MaxArraySize = 0", 1),  # no arrays at all
        ("Other = 3", 1000),
    ],
)
def test_the_largest_array(stand_in: StandIn, config: str, largest: int):
    (stand_in.folder / "config").write_text(f"Configuration data\n{config}\n")
    assert scheduler.largest_array() == largest


def test_what_a_job_around_this_process_has_set_is_not_heard(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
):
    inside = {"SLURM_JOB_ID": "1", "SLURM_CONF": "/c", "SBATCH_PARTITION": "x", "SRUN_DEBUG": "1",
              "SUBMITIT_EXECUTOR": "slurm", "OTHER": "y"}  # fmt: skip
    for name, value in inside.items():
        monkeypatch.setenv(name, value)
    stand_in.command("scontrol", 'env > "$here/env"')
    scheduler.requeue("12_3")
    words = dict(line.partition("=")[::2] for line in
                 (stand_in.folder / "env").read_text().splitlines())  # fmt: skip
    assert {name: words[name] for name in inside if name in words} == {
        "SLURM_CONF": "/c", "OTHER": "y",
    }  # fmt: skip
    assert stand_in.calls("scontrol") == ["scontrol requeue 12_3"]
    before = dict(os.environ)
    with scheduler.left_jobs():
        assert "SLURM_JOB_ID" not in os.environ
        assert os.environ["SLURM_CONF"] == "/c"
    assert dict(os.environ) == before


def test_cancelling(stand_in: StandIn):
    scheduler.cancel([])
    assert not stand_in.calls()
    scheduler.cancel([f"7_{k}" for k in range(401)])
    assert [len(call.split()) for call in stand_in.calls("scancel")] == [401, 2]
    stand_in.command("scancel", "echo 'scancel: error: Kill job error' >&2; exit 1")
    with pytest.raises(RunError, match=r"scancel failed: scancel: error: Kill job error"):
        scheduler.cancel(["3"])
