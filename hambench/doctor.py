"""What this machine has, and what is missing for what: `hambench doctor`."""

from __future__ import annotations

import importlib
import platform
import shutil
import subprocess
from importlib import metadata
from typing import NamedTuple

from hambench.data.workers import cores
from hambench.errors import HambenchError


class Finding(NamedTuple):
    """One part of the installation.

    Attributes:
        name: what was looked for.
        ok: whether it is there and works.
        found: version or description; why not, where it is missing.
        mend: what it is needed for, and the command that gets it; empty where it is there.
    """

    name: str
    ok: bool
    found: str
    mend: str


def examine() -> list[Finding]:
    """Look at everything; imports torch and asks for its devices."""
    return [
        Finding("python", True, f"{platform.python_version()}, {cores()} cores", ""),
        _library("torch", "training and prediction: pip install torch"),
        _gpu(),
        _library("pyscf", "making labels, energies of H: pip install 'hambench[pyscf]'"),
        _library("rdkit", "geometries from SMILES: pip install 'hambench[smiles]'"),
        _library("ase", "reading ASE databases: pip install 'hambench[ase]'"),
        _library("pandas", "leaderboard tables and plots: pip install 'hambench[plots]'"),
        _library("seaborn", "plots: pip install 'hambench[plots]'"),
        _library("umap", "hambench embed: pip install 'hambench[embeddings]'", "umap-learn"),
        _library("submitit", "jobs on a cluster: pip install 'hambench[slurm]'"),
        _slurm(),
        _library("tensorboard", "tracker=tensorboard: pip install 'hambench[trackers]'"),
        _library("wandb", "tracker=wandb: pip install 'hambench[trackers]'"),
        *_plugins(),
        *_environments(),
        *_data(),
    ]


def _library(name: str, mend: str, distribution: str | None = None) -> Finding:
    """A library that can be imported, with its version; installed under its name or another."""
    try:
        importlib.import_module(name)
        return Finding(name, True, metadata.version(distribution or name), "")
    except ImportError as error:
        return Finding(name, False, str(error), mend)
    except Exception as error:  # a broken installation raises anything
        return Finding(name, False, f"{type(error).__name__}: {error}", mend)


def _gpu() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("gpu", False, "no torch", "")
    if not torch.cuda.is_available():
        build = f"torch for CUDA {torch.version.cuda}" if torch.version.cuda else "torch for CPUs"
        mend = "full-size models in hours, not weeks; a CUDA device, its driver and a CUDA torch"
        return Finding("gpu", False, f"no CUDA device ({build})", mend)
    names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    found = ", ".join(f"{p.name} ({p.total_memory / 2**30:.0f} GiB)" for p in names)
    return Finding("gpu", True, f"{found}, CUDA {torch.version.cuda}", "")


def _slurm() -> Finding:
    program = shutil.which("sbatch")
    if program is None:
        return Finding("slurm", False, "no sbatch on the PATH", "jobs on a cluster: a login node")
    try:
        asked = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("slurm", False, f"sbatch does not answer: {error}", "ask the administrator")
    return Finding("slurm", asked.returncode == 0, asked.stdout.strip() or asked.stderr.strip(), "")


def _plugins() -> list[Finding]:
    """Packages that provide models and tasks; broken ones say why."""
    from hambench import registry

    try:
        kinds = (registry.MODELS, registry.TASKS, registry.DOWNLOADS)
        broken = dict.fromkeys(bad for kind in kinds for bad in kind.broken)
        found = ", ".join(f"{name} {version}" for name, version in registry.plugins().items())
    except HambenchError as error:
        return [Finding("plug-ins", False, str(error), "")]
    mend = "" if found else "any task or model: pip install -e . in the folder of hambench"
    return [
        Finding("plug-ins", bool(found), found or "none", mend),
        *(Finding(b.name, False, f"{b.origin}: {b.reason}", "mend the package") for b in broken),
    ]


def _environments() -> list[Finding]:
    """Environments that models run in by themselves."""
    from hambench.environments import environment, names

    findings = []
    for name in names():
        try:
            found = environment(name)
        except HambenchError as error:
            findings.append(Finding(f"env {name}", False, str(error), "mend the package"))
            continue
        ready = found.state == "ready"
        mend = "" if ready else f"{found.title}: hambench env make {name}"
        findings.append(Finding(f"env {name}", ready, found.about, mend))
    return findings


def _data() -> list[Finding]:
    """Data of every task."""
    from hambench import registry

    findings = []
    for name in registry.task_names():
        try:
            task = registry.load_task(name)
            about = task.describe()
        except HambenchError as error:
            findings.append(Finding(f"data {name}", False, str(error), "mend the package"))
            continue
        mend = "" if task.available else f"running the task: {about['obtain']}"
        findings.append(Finding(f"data {name}", task.available, str(task.path), mend))
    return findings
