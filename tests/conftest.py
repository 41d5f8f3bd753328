"""Shared by all tests: one thread per process, fixed seeds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # also of the processes that tests start

import numpy as np
import pytest
import torch
from private_cluster import PrivateCluster, missing

from hambench.registry import MODELS, RECIPES

torch.set_num_threads(1)

# In the background of a shell, or under nohup, processes started by tests would ignore these too.
for _number, _handler in {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGHUP: signal.SIG_DFL,
}.items():
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of few tests first: theirs are the long ones, and none of these is to end alone."""
    sizes = Counter(item.path for item in items)
    items.sort(key=lambda item: sizes[item.path])


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Again before each test: libraries, such as those of UMAP, set what torch reads too."""
    torch.set_num_threads(1)


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator, the same in every test."""
    return np.random.default_rng(20260101)


@pytest.fixture(scope="session")
def slurm_installed() -> None:
    """Skips a test without SLURM.

    HAMBENCH_TEST_SLURM=0 skips it anyhow; with =1 it is an error that SLURM is not installed.
    """
    wanted = os.environ.get("HAMBENCH_TEST_SLURM", "")
    if wanted == "0":
        pytest.skip("HAMBENCH_TEST_SLURM=0")
    if (lacking := missing()) and wanted != "1":
        pytest.skip(f"needs SLURM, {lacking[0]} is missing: apt-get install slurm-wlm munge")


@pytest.fixture(scope="session")
def private_cluster(slurm_installed: None) -> Iterator[PrivateCluster]:
    """A SLURM cluster of this session's own, never that of a site; an error where it stays down."""
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))  # sockets have short paths
    try:
        with PrivateCluster(folder) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def slurm(
    private_cluster: PrivateCluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PrivateCluster]:
    """The cluster, which sbatch and its like in this process talk to; it is empty afterwards."""
    for name in os.environ.keys() - private_cluster.environment.keys():
        monkeypatch.delenv(name)
    for name, value in private_cluster.environment.items():
        monkeypatch.setenv(name, value)
    yield private_cluster
    private_cluster.cancel_all()


@pytest.fixture(scope="session")
def toy_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages with the plug-in of tests/plugin (model ``toy``) in it."""
    base = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(Path(__file__).parent / "plugin", base / "source")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(base / "site"), str(source)], check=True)
    return base / "site"


@pytest.fixture
def toy(toy_site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of the plug-in's model, which the registry of this process knows for one test."""
    monkeypatch.syspath_prepend(str(toy_site))
    _forget()
    yield "toy"
    _forget()


@pytest.fixture
def toy_jobs(
    toy: str, toy_site: Path, slurm: PrivateCluster, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The plug-in's model, which jobs on the private cluster know too."""
    monkeypatch.setenv("PYTHONPATH", str(toy_site), prepend=os.pathsep)  # of a checkout, too
    return toy


def _forget() -> None:
    """Let the registry look for plug-ins again."""
    for registry in (MODELS, RECIPES):
        for name in ("folders", "entries", "_scan", "presets", "broken"):
            vars(registry).pop(name, None)
