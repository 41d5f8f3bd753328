"""What all readers of SQLite files withstand: files that are none, writers, damage of any kind."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from sqlite_files import (
    NABLA,
    WATER,
    WATER_TRUTH,
    edited,
    write_energies,
    write_qh9_dynamic,
    write_qh9_stable,
)

import hambench
from hambench.chem.molecule import Molecule
from hambench.data.conventions import Conventions
from hambench.errors import DataError, HambenchError
from hambench.tasks.nabla2dft_energy import Nabla2dftEnergies
from hambench.tasks.nabla2dft_hamiltonian import Nabla2dftHamiltonians
from hambench.tasks.qh9 import QH9Dynamic, QH9Stable
from hambench.tasks.schnorb import SchnorbDatabase
from hambench.tasks.sqlite import SqliteRows

READERS: Final[dict[str, type[SqliteRows]]] = {
    "schnorb": SchnorbDatabase,
    "nabla2dft": Nabla2dftHamiltonians,
    "energies": Nabla2dftEnergies,
    "stable": QH9Stable,
    "dynamic": QH9Dynamic,
}
PSI4 = Conventions("bohr", "psi4")


def _waters() -> list[tuple[np.ndarray, np.ndarray, np.ndarray, float]]:
    """Numbers, positions in bohr, matrices in PySCF's order and energies of four geometries."""
    truth = WATER_TRUTH
    return [
        (truth["Z"], truth["positions_bohr"][i], truth["H"][i], float(truth["E"][i]))
        for i in range(4)
    ]


def _written(name: str, folder: Path) -> Path:
    """A sound file of each format."""
    path = folder / f"{name}.db"
    if name == "schnorb":
        statements = [f"DELETE FROM {t} WHERE id > 4" for t in ("systems", "species")]
        return edited(WATER, path, *statements, "VACUUM")
    if name == "nabla2dft":
        return Path(shutil.copy(NABLA, path))
    if name == "energies":
        return write_energies(path)
    if name == "stable":
        rows = [(i, z, x * 0.529177210903, h) for i, (z, x, h, _) in enumerate(_waters())]
        return write_qh9_stable(path, rows)
    return write_qh9_dynamic(path, [(3, i, *label) for i, label in enumerate(_waters())])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A sound file of each format, by name."""
    folder = tmp_path_factory.mktemp("sound")
    return {name: _written(name, folder) for name in READERS}


@pytest.fixture(params=READERS)
def sound(request: pytest.FixtureRequest, files: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a sound file, for each format, in a folder of its own."""
    return Path(shutil.copy(files[request.param], tmp_path / f"{request.param}.db"))


def _open(path: Path, undecided: bool = False) -> SqliteRows:
    """A file by its reader; the order of nabla2DFT is told, unless its overlaps are to decide."""
    told = path.stem == "nabla2dft" and not undecided
    return READERS[path.stem](path, conventions=PSI4 if told else None)


def _refused(path: Path, message: str) -> None:
    """Both ways of opening a file end in this message about it."""
    for attempt in (lambda: hambench.open_data(path), lambda: _open(path)):
        with pytest.raises(DataError, match=message) as caught:
            attempt()
        assert path.name in str(caught.value)


# -- files ---------------------------------------------------------------------------------------


def test_every_format_is_recognised_by_its_reader_alone(files: dict[str, Path]) -> None:
    for name, path in files.items():
        found = {other for other, reader in READERS.items() if reader.recognises(path)}
        assert found == {name}
        rows = hambench.open_data(path)
        assert type(rows) is READERS[name]
        assert len(rows) == 4
        assert all(isinstance(molecule, Molecule) for molecule in rows)


def test_recognising_never_raises(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("SQLite format 3")
    (tmp_path / "head").write_bytes(b"SQLite format 3\0" + b"\1" * 900)
    with closing(sqlite3.connect(tmp_path / "bare")) as connection, connection:
        connection.execute("CREATE VIEW data AS SELECT 1 AS id")
    names = ["pipe", "empty", "text", "head", "bare", "missing", ".", "a\0b"]
    for reader in READERS.values():
        assert not any(reader.recognises(tmp_path / name) for name in names)


def test_files_that_are_none(sound: Path) -> None:
    sound.unlink()
    with pytest.raises(DataError, match=r"is not there; check the path"):
        _open(sound)
    sound.mkdir()
    with pytest.raises(DataError, match=r"is a folder, not a file"):
        _open(sound)
    sound.rmdir()
    for content, message in (
        (b"", "is empty; expected a"),
        (b"no database", "is no SQLite database; expected a"),
        (b"SQLite format 3\0", "is truncated: it has 16 of 100 bytes"),
    ):
        sound.write_bytes(content)
        with pytest.raises(DataError, match=message):
            _open(sound)
        with pytest.raises(DataError, match=sound.name):
            hambench.open_data(sound)


def test_a_truncated_file(sound: Path) -> None:
    content = sound.read_bytes()
    sound.write_bytes(content[:-1])
    _refused(sound, rf"is truncated: it has {len(content) - 1:,} of {len(content):,} bytes")
    sound.write_bytes(content[: len(content) // 3])
    _refused(sound, "is truncated")


def test_a_database_of_something_else(sound: Path) -> None:
    sound.unlink()
    with closing(sqlite3.connect(sound)) as connection, connection:
        connection.execute("CREATE TABLE songs (title)")
    with pytest.raises(DataError, match=r"there is no table '\w+' \(tables: songs\); expected "):
        _open(sound)
    with pytest.raises(DataError, match="of no format that an installed reader knows"):
        hambench.open_data(sound)


# -- writers -------------------------------------------------------------------------------------


def test_nothing_is_written_beside_a_file_that_may_not_be_changed(sound: Path) -> None:
    before = sound.read_bytes()
    sound.chmod(0o444)
    sound.parent.chmod(0o555)
    try:
        assert len(list(_open(sound))) == 4
    finally:
        sound.parent.chmod(0o755)
    assert os.listdir(sound.parent) == [sound.name]
    assert sound.read_bytes() == before


def test_a_lock_is_no_hindrance_while_the_file_is_unchanged(sound: Path) -> None:
    with closing(sqlite3.connect(sound, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        writer.execute("CREATE TABLE more (x)")  # SQLite keeps it in memory
        assert len(list(_open(sound))) == 4


def _change(writer: sqlite3.Connection) -> None:
    """Begin a change too large for SQLite's memory, so that the file is changed already."""
    writer.execute("PRAGMA cache_size = 1")
    writer.execute("BEGIN EXCLUSIVE")
    writer.execute("CREATE TABLE more (x)")
    for _ in range(100):
        writer.execute("INSERT INTO more VALUES (zeroblob(8192))")


def test_a_writer_at_work_is_refused_until_it_is_done(sound: Path) -> None:
    with closing(sqlite3.connect(sound, isolation_level=None)) as writer:
        _change(writer)
        _refused(sound, rf"a writer is at work or was interrupted \({sound.name}-journal is beside")
        writer.execute("ROLLBACK")
    assert len(list(_open(sound))) == 4


def test_a_write_ahead_log_is_refused_until_it_is_merged(sound: Path) -> None:
    with closing(sqlite3.connect(sound, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE more (x)")
        _refused(sound, rf"a writer is at work or was interrupted \({sound.name}-wal is beside")
    assert len(list(_open(sound))) == 4  # closing it merges the log; the mode of the file stays


def test_a_copy_made_while_it_was_written_is_refused(sound: Path) -> None:
    """The journal that came with it says what has to be undone."""
    with closing(sqlite3.connect(sound, isolation_level=None)) as writer:
        _change(writer)
        copy = sound.parent / "copy" / sound.name
        copy.parent.mkdir()
        shutil.copy(sound, copy)
        shutil.copy(f"{sound}-journal", f"{copy}-journal")
    _refused(copy, "or complete it with: sqlite3")


# -- mutations -----------------------------------------------------------------------------------

_PIECE: Final = 75
_JUNK: Final[tuple[Any, ...]] = (
    None, b"", b"\0", b"\xff" * 64, "text", "", -1, 0, 2**62, 1e308, float("inf"), b"\0" * 2**16,
)  # fmt: skip


def _mutated_value(path: Path, rng: np.random.Generator) -> None:
    """One value of one table replaced, cut or lengthened."""
    with closing(sqlite3.connect(path)) as connection, connection:
        tables = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
        ]
        weights = np.array([5.0 if name in ("data", "systems") else 1.0 for name in tables])
        table = rng.choice(tables, p=weights / weights.sum())
        columns = connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()
        column = columns[rng.integers(len(columns))][0]
        keys = connection.execute(f"SELECT rowid, {column} FROM {table}").fetchall()
        key, value = keys[rng.integers(len(keys))]
        junk = _JUNK[rng.integers(len(_JUNK))]
        if isinstance(value, bytes) and value and rng.random() < 0.5:
            junk = value[: rng.integers(len(value))] if rng.random() < 0.5 else value + b"\0" * 4
        try:
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (junk, key))
        except sqlite3.IntegrityError:  # a key that must be a whole number
            connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (key,))


def _mutated(path: Path, seed: int) -> None:
    """Change a file: values, bytes anywhere, bytes of page headers, a block; or cut it short."""
    rng = np.random.default_rng(seed)
    kind = seed % 5
    if kind == 0:
        _mutated_value(path, rng)
        return
    content = bytearray(path.read_bytes())
    size = len(content)
    page = int.from_bytes(content[16:18], "big")
    if kind == 1:
        for place in rng.integers(size, size=rng.integers(1, 9)):
            content[place] ^= int(rng.integers(1, 256))
    elif kind == 2:
        starts = rng.integers(size // page, size=rng.integers(1, 6)) * page
        for place in starts + rng.integers(0, 120, size=len(starts)):
            content[place] ^= int(rng.integers(1, 256))
    elif kind == 3:
        start = int(rng.integers(size))
        content[start : start + 64] = rng.bytes(len(content[start : start + 64]))
    elif rng.random() < 0.5:
        del content[rng.integers(size) :]
    else:  # cut short, and the header agrees
        pages = int(rng.integers(1, size // page))
        del content[pages * page :]
        content[28:32] = pages.to_bytes(4, "big")
    path.write_bytes(content)


def _attempt(name: str, seed: int, read: Callable[..., Any], *arguments: Any) -> Any:
    """What a reader gives, or None if it refuses with an error of ours that names the file."""
    try:
        return read(*arguments)
    except HambenchError as error:
        if name not in str(error) or not str(error).isprintable():
            raise AssertionError(f"seed {seed}: the message is {error!s:.300}") from error
        return None


def _read_mutated(sound: Path, folder: Path, seeds: range) -> None:
    """Read each mutated file whole; anything but molecules and our errors ends this process."""
    logging.disable(logging.CRITICAL)
    path = folder / sound.name
    for seed in seeds:
        (folder / f"at{seeds[0]}").write_text(str(seed))
        shutil.copyfile(sound, path)
        _mutated(path, seed)
        for reader in READERS.values():
            assert isinstance(reader.recognises(path), bool)
        rows = _attempt(path.name, seed, _open, path, seed % 7 == 0)
        if rows is None:
            continue
        for place in range(len(rows)):
            molecule = _attempt(path.name, seed, rows.row, place)
            assert molecule is None or isinstance(molecule, Molecule)
        rows.close()


def _read_all_mutated(sound: Path, folder: Path, total: int) -> None:
    context = multiprocessing.get_context("spawn")
    for start in range(0, total, _PIECE):
        child = context.Process(
            target=_read_mutated, args=(sound, folder, range(start, start + _PIECE))
        )
        child.start()
        child.join(120)
        hung = child.is_alive()
        child.kill()
        child.join()
        seed = (folder / f"at{start}").read_text()
        assert not hung, f"reading mutation {seed} of {sound.name} does not end"
        assert child.exitcode == 0, f"mutation {seed} of {sound.name}: exit code {child.exitcode}"


@pytest.mark.parametrize("name", READERS)
def test_mutated_files_end_in_an_error_or_a_molecule(
    files: dict[str, Path], name: str, tmp_path: Path
) -> None:
    _read_all_mutated(files[name], tmp_path, 2 * _PIECE)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_thousand_mutated_files(files: dict[str, Path], name: str, tmp_path: Path) -> None:
    _read_all_mutated(files[name], tmp_path, 1000)
