"""Make build/typecheck/hambench, where type checkers find helm/, tasks/ ... inside the package.

Static tools do not run the hook in hambench/__init__.py; a tree of links shows them what it does.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / "build" / "typecheck"


def main() -> None:
    """Make the tree anew."""
    shutil.rmtree(TREE, ignore_errors=True)
    package = TREE / "hambench"
    package.mkdir(parents=True)
    for entry in (ROOT / "hambench").iterdir():
        if entry.name != "__pycache__":
            (package / entry.name).symlink_to(entry)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    for name, folder in settings["tool"]["setuptools"]["package-dir"].items():
        if "." in name:
            (package / name.removeprefix("hambench.")).symlink_to(ROOT / folder)


if __name__ == "__main__":
    main()
