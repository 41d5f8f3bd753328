"""The files that go to and come from another interpreter, and the units in them.

Molecules go out as extended xyz in Angstrom, with energies in eV and forces in eV/Angstrom as
programs outside expect them; energies come back as a CSV in eV. This is the only place that knows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hambench.chem.molecule import SYMBOLS, Molecule
from hambench.errors import DataError, RunError
from hambench.files import atomic_write
from hambench.units import HARTREE_EV

ENERGY, FORCES = "REF_energy", "REF_forces"


def write_molecules(
    path: Path, molecules: Iterable[Molecule], *, energies: bool = False, forces: bool = False
) -> None:
    """Write an extxyz file: keys ``row`` (from 0), ``charge``, ``multiplicity``, and labels.

    Args:
        path: of the file.
        molecules: in the order of the rows.
        energies: with ``REF_energy`` in eV.
        forces: with ``REF_forces`` in eV/Angstrom.

    Raises:
        DataError: a molecule lacks a label that is asked for.
    """
    properties = "species:S:1:pos:R:3" + (f":{FORCES}:R:3" if forces else "")
    with atomic_write(path) as file:
        for row, molecule in enumerate(molecules):
            keys = {
                "Properties": properties,
                "row": row,
                "charge": molecule.charge,
                "multiplicity": molecule.multiplicity,
            }
            columns = [molecule.positions]
            if energies:
                keys[ENERGY] = repr(_label(molecule, "energy") * HARTREE_EV)
            if forces:
                columns.append(_label(molecule, "forces") * HARTREE_EV)
            words = " ".join(f"{key}={value}" for key, value in keys.items())
            file.write(f"{len(molecule)}\n{words}\n")
            for z, numbers in zip(molecule.numbers, np.hstack(columns).tolist(), strict=True):
                file.write(f"{SYMBOLS[z]} {' '.join(map(repr, numbers))}\n")


def read_energies(path: Path, count: int) -> NDArray[np.float64]:
    """Energies in Eh of a CSV with columns ``row`` and ``energy_ev``.

    Args:
        path: of the file.
        count: rows of the file that the energies belong to.

    Returns:
        (count,), NaN where the CSV says so.

    Raises:
        RunError: another header, or rows that are missing, repeated or no numbers.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            found = [(int(row["row"]), float(row["energy_ev"])) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} is no CSV of row and energy_ev: {type(error).__name__}: {error}"
        ) from error
    if sorted(row for row, _ in found) != list(range(count)):
        raise RunError(f"{path} has {len(found)} rows, expected each of 0 to {count - 1} once")
    energies = np.empty(count)
    for row, energy in found:
        energies[row] = energy / HARTREE_EV
    return energies


def _label(molecule: Molecule, name: str) -> NDArray[np.float64]:
    value = getattr(molecule, name)
    if value is None:
        raise DataError(
            f"molecule '{molecule.id}' has no {name} to train on; use data whose rows have them"
        )
    return np.asarray(value) if name == "forces" else value
