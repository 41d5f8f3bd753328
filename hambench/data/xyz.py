"""Molecules from xyz files: plain or extended, one frame after the other, Angstrom.

A frame is the number of atoms, a comment line, and a line ``El x y z ...`` for every atom, El being
a symbol or an atomic number. Of the comment's ``key=value`` pairs ``Properties`` says what the
columns are (extended xyz), ``charge`` and ``multiplicity`` the electrons, ``id`` (or ``molecule``
and ``conformer``) the name of the row. ``spin`` is 2S for some programs and 2S+1 for others: 0 and
1 both are read as a closed shell, which with an even number of electrons they are. Other keys and
columns, energies and forces too, are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from hambench.chem.molecule import SYMBOLS, Molecule
from hambench.errors import DataError

_KEYS: Final = re.compile(r'([\w-]+)=("[^"]*"|\S+)')
_PLAIN: Final = "species:S:1:pos:R:3"


class Frame(NamedTuple):
    """A molecule of a file, its id empty where the file gives none, and the line it starts in."""

    molecule: Molecule
    line: int


def read_frames(path: Path) -> Iterator[Frame]:
    """The frames of a file, one after the other.

    Raises:
        DataError: the file cannot be read, or a line is not what it should be; the message names
            file and line.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = enumerate(file, start=1)
            for number, line in lines:
                if line.strip():
                    yield _frame(path, number, line, lines)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise DataError(f"{path} cannot be read as an xyz file: {reason}; check it") from error


def _frame(path: Path, number: int, line: str, lines: Iterator[tuple[int, str]]) -> Frame:
    if not line.strip().isdecimal() or int(line) < 1:
        raise DataError(
            f"{path}, line {number}: the number of atoms of the next frame was expected, found "
            f"'{line.strip():.40}'; a frame is a number of atoms, a comment line, and a line of "
            "every atom"
        )
    count = int(line)
    comment = next(lines, (0, ""))[1]
    atoms = list(islice(lines, count))
    if len(atoms) < count:
        raise DataError(
            f"{path}, line {number}: a frame of {count} atoms starts here, but the file ends after "
            f"{len(atoms)} of them; get the rest"
        )
    keys = {key.lower(): value.strip('"') for key, value in _KEYS.findall(comment)}
    species, place = _columns(keys.get("properties", _PLAIN), path, number + 1)
    numbers, positions = [], []
    for at, text in atoms:
        try:
            words = text.split()
            numbers.append(_element(words[species]))
            positions.append([float(word) for word in words[place : place + 3]])
            if len(positions[-1]) < 3 or not np.isfinite(positions[-1]).all():
                raise ValueError
        except (ValueError, IndexError) as error:
            raise DataError(
                f"{path}, line {at}: an element and its x y z in Angstrom were expected, found "
                f"'{text.strip():.60}'; {count} atoms are announced in line {number}"
            ) from error
    charge, spin = (_whole(keys, name, path, number + 1) for name in ("charge", "spin"))
    multiplicity = _whole(keys, "multiplicity", path, number + 1)
    molecule = Molecule(
        np.array(numbers),
        np.array(positions),
        charge=charge or 0,
        multiplicity=max(spin or 1, 1) if multiplicity is None else multiplicity,
        id=_id(keys),
    )
    return Frame(molecule, number)


def _columns(properties: str, path: Path, number: int) -> tuple[int, int]:
    """First columns of the element and of the position."""
    words = properties.split(":")
    starts: dict[str, int] = {}
    try:
        column = 0
        for name, _, width in zip(words[::3], words[1::3], words[2::3], strict=True):
            starts[name.lower()] = column
            column += int(width)
        return starts["species"] if "species" in starts else starts["z"], starts["pos"]
    except (ValueError, KeyError) as error:
        raise DataError(
            f"{path}, line {number}: Properties={properties:.60} names no columns of species and "
            f"pos; expected something like {_PLAIN}"
        ) from error


def _element(word: str) -> int:
    return int(word) if word.isdecimal() else SYMBOLS.index(word.capitalize())


def _whole(keys: dict[str, str], name: str, path: Path, number: int) -> int | None:
    """A key's whole number, None where it is missing."""
    if name not in keys:
        return None
    try:
        if (value := float(keys[name])).is_integer():
            return int(value)
    except ValueError:
        pass
    raise DataError(
        f"{path}, line {number}: {name}={keys[name]:.40} is no whole number; correct it"
    )


def _id(keys: dict[str, str]) -> str:
    if "id" in keys:
        return keys["id"]
    if "molecule" in keys and "conformer" in keys:
        return f"{keys['molecule']}-{keys['conformer']}"
    return ""
