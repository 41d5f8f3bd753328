"""Environments of their own for models whose dependencies fit into no other's.

A package that brings such a model describes its environment in ``environment/NAME.yaml``, beside
its ``model/``::

    name: mynet
    title: MyNet, which needs an old e3nn
    requirements: mynet/requirements.txt # pinned; from the folder of the package
    torch: torch==2.13.0 # words for pip; `hambench env make mynet --torch WORDS` replaces them
    imports: [mynet.train] # what must be importable when all is installed

``hambench env make mynet`` makes it: a virtual environment in ``HAMBENCH_ENVS``. It counts as made
once its marker is there, which is written last and holds the hash of the requirements.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hambench.errors import ConfigError, RunError
from hambench.files import alone, atomic_write
from hambench.registry import ENVIRONMENTS

MARKER = "hambench-environment.json"

State = Literal["ready", "missing", "unfinished", "outdated"]


class _Description(BaseModel):
    """The YAML file of an environment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str = ""
    requirements: str
    torch: str = ""
    imports: Annotated[list[str], Field(min_length=1)]


@dataclass(frozen=True)
class Environment:
    """An environment that is, or can be, made.

    Attributes:
        name, title: as listed.
        requirements: file with its pinned packages.
        torch: words for pip that get torch before all else; empty where it needs none.
        imports: modules that must be importable in it.
        folder: where it is, or would be.
    """

    name: str
    title: str
    requirements: Path
    torch: str
    imports: tuple[str, ...]
    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def log(self) -> Path:
        """What pip said when it was made."""
        return self.folder.parent / f"{self.name}.log"

    @property
    def state(self) -> State:
        """Whether it can be used, and what is in the way."""
        if not self.folder.exists():
            return "missing"
        marker = self._marker()
        if marker is None:
            return "unfinished"
        return "ready" if marker.get("requirements") == self._hash() else "outdated"

    @property
    def about(self) -> str:
        """One line: what was installed, or what its state means."""
        match self.state:
            case "ready":
                versions = self.versions
                torch = f"torch {versions['torch']}, " if "torch" in versions else ""
                return f"{self.folder}, {torch}Python {versions['python']}"
            case "missing":
                return "not made"
            case "unfinished":
                return f"{self.folder} is half made"
        return f"{self.folder} was made with other requirements"

    @property
    def versions(self) -> dict[str, str]:
        """Versions of its Python, torch, and the packages its requirements name."""
        marker = self._marker() or {}
        return {"python": marker["python"], **marker["packages"]} if marker else {}

    def require(self) -> Path:
        """Its interpreter.

        Raises:
            ConfigError: it is not there, half made, or made with other requirements.
        """
        make = f"hambench env make {self.name}"
        match self.state:
            case "ready":
                return self.python
            case "missing":
                what = f"make it with: {make}"
            case "unfinished":
                what = f"{self.folder} is half made; finish it with: {make}"
            case "outdated":
                what = f"{self.folder} was made with other requirements; renew it with: {make}"
        raise ConfigError(f"model '{self.name}' runs in an environment of its own; {what}")

    def _marker(self) -> dict[str, Any] | None:
        try:
            found = json.loads((self.folder / MARKER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _hash(self) -> str:
        return hashlib.sha256(self.requirements.read_bytes()).hexdigest()


def names() -> list[str]:
    """Environments that installed packages describe."""
    return ENVIRONMENTS.names


def environment(name: str) -> Environment:
    """The environment called ``name``.

    Raises:
        RegistryError: no package describes it.
        ConfigError: its description is not as it should be.
    """
    preset = ENVIRONMENTS.preset(name)
    try:
        described = _Description.model_validate({"name": name, **preset.content})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{preset.path}: {key}: {first['msg']}; correct it") from error
    requirements = preset.path.parent.parent / described.requirements
    if not requirements.is_file():
        raise ConfigError(f"{preset.path} names requirements {requirements}, which is no file")
    return Environment(
        name=name,
        title=described.title,
        requirements=requirements,
        torch=described.torch,
        imports=tuple(described.imports),
        folder=root() / name,
    )


def root() -> Path:
    """The folder of all environments: ``HAMBENCH_ENVS``, or one in the user's home."""
    given = os.environ.get("HAMBENCH_ENVS")
    return Path(given) if given else Path.home() / ".local" / "share" / "hambench" / "envs"


def make(
    name: str, *, torch: str | None = None, say: Callable[[str], None] = lambda line: None
) -> Environment:
    """Make an environment; one that is ready stays as it is, any other is made anew.

    Args:
        name: see `names`.
        torch: words for pip instead of the description's, ``"torch==2.6.0 --index-url URL"``; an
            environment that is ready is made anew with them.
        say: gets the lines that pip prints.

    Raises:
        RegistryError: nobody describes it.
        RunError: something could not be installed, or another process is at it.
    """
    found = environment(name)
    with _alone(found):
        if found.state == "ready" and torch is None:
            return found
        _make(found, found.torch if torch is None else torch, say)
    return found


def remove(name: str) -> bool:
    """Remove an environment and its log; False where there was none.

    Raises:
        RegistryError: nobody describes it.
        RunError: another process is making it.
    """
    found = environment(name)
    with _alone(found):
        found.log.unlink(missing_ok=True)
        if not found.folder.exists():
            return False
        _check_ours(found.folder)
        (found.folder / MARKER).unlink(missing_ok=True)
        shutil.rmtree(found.folder)
    return True


def _make(found: Environment, torch: str, say: Callable[[str], None]) -> None:
    if found.folder.exists():
        _check_ours(found.folder)
        (found.folder / MARKER).unlink(missing_ok=True)
    say(f"virtual environment {found.folder}")
    with open(found.log, "w", encoding="utf-8") as log:
        try:
            venv.EnvBuilder(clear=True, symlinks=True, with_pip=True).create(found.folder)
        except (OSError, subprocess.CalledProcessError) as error:
            raise RunError(
                f"cannot make a virtual environment in {found.folder}: {error}; the interpreter "
                f"{sys.executable} needs its modules venv and ensurepip (on Debian: apt install "
                "python3-venv), the folder space and the right to write"
            ) from error
        pip = ["-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
        words = shlex.split(torch)
        for step in ([words] if words else []) + [["-r", str(found.requirements)]]:
            _run(found, [*pip, *step], log.write, say)
        say(f"importing {', '.join(found.imports)}")
        _run(found, ["-c", f"import {', '.join(found.imports)}"], log.write, say)
    marker = {
        "requirements": found._hash(),
        "python": platform.python_version(),
        "packages": _packages(found),
    }
    with atomic_write(found.folder / MARKER) as file:
        json.dump(marker, file, indent=2)


def _run(
    found: Environment,
    words: Sequence[str],
    write: Callable[[str], object],
    say: Callable[[str], None],
) -> None:
    """Run the environment's Python with these words; what it prints goes to the log and `say`."""
    write(f"$ python {shlex.join(words)}\n")
    last = ""
    with subprocess.Popen(
        [found.python, "-I", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                write(line)
                if line.strip():
                    last = line.strip()
                    say(last)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise RunError(
            f"environment '{found.name}' could not be made, `python {shlex.join(words)}` failed "
            f"with: {last:.200}; see {found.log}, then start again: hambench env make {found.name}"
        )


def _packages(found: Environment) -> dict[str, str]:
    """Versions of torch and of what the requirements name."""
    lines = found.requirements.read_text(encoding="utf-8").splitlines()
    named = {_plain(word[0]) for line in lines if (word := re.match(r"[\w.-]+", line))} | {"torch"}
    (site,) = found.folder.glob("lib/python*/site-packages")
    every = {d.name: d.version for d in metadata.distributions(path=[str(site)])}
    return {name: every[name] for name in sorted(every) if _plain(name) in named}


def _plain(name: str) -> str:
    """A distribution's name as packaging compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _check_ours(folder: Path) -> None:
    """Refuse to remove a folder that is no virtual environment; an empty one is none's."""
    if any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
        raise ConfigError(
            f"{folder} holds other files and no virtual environment; move it away, or set "
            "HAMBENCH_ENVS to another folder"
        )


def _alone(found: Environment) -> AbstractContextManager[None]:
    """Nobody else makes or removes this environment meanwhile."""
    return alone(
        found.folder.parent / f".{found.name}.lock",
        f"another process is making or removing environment '{found.name}'; wait for it",
    )
