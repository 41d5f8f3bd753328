"""Minima and force constants of the molecules of MD17, for sampling geometries of our own.

``normal_modes.json`` ships with the package; ``python -m hambench.tasks.normal_modes`` makes it
anew, starting from the force-field geometries of ``normal_modes_start.extxyz``, and goes on where
it was after a stop. Ethanol has two kinds of minima (trans, and two mirror images gauche).
Malondialdehyde is the enol with its hydrogen bond; its second minimum, with the proton at the other
oxygen, is the mirror image.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import scipy.optimize
from numpy.typing import NDArray
from tqdm import tqdm

from hambench.chem import dft, harmonic
from hambench.chem.harmonic import Well
from hambench.chem.molecule import Molecule
from hambench.chem.theory import named
from hambench.data.xyz import read_frames
from hambench.files import atomic_write

Array = NDArray[np.float64]

MODES_FILE: Final = Path(__file__).parent / "normal_modes.json"
START_FILE: Final = Path(__file__).parent / "normal_modes_start.extxyz"

THEORY: Final = replace(named("pbe/def2-svp"), grid_level=1, conv_tol=1e-9, conv_tol_grad=1e-7)
"""Coarser than the labels': a geometry is moved by kT, not by the error of a grid."""

MIRRORED: Final[dict[str, tuple[tuple[int, ...], ...]]] = {
    "ethanol_gauche": ((0, 1, 2, 4, 3, 5, 7, 6, 8),),
    "malondialdehyde": ((2, 1, 0, 4, 3, 7, 6, 5, 8),),
}
"""Orders of the atoms for the mirror images of a minimum; see `Well.mirrored`."""

LARGEST_FORCE: Final = 1e-4
"""Eh/Angstrom, of an optimised geometry."""
STEP: Final = 0.01
"""Angstrom, of the finite differences of forces."""


def sample(molecule: str, n: int, temperature: float, seed: int) -> list[Molecule]:
    """The first ``n`` geometries of a molecule, ids "1", "2" ...

    Args:
        molecule: "ethanol", "malondialdehyde" or "uracil"; atoms in the order of MD17 (C, C, O and
            6 H; 3 C, 2 O, 4 H; C, C, N, C, N, C, O, O, 4 H).
        n: number of samples.
        temperature: Kelvin.
        seed: decides everything.

    See `hambench.chem.harmonic` for the distribution and its limits.
    """
    found = wells(molecule)
    positions = harmonic.sample(found, n, temperature, seed)
    return [Molecule(found[0].numbers, x, id=str(i)) for i, x in enumerate(positions, start=1)]


@cache
def wells(molecule: str) -> tuple[Well, ...]:
    """The minima of a molecule, from `MODES_FILE`; KeyError where it is not one of them."""
    content = json.loads(MODES_FILE.read_text("utf-8"))["minima"]
    names = [name for name in content if name.partition("_")[0] == molecule]
    if not names:
        raise KeyError(molecule)
    return tuple(_well(name, content[name]) for name in names)


def _well(name: str, content: dict[str, Any]) -> Well:
    positions = np.array(content["positions_angstrom"])
    triangle = np.zeros((positions.size, positions.size))
    triangle[np.triu_indices(positions.size)] = content["force_constants_eh_per_angstrom2"]
    return Well(
        numbers=np.array(content["numbers"]),
        positions=positions,
        energy=content["energy_eh"],
        force_constants=np.triu(triangle) + np.triu(triangle, 1).T,
        mirrored=MIRRORED.get(name, ()),
    )


def optimise(molecule: Molecule) -> tuple[dft.DFTResult, int]:
    """The minimum near a geometry at `THEORY`, and the steps it took (BFGS).

    Raises:
        RuntimeError: it was not reached; and as `dft.calculate`.
    """
    last: dict[str, dft.DFTResult] = {}

    def energy_and_gradient(x: Array) -> tuple[float, Array]:
        last["result"] = _labels(replace(molecule, positions=x.reshape(-1, 3)), last.get("result"))
        found = last["result"].molecule
        assert found.energy is not None  # as `calculate` promises
        assert found.forces is not None
        bar.set_postfix(force=f"{np.abs(found.forces).max():.1e}")
        bar.update()
        return found.energy, -found.forces.ravel()

    with tqdm(desc=f"minimum of {molecule.id}", unit="step") as bar:
        found = scipy.optimize.minimize(
            energy_and_gradient, molecule.positions.ravel(), jac=True, method="BFGS",
            options={"gtol": LARGEST_FORCE, "maxiter": 100},
        )  # fmt: skip
    if np.abs(found.jac).max() > LARGEST_FORCE:
        raise RuntimeError(f"{molecule.id}: the largest force is still {np.abs(found.jac).max()}")
    best = replace(molecule, positions=found.x.reshape(-1, 3).round(8))
    return _labels(best, last["result"]), int(found.nfev)


def force_constants(minimum: dft.DFTResult) -> Array:
    """(3N, 3N) second derivatives in Eh/Angstrom^2, by central differences of forces."""
    molecule = minimum.molecule
    rows = []
    for coordinate in tqdm(range(3 * len(molecule)), desc=f"modes of {molecule.id}"):
        shift = np.zeros((len(molecule), 3))
        shift.flat[coordinate] = STEP
        plus, minus = (
            _labels(replace(molecule, positions=molecule.positions + sign * shift), minimum)
            for sign in (1, -1)
        )
        assert plus.molecule.forces is not None  # as `calculate` promises
        assert minus.molecule.forces is not None
        rows.append((minus.molecule.forces - plus.molecule.forces).ravel() / (2 * STEP))
    matrix = np.array(rows)
    return (matrix + matrix.T) / 2


def _labels(molecule: Molecule, near: dft.DFTResult | None) -> dft.DFTResult:
    """Energy and forces; the Hamiltonian of a near geometry saves half the cycles."""
    guess = "minao" if near is None else near.molecule.hamiltonian
    assert guess is not None
    return dft.calculate(molecule, THEORY, guess=guess)


def main() -> None:
    """Compute the minima that `MODES_FILE` lacks, and write it after each."""
    content: dict[str, Any] = {"theory": THEORY.to_dict(), "versions": dft.versions(), "minima": {}}
    if MODES_FILE.exists():
        content["minima"] = json.loads(MODES_FILE.read_text("utf-8"))["minima"]
    for start, _ in read_frames(START_FILE):
        if start.id in content["minima"]:
            continue
        minimum, steps = optimise(start)
        molecule = minimum.molecule
        assert molecule.forces is not None
        matrix = force_constants(minimum)
        content["minima"][start.id] = {
            "numbers": molecule.numbers.tolist(),
            "positions_angstrom": molecule.positions.tolist(),
            "energy_eh": molecule.energy,
            "largest_force_eh_per_angstrom": float(np.abs(molecule.forces).max()),
            "energy_evaluations": steps,
            "force_constants_eh_per_angstrom2": matrix[np.triu_indices(len(matrix))]
            .round(7)
            .tolist(),
        }
        with atomic_write(MODES_FILE) as file:
            json.dump(content, file)
            file.write("\n")


if __name__ == "__main__":
    main()
