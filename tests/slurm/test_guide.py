"""docs/cluster.md: every command in it is run on a real cluster, and its tables are the code's."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from sweeping import TINY, at_end, hambench, until

sys.path.insert(0, str(Path(__file__).parent.parent / "data"))

from file_server import FileServer
from private_cluster import PrivateCluster

from hambench.cli import jobs
from hambench.launch.profile import Profile
from hambench.launch.standing import State

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "cluster.md").read_text("utf-8")
SWEEP = "1a2b3c4d"
"""What stands for the folder that a sweep prints."""

_CELL = " ".join(word for word in TINY if not word.startswith(("task=", "device=", "max_steps=")))

INSTEAD = {
    # what the private cluster has
    "partition=gpu": "partition=debug",
    "partition: gpu": "partition: debug",
    "partition: cpu": "partition: debug",
    "a100": "fake",
    "h100": "fake",
    "cpus_per_task: 8": "cpus_per_task: 1",
    "64GB": "500MB",
    "128GB": "1GB",
    "-m venv": "-m venv --without-pip",
    # cells of seconds
    "model=helm,qhnet seed=0,1 max_steps=2000": f"{_CELL} seed=0,1 max_steps=200",
    "model=helm_small max_steps=500": f"{_CELL} max_steps=100",
    "model=helm ": f"{_CELL} ",
    "[helm, qhnet]": "[toy, mean_block]",
    "model: helm}": "model: toy}",
    "task=qh9_stable model=qhnet": f"task=water_mini {_CELL}",
    "mean_block,minao": "mean_block",
    "model=mean_block": f"{_CELL} max_steps=5",
    "--dry-run\n": "--dry-run --no-estimate\n",
    "sweep table.yaml cluster.account": "sweep table.yaml --dry-run --no-estimate cluster.account",
    "cluster.exclusive=true": "cluster.exclusive=true --dry-run --no-estimate",
    # data of seconds: a file of ours from a server of ours
    "download md17_water": "download water.h5",
    "verify md17_water": "verify /shared/project/data/water.h5",
    "generate organic_mini": "generate water_mini n=1 to=one.h5",
    "1-16": "1-1",
    "/16": "/1",
}
"""What is put in place of words that cannot be run as they stand; each has to occur."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)


def table(head: str) -> list[list[str]]:
    """Cells of the rows of the table whose head begins so."""
    lines = GUIDE.partition(f"| {head} |")[2].splitlines()[2:]
    rows = lines[: lines.index("")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_keys_of_a_profile_are_all_explained_as_they_are() -> None:
    def shown(value: object) -> str:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return "" if value in (None, "", [], {}) and value is not False else f"`{text}`"

    assert table("key") == [
        [f"`{name}`", shown(field.get_default()), str(field.description)]
        for name, field in Profile.model_fields.items()
    ]


def test_the_states_are_all_explained() -> None:
    assert {name.strip("`") for name, _ in table("state")} == set(get_args(State))


class Reader:
    """Somebody who follows the guide, in a shell of their own, on the private cluster.

    Args:
        folder: which they work in.
        shared: what /shared is to them.
    """

    def __init__(self, folder: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.shared, self.patch = folder, shared, monkeypatch
        self.sweep = ""
        self.known: dict[str, Callable[[str], str]] = {
            "hambench": self._hambench,
            "pip": self._pip,
            "export": self._environment,
            "source": self._environment,
            **dict.fromkeys(("python3", "srun", "sbatch", "apptainer"), self._bash),
        }

    def own(self, text: str) -> str:
        """A text of the guide as it is for them."""
        for word, other in INSTEAD.items():
            text = text.replace(word, other)
        text = text.replace("/shared", str(self.shared))
        return text.replace(SWEEP, self.sweep) if self.sweep else text

    def run(self, command: str) -> str:
        """Do as a line says, and return what is printed; fails where nobody knows how."""
        first = shlex.split(command)[0]
        if first not in self.known:
            pytest.fail(f"docs/cluster.md has a command that this test cannot run: {command}")
        said = self.known[first](self.own(f"{command}\n").rstrip("\n"))
        if found := re.search(r"^status +hambench status runs/sweeps/(\w{8})$", said, re.MULTILINE):
            self.sweep = found[1]
        return said

    def _hambench(self, command: str) -> str:
        return hambench(*shlex.split(command)[1:], cwd=self.folder)

    def _bash(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def _pip(self, command: str) -> str:
        """What is asked for is here already: pip agrees, and downloads nothing."""
        offline = "--dry-run --no-index --no-deps --disable-pip-version-check"
        said = self._bash(f"{sys.executable} -m {command} {offline}")
        assert "already satisfied" in said
        assert "does not provide the extra" not in said
        return said

    def _environment(self, command: str) -> str:
        """What the line leaves in the environment, stays."""
        names = "import json, os; print(json.dumps(dict(os.environ)))"
        said = self._bash(f"{command} && {shlex.quote(sys.executable)} -c '{names}'")
        for name, value in yaml.safe_load(said).items():
            self.patch.setenv(name, value)
        return ""


@pytest.fixture
def reader(
    slurm: PrivateCluster, toy_jobs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Reader]:
    """The reader, whose files are all in a folder of the test."""
    home, shared, folder, programs = (tmp_path / n for n in ("home", "shared", "work", "bin"))
    for made in (home, shared / "project" / "data", folder, programs):
        made.mkdir(parents=True)
    _program(programs / "hambench", f'exec {shlex.quote(sys.executable)} -m hambench "$@"')
    _program(programs / "module", ":")
    _program(programs / "apptainer", _APPTAINER.format(python=shlex.quote(sys.executable)))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.home() / ".cache"))  # matplotlib's fonts
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("HAMBENCH_DATA", raising=False)
    monkeypatch.setattr(jobs, "_REFRESH", 0.5)
    reader = Reader(folder, shared, monkeypatch)
    with FileServer() as server:
        water = (ROOT / "tasks" / "water_mini.h5").read_bytes()
        mirrors = {"files": {"water.h5": {"urls": [server.add("water.h5", water)]}}}
        (shared / "project" / "data" / "mirrors.yaml").write_text(yaml.safe_dump(mirrors))
        for block in (*blocks("yaml"), *blocks("singularity")):
            name = block.partition("\n")[0].removeprefix("# ")
            path = folder / name.replace("~", str(home))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(reader.own(block))
        yield reader


_APPTAINER = """\
# as apptainer does: build IMAGE DEFINITION; exec [OPTION...] IMAGE python WORD...
if [ "$1" = build ]; then
  grep -q '^Bootstrap: ' "$3" && grep -q '^From: ' "$3" && cp "$3" "$2"
  exit
fi
while [ "${{1%.sif}}" = "$1" ]; do shift; done
[ -f "$1" ] && [ "$2" = python ] || exit 1
shift 2
PATH=/nowhere exec {python} "$@"  # there are no commands of SLURM in an image
"""


def _program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_whatever_is_replaced_is_in_the_guide() -> None:
    text = "".join([*blocks("sh"), *blocks("yaml"), *blocks("singularity")])
    assert [word for word in INSTEAD if word not in text] == []


@pytest.mark.slow
@pytest.mark.slurm
def test_every_command_does_what_the_guide_says(reader: Reader, slurm: PrivateCluster) -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) > 30
    said = {command: reader.run(command) for command in commands}

    def of(part: str) -> str:
        """What the first command with a part printed; ``$`` is its end."""
        return next(text for command, text in said.items() if part in f"{command}$")

    assert re.search(r"^submitit +ok", of("hambench doctor"), re.MULTILINE)
    assert "A100 nodes" in of("list clusters")
    assert "container" in of("list clusters")
    script = of("model=helm cluster=slurm --dry-run")
    for option in ("partition=debug", "account=chem123", "gres=gpu:fake:1", "cpus-per-task=1",
                   "mem=500M", "time=720", "mail-user=me@example.org", "nice=100"):  # fmt: skip
        assert f"#SBATCH --{option}\n" in script
    assert "hambench " in of("python -m hambench --version")
    assert "downloaded" in of("data download")
    assert "all sound" in of("data verify")
    assert "submitted: 2 of 2 cells" in of("max_steps=2000 cluster=slurm$")
    assert "cancelled: 1 job" in of("hambench cancel")
    assert "submitted: 1 of 2 cells" in of("hambench retry runs/sweeps/1a2b3c4d 2$")
    assert "2 done of 2 (slurm)" in of("--follow")
    assert "nothing to start again" in of("--failed")
    assert "2 done" in of("--wait")
    assert "toy" in of("hambench leaderboard")
    tables = of("sweep table.yaml --dry-run")
    assert "#SBATCH --time=1440\n" in tables
    assert tables.count("#SBATCH --partition=debug\n") == 3 == tables.count("# script")
    assert tables.count("gres=gpu:fake:1") == 2, "the cell on a CPU asks for no GPU"
    assert "#SBATCH --account=chem456\n" in of("cluster.account=chem456")
    several = of("nodes=2 gpus=4")
    for option in ("nodes=2", "ntasks-per-node=4", "gres=gpu:fake:4", "exclusive"):
        assert f"#SBATCH --{option}\n" in several
    assert "done" in of("cluster=debug")
    assert "done" in of("cluster=local")

    (other,) = {path.name for path in (reader.folder / "runs" / "sweeps").iterdir()
                if "container" in (path / "manifest.jsonl").read_text()}  # fmt: skip
    assert at_end(reader.folder / "runs" / "sweeps" / other) == ["done"]
    for sweep in (other, reader.sweep):
        board = reader.folder / "runs" / "sweeps" / sweep / "leaderboard" / "leaderboard.md"
        until(board.is_file, f"the leaderboard of {sweep}")
    until((reader.folder / "one.h5").is_file, "labels of a molecule")


def test_no_command_is_left_out_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pytest.fail.Exception, match="cannot run: rm -r x"):
        Reader(tmp_path, tmp_path, monkeypatch).run("rm -r x")
    unknown = set(re.findall(r"^```(\w*)$", GUIDE, re.MULTILINE)) - {"sh", "yaml", "singularity"}
    assert unknown == {""}, "blocks that nobody runs or reads"
