"""Who may know whom: the arrows of the README's layout, kept by reading every import."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("hambench", "helm", "tasks", "baselines", "leaderboard")

BASE = {"errors", "units", "files", "harmonics", "hdf5", "migrations", "settings"}
"""Small modules that everybody may use and that use only each other."""

ARROWS: dict[str, set[str]] = {
    **{name: set() for name in BASE},
    "chem": set(),
    "o3": set(),
    "results": set(),
    "provenance": {"results"},
    "profiling": set(),
    "data": {"chem"},
    "model": {"data", "chem", "energy_model"},
    "unused": set(),
    "losses": {"model", "data"},
    "energy_model": {"model", "losses", "data", "chem"},
    "learn": {"model", "losses", "energy_model", "data", "chem"},
    "scoring": {"chem"},
    "presetfile": set(),
    "modelfolder": {"presetfile"},
    "registry": {"modelfolder", "presetfile", "data"},
    "domain": {"results", "data", "chem"},
    "models": {"registry", "model", "energy_model", "external", "chem"},
    "environments": {"registry"},
    "external": {"environments", "learn", "chem"},
    "configs": set(),
    "config": {"registry", "learn"},
    "compose": {"config", "registry", "learn"},
    "reproduce": {"compose", "config"},
    "rundir": {"config", "results", "scoring"},
    "cell": {
        "registry", "models", "config", "data", "model", "energy_model", "external", "learn",
        "scoring", "chem",
    },
    "prediction": {
        "cell", "rundir", "data", "external", "learn", "model", "results", "scoring", "chem",
    },
    "evaluation": {
        "cell", "prediction", "config", "rundir", "data", "learn", "model", "results", "scoring",
        "chem",
    },
    "rescore": {"registry", "cell", "config", "data", "scoring", "chem"},
    "submission": {
        "leaderboard", "registry", "cell", "compose", "reproduce", "config", "prediction", "domain",
        "provenance", "rescore", "rundir", "data", "results", "scoring",
    },
    "cost": {"cell", "data", "external", "learn", "model", "profiling", "results", "chem"},
    "pretraining": {
        "registry", "cell", "config", "rundir", "data", "model", "energy_model", "learn", "results",
    },
    "experiment": {
        "registry", "reproduce", "cell", "cost", "prediction", "pretraining", "provenance",
        "config", "rundir", "data", "model", "external", "learn", "scoring", "results", "domain",
        "chem",
    },
    "launch": {
        "experiment",
        "cell", "pretraining", "config", "compose", "rundir", "models", "external", "data", "learn",
        "scoring", "results", "profiling",
    },
    "exported": {"results", "rundir"},
    "model_card": {"trained", "energy_model", "results", "scoring", "chem"},
    "export": {
        "exported", "model_card", "trained", "config", "rundir", "learn", "results", "chem",
    },
    "trained": {
        "exported", "models", "cell", "config", "rundir", "data", "model", "learn", "scoring",
    },
    "inference": {
        "trained", "cell", "domain", "registry", "rundir", "data", "model", "energy_model", "learn",
        "results", "chem",
    },
    "analysis": {"scoring", "chem"},
    "embedding": {
        "analysis", "trained", "cell", "config", "rundir", "data", "model", "learn", "results",
        "chem",
    },
    "ase_calculator": {
        "trained", "energy_model", "data", "learn", "model", "results", "chem",
    },
    "doctor": {"registry", "environments", "data"},
    "bench": {
        "registry", "models", "cell", "compose", "model", "learn", "data", "chem", "o3",
        "profiling", "provenance",
    },
    "leaderboard": {"results", "scoring"},
    "tasks": {"chem", "data"},
    "helm": {"chem", "o3", "data", "model", "losses", "energy_model", "unused"},
    "baselines": {"chem", "o3", "data", "model", "losses", "unused", "energy_model", "external"},
    "__main__": {"cli"},
}  # fmt: skip
ARROWS["cli"] = set(ARROWS) - {"tasks", "helm", "baselines", "__main__"}
ARROWS["__init__"] = ARROWS["cli"]  # the public names, lazily


def sources() -> list[Path]:
    """All Python files of the package."""
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def room(path: Path) -> str:
    """Room of a source file: helm/heads.py is in helm, hambench/chem/dft.py in chem."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] != "hambench" else parts[1]


def imports(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """Dotted modules a file imports, wherever in it; ``from hambench import a`` is hambench.a."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if module == "hambench":
                yield from ((f"hambench.{alias.name}", node) for alias in node.names)
            else:
                yield module, node


def known_rooms() -> set[str]:
    return {room(path) for path in sources()}


def test_every_room_has_its_arrows():
    assert known_rooms() <= set(ARROWS)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_arrows(path: Path):
    mine = room(path)
    allowed = ARROWS[mine] | BASE | {mine}
    for module, node in imports(path):
        where = f"{path.relative_to(ROOT)}:{node.lineno} imports {module}"
        assert not module.startswith("."), f"{where}; import absolutely, through hambench."
        head, _, rest = module.partition(".")
        assert head not in FOLDERS[1:], f"{where}; say hambench.{head}"
        if head != "hambench" or not rest:
            continue
        target = rest.partition(".")[0]
        assert target not in ("hambench", "tests"), f"{where}, a second copy of a module"
        if target in ARROWS:
            assert target in allowed, f"{where}; {mine} may know {sorted(ARROWS[mine])} alone"


def test_pyscf_has_one_door():
    for path in sources():
        module_level = ast.parse(path.read_text("utf-8")).body
        for module, node in imports(path):
            if module.partition(".")[0] == "pyscf":
                assert path == ROOT / "hambench" / "chem" / "engine.py"
                assert node not in module_level, f"line {node.lineno} must stand in a function"


def test_tests_import_through_the_package_too():
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for module, _ in imports(path):
            assert module.partition(".")[0] not in FOLDERS[1:], path
            assert not module.startswith(("hambench.hambench", "hambench.tests")), path


WITHOUT = """
import sys
from importlib import metadata

blocked = sys.argv.pop(1).split(",")
sys.modules.update(dict.fromkeys(blocked))
installed = metadata.Distribution.from_name

def from_name(name):
    if name in blocked:
        raise metadata.PackageNotFoundError(name)
    return installed(name)

metadata.Distribution.from_name = staticmethod(from_name)
from hambench.cli import main
main()
"""


def run_without(blocked: tuple[str, ...], *words: str, cwd: Path) -> subprocess.CompletedProcess:
    """``hambench WORDS`` on a machine without ``blocked``."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, ",".join(blocked), *words],
        cwd=cwd, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [("--help",), ("list",), ("list", "models", "--json"), ("run", "--help"), ("data", "--help"),
     ("--version",), ("completion", "bash"), ("run", "task=water_mini", "model=helm", "--cfg")],
    ids=" ".join,
)  # fmt: skip
def test_light_commands_need_no_torch(words: tuple[str, ...], tmp_path: Path):
    heavy = ("torch", "lightning_fabric", "e3nn", "pyscf", "pandas")
    done = run_without(heavy, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_training_needs_no_pyscf_submitit_or_plotting(tmp_path: Path):
    blocked = ("pyscf", "submitit", "pandas", "seaborn", "matplotlib", "tensorboard", "wandb")
    words = ["run", "task=water_mini", "model=helm_small", "max_steps=2", "root=runs"]
    small = ("channels=4", "layers=1", "gaussians=8")
    words += [f"model.hyperparameters.{word}" for word in small]
    done = run_without(blocked, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("runs/water_mini/helm_small/seed0-*/result.json"))) == 1
    again = run_without(blocked, "leaderboard", "runs", "--out", "board", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "board" / "index.html").is_file()


def test_the_public_names_are_lazy_and_all_there(tmp_path: Path):
    code = (
        "import sys, hambench\n"
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert all(getattr(hambench, name) for name in hambench.__all__)\n"
        "assert set(hambench.__all__) <= set(dir(hambench))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path)
