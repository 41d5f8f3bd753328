"""`hambench data download` as users call it: killed, stopped, twice at once, and mistaken."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent.parent / "data"))

from file_server import Fault, FileServer

from hambench import cli
from hambench.data.location import DATA_VARIABLE

CONTENT = np.random.default_rng(9).bytes(8_000_000)
SLOW = Fault(drip=50_000, pause=0.02)

PLUGIN = {
    "plug_data/__init__.py": """
class Provider:
    def task(self, content, path=None, **settings):
        from plug_data.task import Published
        return Published(content, path, **settings)
""",
    "plug_data/task.py": """
from hambench.data.task import Task

class Published(Task):
    def open(self, path):
        raise NotImplementedError
""",
    "plug_data-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: plug_data\nVersion: 1.0\n",
    "plug_data-1.0.dist-info/entry_points.txt": "[hambench.tasks]\nplug = plug_data:Provider\n",
}


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


class Shell:
    """Calls the command line in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.site = folder / "site"
        paths = [str(self.site), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        self.environment = os.environ | {
            DATA_VARIABLE: str(self.data),
            "PYTHONPATH": os.pathsep.join(paths),
            "no_proxy": "*",
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "hambench", "data", "download", *words],
            env=self.environment, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Exit code, output, errors."""
        process = self.start(*words)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def knows(self, name: str, **entry: object) -> None:
        """Describe a file in the user's own catalogue."""
        self.data.mkdir(exist_ok=True)
        (self.data / "mirrors.yaml").write_text(yaml.safe_dump({"files": {name: entry}}))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def wait_for(part: Path, size: int, process: subprocess.Popen[str]) -> None:
    """Until a part has at least ``size`` bytes."""
    limit = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size >= size):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_a_killed_download_goes_on_without_losing_a_byte(shell: Shell, server: FileServer):
    url = server.add("x.db", CONTENT, etag="tag", faults=[SLOW, SLOW])
    shell.knows("x.db", urls=[url], sha256=hashlib.sha256(CONTENT).hexdigest())
    part = shell.data / "x.db.part"
    held = 0
    for kills in (1, 2):
        process = shell.start("x.db")
        wait_for(part, held + 1_000_000, process)
        process.kill()
        process.communicate()
        assert not (shell.data / "x.db").exists()
        held = part.stat().st_size
        assert CONTENT.startswith(part.read_bytes())
        assert kills * 1_000_000 <= held < len(CONTENT)
    code, out, err = shell("x.db")
    assert code == 0, err
    assert out == f"{shell.data / 'x.db'}: downloaded (sha256 as published)\n"
    assert (shell.data / "x.db").read_bytes() == CONTENT
    assert server.statuses == [200, 206, 206]
    assert server.sent[-1] == len(CONTENT) - held
    code, out, _ = shell("x.db", "--offline")
    assert (code, out) == (0, f"{shell.data / 'x.db'}: is there (sha256 as published)\n")
    assert len(server.asked) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_download_says_how_to_go_on(shell: Shell, server: FileServer, number: int):
    shell.knows("x.db", urls=[server.add("x.db", CONTENT, etag="tag", faults=[SLOW])])
    process = shell.start("x.db")
    wait_for(shell.data / "x.db.part", 500_000, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted: x.db: stopped; " in err
    assert "of 8.0 MB are kept in" in err
    assert "Traceback" not in err
    assert shell("x.db")[0] == 0
    assert server.sent[1] < len(CONTENT)


def test_a_second_process_is_refused_and_the_first_is_not_disturbed(
    shell: Shell, server: FileServer
):
    shell.knows("x.db", urls=[server.add("x.db", CONTENT, etag="tag", always=SLOW)])
    first = shell.start("x.db")
    wait_for(shell.data / "x.db.part", 100_000, first)
    code, out, err = shell("x.db")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "is being downloaded by another process" in err
    _, err = first.communicate(timeout=60)
    assert first.returncode == 0
    for shown in ("x.db:   0%", "/8.00M", "B/s]", "verifying x.db"):
        assert shown in err
    assert (shell.data / "x.db").read_bytes() == CONTENT
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["water_mini"], 2, "are generated, not published; make them with: hambench data generate"),
        (["watermini"], 2, "no task or file 'watermini'. Did you mean 'water_mini'?"),
        (["train_2.db"], 2, "Did you mean 'train_2k.db'?"),
        (["QH9Stable.db"], 3, "it is on Google Drive"),
        (["qh9_stable"], 3, "it is on Google Drive"),
        (["md17_water", "--offline"], 3, "schnorb_hamiltonian_water.db is not here"),
        (["train_2k.db", "--offline"], 3, "--offline forbids"),
        (["train_2k.db", "--mirrors", "nowhere.yaml"], 3, "cannot read nowhere.yaml"),
        (["train_2k.db", "mirrors=bad.yaml"], 2, "bad.yaml, files.x.db: urls expected"),
        ([], 2, "Missing argument 'TASK|FILE'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    said: str,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))
    Path("bad.yaml").write_text("files: {x.db: {}}")
    with pytest.raises(SystemExit) as left:
        cli.main(["data", "download", *words])
    out, err = capsys.readouterr()
    assert (left.value.code, out, err.count("\n")) == (code, "", 1), err
    assert said in err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize(
    ("entry", "code", "said"),
    [({"sha256": "0" * 64}, 4, "put aside as"), ({"bytes": 3}, 3, "3 were published")],
    ids=["other bytes", "other size"],
)
def test_exit_codes_of_what_came(
    shell: Shell, server: FileServer, entry: dict[str, object], code: int, said: str
):
    shell.knows("x.db", urls=[server.add("x.db", b"content")], **entry)
    found, _, err = shell("x.db")
    assert found == code
    assert f"error: cannot get x.db: {server.url('x.db')}: " in err
    assert said in err


def write_plugin(site: Path, server: FileServer, file: str) -> None:
    """Install a package with a published task of two files and a catalogue."""
    about = yaml.safe_load((Path(__file__).parents[2] / "tasks/task/water_mini.yaml").read_text())
    files = {"main": {"name": "plug.db"}, "other": {"name": file}}
    about |= {"name": "plug_water", "source": "published", "files": files, "family": "plug"}
    entries = {
        "plug.db": {"urls": [server.add("p", CONTENT[:1000])], "bytes": 1000},
        "test.db": {"urls": [server.add("q", CONTENT[:2000])]},
    }
    contents = {
        **PLUGIN,
        "plug_data/task/plug_water.yaml": yaml.safe_dump(about),
        "plug_data/download/plug.yaml": yaml.safe_dump({"files": entries}),
    }
    for name, text in contents.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)


def test_the_files_of_a_task_of_another_package(shell: Shell, server: FileServer):
    write_plugin(shell.site, server, "test.db")
    code, out, err = shell("plug_water", "--to", "here/below")
    assert code == 0, err
    assert [line.partition(" (")[0] for line in out.splitlines()] == [
        "here/below/plug.db: downloaded", "here/below/test.db: downloaded",
    ]  # fmt: skip
    assert (shell.folder / "here/below/plug.db").read_bytes() == CONTENT[:1000]
    assert (shell.folder / "here/below/test.db").read_bytes() == CONTENT[:2000]
    record = json.loads((shell.folder / "here/below/plug.db.download.json").read_text())
    assert record["bytes"] == 1000
    shutil.rmtree(shell.site)
    write_plugin(shell.site, server, "other.db")
    code, _, err = shell("plug_water")
    assert code == 2
    assert "no catalogue says where to get other.db of task 'plug_water'" in err
