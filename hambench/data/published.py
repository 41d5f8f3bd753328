"""`PublishedTask`: a task on files of others, which are verified before they are used."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hambench.data import manifest
from hambench.data.conventions import Conventions
from hambench.data.location import GENERATED
from hambench.data.manifest import Manifest
from hambench.data.rows import Rows
from hambench.data.store import Store
from hambench.data.task import Task
from hambench.errors import DataError


class PublishedTask(Task):
    """A task whose files were made by others; a subclass names their reader (`read`).

    A file serves once `hambench data verify` found it to be as stated. Labels of our own serve
    too, see `hambench.data.task.Task`.
    """

    @abstractmethod
    def read(self, path: Path, conventions: Conventions | None = None) -> Rows:
        """All rows of a published file.

        Args:
            path: the file.
            conventions: what verification found; None: those the format is known to have.
        """

    def open(self, path: Path) -> Rows:
        """All rows of a verified file, or of a `Store` of our own.

        Raises:
            DataError: it is corrupt, foreign, of another theory, or was not verified.
        """
        if Store.recognises(path):
            return self._store(path)
        return self.read(path, self._manifest(path).conventions)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over version, splits and what verification found in their files.

        The splits are those of the files that every run needs; of each, the ids of all rows and
        the energies joined to them. Of the content of published files the sample that was
        verified stands for all: reading 277 GB before every run serves nobody.
        """
        if self.source == GENERATED:
            return super().fingerprint
        digest = hashlib.sha256(f"{self.name} {self.version} {self.spec.variant}".encode())
        for name in self._fingerprinted():
            ids = self.splits[name]
            digest.update("\n".join(["", name, *ids]).encode())
            if self.energies is not None:
                energies = self._joined_energies
                digest.update(np.array([energies.get(row, np.nan) for row in ids], "<f8").tobytes())
        for path in self._needed():
            found = self._manifest(path)
            digest.update(f"\n{path.stat().st_size} {found.rows} {found.sha256}".encode())
        return digest.hexdigest()

    def unverified(self) -> list[tuple[Path, Rows]]:
        """The files that are here, each with its rows as the format is known to be.

        Raises:
            DataError: there are none, or one is corrupt or foreign.
        """
        if self.source == GENERATED or not self.location.present:
            return super().unverified()
        found = []
        for path in self.location.present:
            rows = self.read(path)
            self.check_release(path, rows)
            found.append((path, rows))
        return found

    def files(self) -> list[dict[str, Any]]:
        """The files that are here, each with what verification found."""
        if self.source == GENERATED:
            return super().files()
        return [about(path) for path in self.location.present]

    def _manifest(self, path: Path) -> Manifest:
        return required(path, self.name, path if len(self.spec.files) == 1 else path.parent)

    def _needed(self) -> list[Path]:
        splits = self.spec.splits
        return list(dict.fromkeys(self.location.of(splits[role].of) for role in self.spec.roles))


def required(path: Path, task: str, given: Path) -> Manifest:
    """The manifest of a file; DataError, with what to do, where it was not verified.

    Args:
        path: the file.
        task: that it is for.
        given: what ``data=`` of that task names: the file, or the folder of several.
    """
    found = manifest.find(path)
    if found is None:
        raise DataError(
            f"{path} was not verified, or changed since; do it once: hambench data verify {task} "
            f"data={given}"
        )
    return found


def about(path: Path) -> dict[str, Any]:
    """What is known of a file and, where it was verified, what was found in it."""
    known: dict[str, Any] = {"file": path.name, "bytes": path.stat().st_size}
    found = manifest.find(path)
    if found is None:
        return known | {"verified": False}
    return known | {
        "verified": True,
        "rows": found.rows,
        "unit": found.unit,
        "order": found.order,
        "sha256_of_sample": found.sha256,
        "residuals": {name: check.residual for name, check in found.checks.items()},
    }
