"""A package that describes the environment ``tiny``, made of a wheel of its own, and a worker."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hambench.chem.molecule import Molecule
from hambench.environments import Environment, make
from hambench.registry import ENVIRONMENTS, MODELS, load_task

DESCRIPTION = """
name: tiny
title: a tiny one
requirements: tiny/requirements.txt
imports: [tinylib]
"""

WORKER = """
import json, os, sys, time
from pathlib import Path

def predict(job, host):
    import tinylib
    print("said by a library")
    for row in range(3):
        host.tell("predicted", molecules=row + 1)
    host.write_predictions(job["out"], range(3), [tinylib.ENERGY * row for row in range(3)])

def train(job, host):
    host.tell("start", step=0, seconds=0.0)
    while True:
        host.tell("step", step=1, epoch=0, seconds=0.0, loss=1.0, molecules=1)
        time.sleep(0.02)

def refuse(job, host):
    host.fail("no such thing as " + job["thing"])

def crash(job, host):
    1 / 0

def die(job, host):
    os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package that describes the environment ``tiny``, and its wheel."""
    folder = tmp_path_factory.mktemp("site")
    package = folder / "tinyplug"
    for name, text in {
        "__init__.py": "class Tiny: pass\n",
        "environment/tiny.yaml": DESCRIPTION,
        "tiny/worker.py": WORKER,
        "tiny/requirements.txt": f"--no-index\n--find-links {folder}\ntinylib==1.0\n",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    info = folder / "tinyplug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tinyplug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hambench.models]\ntiny = tinyplug:Tiny\n")
    wheel = {
        "tinylib.py": "ENERGY = 27.211386245988\n",
        "tinylib-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tinylib\nVersion: 1.0\n",
        "tinylib-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*wheel, "tinylib-1.0.dist-info/RECORD"))
    with zipfile.ZipFile(folder / "tinylib-1.0-py3-none-any.whl", "w") as file:
        for name, text in {**wheel, "tinylib-1.0.dist-info/RECORD": record}.items():
            file.writestr(name, text)
    return folder


@pytest.fixture(scope="session")
def envs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the environments of these tests."""
    return tmp_path_factory.mktemp("envs")


@pytest.fixture(autouse=True)
def tiny(site: Path, envs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The registry knows ``tiny``; environments are made in a folder of the tests."""
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("HAMBENCH_ENVS", str(envs))
    forget()
    yield
    forget()


def forget() -> None:
    """Let the registry look for packages again."""
    for registry in (MODELS, ENVIRONMENTS):
        for name in ("entries", "_scan", "packages", "presets", "broken"):
            vars(registry).pop(name, None)


@pytest.fixture
def made() -> Environment:
    """The environment ``tiny``, made."""
    return make("tiny")


@pytest.fixture
def worker(site: Path) -> Path:
    """A script for it."""
    return site / "tinyplug" / "tiny" / "worker.py"


@pytest.fixture(scope="session")
def waters() -> list[Molecule]:
    """Three molecules with energies and forces."""
    train = load_task("water_mini").split("train")
    return [train[k] for k in range(3)]


@pytest.fixture
def describe(site: Path) -> Iterator[Callable[[str, str], None]]:
    """``describe(old, new)``: replace words of the description, for one test."""
    path = site / "tinyplug" / "environment" / "tiny.yaml"

    def change(old: str, new: str) -> None:
        assert old in DESCRIPTION
        path.write_text(DESCRIPTION.replace(old, new))
        forget()

    yield change
    path.write_text(DESCRIPTION)


@pytest.fixture
def require(site: Path) -> Iterator[Callable[[str], None]]:
    """``require(text)``: other requirements, for one test."""
    path = site / "tinyplug" / "tiny" / "requirements.txt"
    text = path.read_text()
    yield lambda other: path.write_text(other) and None
    path.write_text(text)
