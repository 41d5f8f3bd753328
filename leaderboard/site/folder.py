"""The folder of the site: pages are written one by one, and those of an older write removed."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

from hambench.files import atomic_write
from hambench.leaderboard.site.pages import FOLDERS, PAGE
from hambench.leaderboard.site.render import GENERATOR

INDEX: Final = "index.html"
"""The page to look at first."""

ASSETS: Final = "assets"

_HEAD = 512  # bytes at the beginning of a page, among which is its generator


class SiteFolder:
    """Writes files of a site; each is whole at any moment.

    Args:
        path: the folder; it is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: set[Path] = set()

    def page(self, name: str, text: str) -> Path:
        """Write a page at a path below the folder."""
        path = self.path / name
        self._write(path, text.encode())
        self._written.add(path)
        return path

    def assets(self) -> None:
        """Copy scripts and styles, with their licences, as the package has them."""
        source = resources.files("hambench.leaderboard.site").joinpath(ASSETS)
        for item in source.iterdir():
            self._write(self.path / ASSETS / item.name, item.read_bytes())

    def remove_older(self) -> None:
        """Remove pages of an older write that this one has not written, and nothing else."""
        for name in FOLDERS.values():
            for path in (self.path / name).glob("*.html"):
                if path not in self._written and self._is_page(path):
                    path.unlink(missing_ok=True)

    def beside(self, pattern: str) -> tuple[str, ...]:
        """Paths of files that other formats left, below the folder."""
        found = (path.relative_to(self.path).as_posix() for path in self.path.glob(pattern))
        return tuple(sorted(found))

    def _write(self, path: Path, content: bytes) -> None:
        """Write a file unless it is there already; the disk is not waited for."""
        try:
            if path.read_bytes() == content:
                return
        except OSError:
            pass  # there is none; whatever else is wrong, writing says
        with atomic_write(path, "wb", sync=False) as file:
            file.write(content)

    def _is_page(self, path: Path) -> bool:
        """Whether a file is called like a page of ours, and says that it is one."""
        if not PAGE.fullmatch(path.relative_to(self.path).as_posix()) or path.is_symlink():
            return False
        try:
            with open(path, "rb") as file:
                return f'content="{GENERATOR}"'.encode() in file.read(_HEAD)
        except OSError:
            return False
