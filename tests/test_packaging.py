"""The package as it is installed: declared folders and files, entry points, doctests, the wheel."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import pytest

import hambench

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
TOOL = SETTINGS["tool"]["setuptools"]
FOLDERS = {ROOT / folder: name for name, folder in TOOL["package-dir"].items()}


def git_files(*folders: str) -> list[str]:
    """Files that are, or would be, in the repository."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


RESULTS = ROOT / "leaderboard" / "results"
TABLE = ROOT / "leaderboard" / "README.md"
"""What runs gave, and the table made of it; of the checkout, not of the package."""


def package_files() -> list[tuple[str, Path]]:
    """(package, file) of every file that git knows under the mapped folders, but for results."""
    found = []
    for name in git_files(*TOOL["package-dir"].values()):
        path = ROOT / name
        if RESULTS in path.parents or path == TABLE:
            continue
        folder = path.parent
        while not (folder / "__init__.py").exists():
            folder = folder.parent
        top = next(f for f in (folder, *folder.parents) if f in FOLDERS)
        package = ".".join([FOLDERS[top], *folder.relative_to(top).parts])
        found.append((package, path))
    return found


def package_folder(package: str) -> Path:
    top = max(
        (name for name in TOOL["package-dir"] if f"{package}.".startswith(f"{name}.")), key=len
    )
    inside = package.removeprefix(top).strip(".").replace(".", "/")
    return ROOT / TOOL["package-dir"][top] / inside


def test_packages_are_the_folders_with_an_init():
    found = {package for package, path in package_files() if path.name == "__init__.py"}
    assert sorted(found) == TOOL["packages"]


def test_every_data_file_is_declared_and_every_pattern_used():
    patterns = {(p, pattern) for p, some in TOOL["package-data"].items() for pattern in some}
    used = set()
    for package, path in package_files():
        if path.suffix == ".py":
            continue
        name = path.relative_to(package_folder(package)).as_posix()
        match = {(p, q) for p, q in patterns if p == package and fnmatch(name, q)}
        assert match, f"{path.relative_to(ROOT)} is in no package-data pattern of {package}"
        used |= match
    assert used == patterns


def test_version_is_said_once():
    assert SETTINGS["project"]["version"] == hambench.__version__ == metadata.version("hambench")
    assert f"## [{hambench.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize("group", ["hambench.models", "hambench.tasks"])
def test_entry_points_load_and_are_what_their_package_exports(group: str):
    declared = SETTINGS["project"]["entry-points"][group]
    points = [p for p in metadata.entry_points(group=group) if p.dist and p.dist.name == "hambench"]
    assert {p.name: p.value for p in points} == declared
    for point in points:
        module = importlib.import_module(point.module)
        assert point.load() is getattr(module, point.attr)


def test_every_dependency_has_an_exact_version_in_the_constraints():
    text = (ROOT / "constraints.txt").read_text("utf-8")
    exact = {normal(name) for name in re.findall(r"^([\w.-]+)==[\w.+]+$", text, re.MULTILINE)}
    wanted = list(SETTINGS["project"]["dependencies"])
    for extra in SETTINGS["project"]["optional-dependencies"].values():
        wanted += extra
    names = {normal(re.split(r"[\[<>=~!;]", line)[0]) for line in wanted}
    assert names - {"hambench"} <= exact


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def modules() -> list[str]:
    found = pkgutil.walk_packages(hambench.__path__[:1], "hambench.")
    names = [info.name for info in found if info.name != "hambench.__main__"]
    for mapped in TOOL["package-dir"]:
        if mapped != "hambench":
            package = importlib.import_module(mapped)
            names += [
                mapped,
                *(i.name for i in pkgutil.walk_packages(package.__path__, f"{mapped}.")),
            ]
    return sorted(names)


@pytest.mark.parametrize("name", modules())
def test_doctests(name: str):
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "triton":  # which comes with builds of torch for CUDA alone
            raise
        pytest.skip("triton is not installed")
    assert doctest.testmod(module).failed == 0


def test_type_checkers_see_the_whole_package(tmp_path: Path):
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for folder in TOOL["package-dir"].values():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    for _ in range(2):
        subprocess.run([sys.executable, tmp_path / "scripts" / "link_tree.py"], check=True)
    tree = tmp_path / "build" / "typecheck" / "hambench"
    names = {name.removeprefix("hambench.") for name in TOOL["package-dir"] if "." in name}
    assert {path.name for path in tree.iterdir()} == names | {"__init__.py"}
    assert all((tree / name / "__init__.py").is_file() for name in names)


@pytest.mark.slow
def test_the_wheel_holds_every_file_and_works_alone(tmp_path: Path):
    source = tmp_path / "source"
    for name in git_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(source)], check=True, capture_output=True)  # by way of the sdist
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        (Path(*package.split(".")) / path.relative_to(package_folder(package))).as_posix()
        for package, path in package_files()
    }
    assert held == expected

    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(wheel)], check=True)
    code = (
        "import hambench, hambench.helm, hambench.tasks, pathlib\n"
        f"site = pathlib.Path({str(site)!r})\n"
        "assert list(hambench.__path__) == [str(site / 'hambench')]\n"
        "task = hambench.load_task('water_mini')\n"
        "assert len(task.split('test')) == 100 and site in task.path.parents\n"
        "assert hambench.build_model('helm_small', task.basis).count_parameters() > 1000\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=tmp_path, env={"PYTHONPATH": str(site)}
    )
