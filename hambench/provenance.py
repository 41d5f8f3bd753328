"""Where a result comes from: code, libraries, machine, command."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path

from hambench.results import Provenance, now

LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "h5py",
    "e3nn",
    "torch-geometric",
    "lightning-fabric",
    "hydra-core",
    "omegaconf",
    "pydantic",
    "pyscf",
)
"""Distributions whose versions a result records (where they are installed)."""

COMMIT_VARIABLE = "HAMBENCH_COMMIT"
"""Environment variable with the commit of a source tree that was copied without its history."""


def provenance(started: datetime, restarts: int, plugins: dict[str, str]) -> Provenance:
    """Provenance of this process, with ``finished`` set to now.

    Args:
        started: first start of the run.
        restarts: how often it was started again.
        plugins: distribution -> version of the packages models and tasks come from.
    """
    import torch

    commit, dirty = _git(Path(__file__).resolve().parent.parent)
    return Provenance(
        package=_version("hambench") or "unknown",
        commit=commit,
        dirty=dirty,
        python=platform.python_version(),
        libraries={name: version for name in LIBRARIES if (version := _version(name))},
        plugins=plugins,
        cuda=torch.version.cuda,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        os=f"{platform.system()} {platform.release()}",
        command=command_line(sys.argv),
        restarts=restarts,
        started=started,
        finished=now(),
    )


def command_line(argv: list[str]) -> str:
    """``argv`` as one shell line, for others to see.

    Values of secrets are blanked, and of absolute paths the last name stays.
    """
    program = Path(argv[0]).name if argv else ""
    program = "python -m hambench" if program == "__main__.py" else program
    secret = re.compile(r"((?:token|password|secret|key)[\w.]*=).+", re.IGNORECASE)
    path = re.compile(r"(^|[=,\[])~?/(?:[^,\]:]*/)?(?=[^,\]:])")
    rest = shlex.join(path.sub(r"\1.../", secret.sub(r"\1***", word)) for word in argv[1:])
    return f"{program} {rest}".strip()


@cache
def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _git(root: Path) -> tuple[str | None, bool | None]:
    """Commit and dirtiness of the checkout at ``root``; of a copy without git, what is said."""
    if not (root / ".git").exists():
        said = os.environ.get(COMMIT_VARIABLE, "")
        return (said, None) if re.fullmatch("[0-9a-f]{40}", said) else (None, None)

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "-uno"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _cpu() -> str:
    """Model name of the processor, as far as the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1) if found else platform.processor() or platform.machine()
