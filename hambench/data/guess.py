"""Initial guesses that models learn beyond: computed once per molecule, kept beside the data.

A residual model predicts ``H - H_init``, H_init being the Fock matrix of PySCF's minao guess
density (SPHNet, arXiv 2502.01171; the density is that of a minimal basis projected onto the
orbital basis). Functional and basis are always those of the labels: with others the difference
would hold that of the two theories too.

A Fock matrix takes as long as a cycle of an SCF. All of them of one theory are in one SQLite
file in ``guesses``, in the folder of data files, by the content of their molecules: splits, seeds
and tasks share them. A matrix is there or it is not, whatever happens to the process that writes,
and several processes may read and write at once, which files of HDF5 do not allow. It is read when
it is asked for, so that no more than a few are in memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from hambench.chem import dft, engine
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.theory import Theory, is_known, of_labels
from hambench.chem.triangle import pack_triangle, unpack_triangle
from hambench.data.content import content_hash
from hambench.data.location import data_folder
from hambench.data.rows import Rows
from hambench.data.workers import cores, mapped
from hambench.errors import ConfigError, DataError, HambenchError, RunError
from hambench.files import explained
from hambench.hdf5 import short

FOLDER: Final = "guesses"
"""In the folder of data files."""

GuessName = Literal["none", "minao"]
"""What a model predicts beyond: nothing, or the Fock matrix of PySCF's minao guess."""

Given = str | Mapping[str, Any] | None
"""A level of theory as a hyperparameter: settings, a name in ``chem.theory.THEORIES``, or none."""

Computed = tuple[Molecule, NDArray[np.float64]]
"""A molecule, and the (nao (nao+1) / 2,) triangle of its guess in Eh."""

Shown = Callable[[Sequence[Any], str], Any]
"""Wraps a sequence with a progress display, as `hambench.model.Progress` does."""

_DECIDING: Final = ("xc", "basis", "fit", "grid_level", "nlc_grid_level")
"""Settings of a theory that change a Fock matrix of a given density."""
_KEPT_EVERY: Final = 1.0  # seconds between commits, each of which waits for the disk
_TOLD_EVERY: Final = 60.0  # seconds between log lines where there is no terminal
_PATIENCE: Final = 60.0  # seconds to wait for the commits of others
_PAGE: Final = 16384  # bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Guess:
    """Initial guesses at one level of theory; a small value that any process can use.

    Attributes:
        theory: of the labels; None: not known, so that asking for a guess is an error.
        owner: what learns beyond it, for messages.
    """

    theory: Theory | None
    owner: str = "an initial guess"

    def packed(self, molecule: Molecule) -> NDArray[np.float64]:
        """(nao (nao+1) / 2,) upper triangle in Eh, canonical order; computed where none is kept.

        Raises:
            ConfigError: the theory is not known; or the guess has to be computed, and PySCF is not
                installed or the molecule no closed shell.
            DataError: the file of guesses is damaged.
        """
        key, file = content_hash(molecule, ()), self._file
        found = file.find(key)
        if found is None:
            found = _computed(molecule, self._known)
            try:
                file.add([(key, found)])
            except HambenchError as error:
                logger.warning("an initial guess is not kept: %s", error)
        return found

    def matrix(self, molecule: Molecule) -> NDArray[np.float64]:
        """(nao, nao) canonical Fock matrix in Eh; see `packed`."""
        return unpack_triangle(self.packed(molecule))

    def residual(self, molecule: Molecule) -> Molecule:
        """The molecule with ``H - H_init`` in place of its Hamiltonian, for label statistics."""
        if molecule.hamiltonian is None:
            return molecule
        return replace(molecule, hamiltonian=molecule.hamiltonian - self.matrix(molecule))

    def missing(self, molecules: Sequence[Molecule]) -> list[int]:
        """Rows whose guesses are not kept; reads geometries alone."""
        with self._file.keys() as has:
            return [i for i in range(len(molecules)) if not has(_key(molecules, i))]

    def check(self, molecules: Sequence[Molecule]) -> None:
        """See whether guesses are there or can be computed; called before anything is written.

        Raises:
            ConfigError: the theory is not known; or some have to be computed without PySCF.
        """
        _ = self._known
        if not engine.is_installed() and (missing := self.missing(molecules)):
            raise ConfigError(
                f"{self.owner} learns beyond initial guesses, {len(missing)} of which have to be "
                "computed by PySCF, which is not installed; install it with: pip install "
                "'hambench[pyscf]'"
            )

    def complete(
        self,
        molecules: Sequence[Molecule],
        show: Shown | None = None,
        workers: int | None = None,
    ) -> int:
        """Compute and keep the guesses that are missing.

        What is done stays done: after an interruption the same call goes on. Processes that do the
        same at the same time share the work, each taking the next of its own random order that
        nobody has finished.

        Args:
            molecules: read by row, without their labels where the file allows that.
            show: progress display.
            workers: processes to compute with, once it proves worth their start; None: one for
                each core.

        Returns:
            How many were computed here.

        Raises:
            ConfigError: as `packed`.
            RunError: the file cannot be written, or a process died.
        """
        theory, file = self._known, self._file
        rows = self.missing(molecules)
        if not rows:
            return 0
        logger.info(
            "initial guesses: %d of %d to compute (%s/%s), kept in %s",
            len(rows), len(molecules), theory.xc, theory.basis, file.path,
        )  # fmt: skip
        order = np.random.default_rng().permutation(rows).tolist()
        shown = order if show is None else show(order, "initial guesses")
        todo = (_geometry(molecules, i) for i in shown if not file.has(_key(molecules, i)))
        count, waiting, kept_at, told_at = 0, [], time.monotonic(), time.monotonic()
        with closing(_all_computed(todo, theory, cores() if workers is None else workers)) as done:
            try:
                for molecule, triangle in done:
                    waiting.append((content_hash(molecule, ()), triangle))
                    count += 1
                    now = time.monotonic()
                    if now - kept_at > _KEPT_EVERY:
                        file.add(waiting)
                        waiting, kept_at = [], time.monotonic()
                    if now - told_at > _TOLD_EVERY and show and not sys.stderr.isatty():
                        told_at = now
                        logger.info("initial guesses: %d computed here, of %d", count, len(rows))
            finally:
                file.add(waiting)
        return count

    def keep(self, known: Iterable[Computed], folder: Path) -> int:
        """Keep guesses in another folder of data files, for a machine that lacks PySCF.

        Args:
            known: molecules, each with what `packed` gives.
            folder: of the data files there.

        Returns:
            How many there were.

        Raises:
            ConfigError: the theory is not known.
            RunError: the file cannot be written.
        """
        rows = [(content_hash(molecule, ()), triangle) for molecule, triangle in known]
        self._file_in(folder).add(rows)
        return len(rows)

    @property
    def _known(self) -> Theory:
        if self.theory is None:
            raise ConfigError(
                f"{self.owner} needs the level of theory of the labels, which a run takes from its "
                "task: leave out model.hyperparameters.theory; in Python give theory=task.theory"
            )
        return self.theory

    @property
    def _file(self) -> _GuessFile:
        return self._file_in(data_folder())

    def _file_in(self, folder: Path) -> _GuessFile:
        settings = {name: getattr(self._known, name) for name in _DECIDING}
        settings |= {name: settings[name].lower() for name in ("xc", "basis")}
        text = json.dumps(settings, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return _GuessFile(folder / FOLDER / f"minao-{digest[:16]}.sqlite", text)


def guess_of(name: GuessName, theory: Given, basis: OrbitalBasis, owner: str) -> Guess | None:
    """What a model's options say of the guess it learns beyond, for its `GraphSpec`.

    Args:
        name: option ``initial_guess``.
        theory: option ``theory``; ``${task.theory}`` in a preset, which a run fills in. Where it
            is not known the model can be built, and its graphs cannot.
        basis: orbital basis of the labels.
        owner: the model, for messages.

    Raises:
        ConfigError: a theory in another basis.
        RegistryError: an unknown name of a theory.
    """
    if name == "none":
        return None
    return Guess(of_labels(theory, basis, owner) if is_known(theory) else None, owner)


def _geometry(molecules: Sequence[Molecule], row: int) -> Molecule:
    """Elements, positions, charge and multiplicity of a row."""
    molecule = molecules.geometry(row) if isinstance(molecules, Rows) else molecules[row]
    return replace(molecule, hamiltonian=None, overlap=None, energy=None, forces=None)


def _key(molecules: Sequence[Molecule], row: int) -> bytes:
    return content_hash(_geometry(molecules, row), ())


def _computed(molecule: Molecule, theory: Theory) -> NDArray[np.float64]:
    """Packed Fock matrix of a molecule's guess."""
    packed: NDArray[np.float64] = pack_triangle(dft.initial_fock(molecule, theory))
    return packed


def _all_computed(
    molecules: Iterator[Molecule], theory: Theory, workers: int
) -> Generator[Computed, None, None]:
    """Molecules and their guesses, in order."""
    jobs = ((molecule, (molecule, theory)) for molecule in molecules)
    with closing(mapped(_computed, jobs, workers)) as done:
        try:
            yield from done
        except BrokenProcessPool as error:
            raise RunError(
                "a process that computes initial guesses died (killed, or out of memory); what is "
                "finished is kept: start the same command again, with more memory if that ran out"
            ) from error


@dataclass(frozen=True)
class _GuessFile:
    """Packed matrices by the content of their molecules, in a SQLite file of one theory.

    It is opened for each access: a handle may cross neither threads nor `fork`.

    Attributes:
        path: the file.
        about: the theory (JSON), for whoever looks into the file.
    """

    path: Path
    about: str

    def find(self, key: bytes) -> NDArray[np.float64] | None:
        """The triangle kept under a key; None where there is none."""
        with self._reading() as file:
            if file is None:
                return None
            found = file.execute("SELECT fock FROM guesses WHERE key = ?", (key,)).fetchone()
        return None if found is None else np.frombuffer(found[0], "<f8")

    def has(self, key: bytes) -> bool:
        """Whether a triangle is kept under a key."""
        with self.keys() as has:
            return has(key)

    @contextmanager
    def keys(self) -> Iterator[Callable[[bytes], bool]]:
        """`has` for many keys."""
        with self._reading() as file:
            if file is None:
                yield lambda key: False
            else:
                query = "SELECT 1 FROM guesses WHERE key = ?"
                yield lambda key: file.execute(query, (key,)).fetchone() is not None

    def add(self, triangles: Sequence[tuple[bytes, NDArray[np.float64]]]) -> None:
        """Keep all of some triangles, or none; those that are there stay as they are.

        Raises:
            RunError: the file cannot be written.
        """
        if not triangles:
            return
        versions = dft.versions() if engine.is_installed() else {}  # of others' guesses not known
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect("rwc")) as file:
                file.execute(f"PRAGMA page_size = {_PAGE}")
                file.execute("BEGIN IMMEDIATE")
                file.execute("CREATE TABLE IF NOT EXISTS about (theory TEXT UNIQUE, versions TEXT)")
                file.execute(
                    "CREATE TABLE IF NOT EXISTS guesses (key BLOB PRIMARY KEY, fock BLOB NOT NULL)"
                )
                file.execute(
                    "INSERT OR IGNORE INTO about VALUES (?, ?)",
                    (self.about, json.dumps(versions)),
                )
                file.executemany(
                    "INSERT OR IGNORE INTO guesses VALUES (?, ?)",
                    [(key, triangle.astype("<f8").tobytes()) for key, triangle in triangles],
                )
                file.execute("COMMIT")
        except OSError as error:
            raise explained(error, self.path) from error
        except sqlite3.Error as error:
            raise RunError(
                f"cannot write {self.path} ({short(error)}); free space, check the folder's rights "
                "and whether its file system has locks, or name another with HAMBENCH_DATA"
            ) from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """The file, or None where there is none; DataError where it cannot be read."""
        if not self.path.is_file() or self.path.stat().st_size == 0:  # empty: just being made
            yield None
            return
        try:
            # writable where that is allowed: what a killed process left is taken back first
            with closing(self._connect("rw")) as file:
                yield file
        except sqlite3.Error as error:
            raise DataError(
                f"cannot read {self.path} ({short(error)}); remove it, and the initial guesses it "
                "held are computed again"
            ) from error

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None)
