"""Make the folder that goes to a GPU machine without a network: packages, rows, initial guesses.

    python benchmarks/gpu/pack.py [ENTRY...] [--limit 64]

Writes ``build/gpu``: ``site`` has the packages that such a machine lacks, unpacked for its Python,
and the entry points of hambench; ``data`` the rows and initial guesses of the tasks that the
entries (by default all) train on. It fails where this and the source tree together exceed the
limit in MiB. Rows are taken from where the tasks find them (``HAMBENCH_DATA``) or from
``--data``; a task whose data are not here is named and left out.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from entries import PACKED, ROOT, Scale, queue
from records import COMMIT
from rows import pack_guesses, pack_rows

from hambench.cell import open_task
from hambench.compose import compose
from hambench.config import RunConfig
from hambench.errors import HambenchError
from hambench.files import atomic_folder, atomic_write
from hambench.registry import TASKS

PACKAGES: Final = (
    "annotated-types", "antlr4-python3-runtime", "hydra-core", "lightning-fabric",
    "lightning-utilities", "omegaconf",
    "pydantic", "pydantic_core", "typing-inspection",
)  # fmt: skip
"""What hambench needs besides what comes with torch, torch-geometric, e3nn and h5py; of the
versions in ``constraints.txt``."""

PYTHON: Final = "3.12"
PLATFORMS: Final = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")

_SOURCE_ONLY: Final = ("antlr4-python3-runtime",)  # pure Python, built here
_MIB: Final = 2**20


def main() -> None:
    """Pack, and say how large everything is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("entries", nargs="*", metavar="ENTRY")
    parser.add_argument("--out", type=Path, default=PACKED)
    parser.add_argument("--limit", type=float, default=64.0, help="MiB of source tree and folder")
    parser.add_argument(
        "--data", action="append", default=[], metavar="TASK=FILE", help="where rows of a task are"
    )
    asked = parser.parse_args()
    files = {task: Path(file) for task, _, file in (one.partition("=") for one in asked.data)}
    for task, path in files.items():
        if task not in TASKS.names():
            sys.exit(f"error: --data {task}=FILE: there is no task '{task}'")
        if not path.exists() or path == Path():
            sys.exit(f"error: --data {task}={path}: no such file; give TASK=FILE")
    try:
        pack_data(asked.entries, asked.out / "data", files)
        pack_site(asked.out / "site")
    except HambenchError as error:
        sys.exit(f"error: {error}")
    with atomic_write(asked.out / COMMIT) as file:
        file.write(_commit())
    sys.exit(check_size(asked.out, asked.limit))


def pack_data(names: Sequence[str], data: Path, files: dict[str, Path]) -> None:
    """The rows and initial guesses that entries need.

    Args:
        names: of entries; none: of all.
        data: the folder.
        files: of tasks by name, where they are not where the task looks.

    Raises:
        HambenchError: as `pack_rows` raises; and where PySCF, which computes guesses, is missing.
    """
    data.mkdir(parents=True, exist_ok=True)
    for config in _trainings(names):
        name, model = config.task["name"], config.model["name"]
        here = config.model_copy(update={"data": files.get(name)})
        task = open_task(here)
        if not task.available:
            print(f"{name}, {model}: left out, its data are not here; {task.obtain}")
            continue
        said = pack_rows(task, data)
        guesses = pack_guesses(here, task, data)
        print(f"{name}, {model}: {said}" + (f", {guesses} initial guesses" if guesses else ""))


def _trainings(names: Sequence[str]) -> Iterator[RunConfig]:
    """The cells that entries train, and those before them; one of each task and model."""
    known = {entry.name: entry for entry in queue(Scale("cpu", Path(), Path()))}
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"error: no entry '{unknown[0]}'; run.py --list shows them")
    found: dict[tuple[str, str], RunConfig] = {}
    for name in names or known:
        for command in known[name].commands:
            if command[:2] == ("hambench", "run"):
                config = compose(command[2:])
                for one in filter(None, (config.pretraining, config)):
                    found.setdefault((one.task["name"], one.model["name"]), one)
    yield from found.values()


def pack_site(site: Path) -> None:
    """Packages for the Python there, and what makes hambench known to itself, uninstalled."""
    with tempfile.TemporaryDirectory() as wheels, atomic_folder(site) as new:
        _pip("wheel", "--no-deps", "--wheel-dir", wheels, *_pinned(_SOURCE_ONLY))
        platforms = [word for name in PLATFORMS for word in ("--platform", name)]
        _pip(
            "install", "--no-deps", "--no-compile", "--target", str(new),
            "--only-binary=:all:", "--find-links", wheels, "--python-version", PYTHON,
            "--implementation", "cp", *platforms, *_pinned(PACKAGES),
        )  # fmt: skip
        about = _metadata(Path(wheels))
        shutil.move(about, new / about.name)


def _metadata(folder: Path) -> Path:
    """The metadata of hambench, which name its entry points, as an installation would have them."""
    made = "import sys, setuptools.build_meta as b; b.prepare_metadata_for_build_wheel(sys.argv[1])"
    empty = folder / "metadata"
    empty.mkdir()
    command = [sys.executable, "-c", made, str(empty)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(empty.glob("*.dist-info"))


def _pinned(names: Sequence[str]) -> list[str]:
    """Names with their versions."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    versions = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return [f"{name}=={versions[name]}" for name in names]


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    if subprocess.run(command).returncode:
        sys.exit("error: pip could not fetch the packages (above is why)")


def _commit() -> str:
    """The commit of the source tree; empty where it has changes that are in none."""
    if _git("status", "--porcelain"):
        print("the source tree has changes that are in no commit: results will state none")
        return ""
    return _git("rev-parse", "HEAD").strip()


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
    ).stdout


def check_size(packed: Path, limit: float) -> str | None:
    """Print the sizes; what is wrong where they exceed the limit (MiB) together."""
    listed = _git("ls-files", "-co", "--exclude-standard", "-z").split("\0")
    tree = [ROOT / name for name in listed if name]
    parts = {"source tree": tree} | {
        path.name: list(path.rglob("*")) if path.is_dir() else [path]
        for path in sorted(packed.iterdir())
        if path.name in ("site", "data", COMMIT)
    }
    total = 0.0
    for name, files in parts.items():
        size = sum(path.stat().st_size for path in files if path.is_file()) / _MIB
        print(f"{name:12} {size:6.1f} MiB")
        total += size
    print(f"{'together':12} {total:6.1f} MiB of {limit:g}")
    if total > limit:
        return f"error: {total - limit:.1f} MiB too much; name fewer entries"
    return None


if __name__ == "__main__":
    main()
