"""A trained model of energies as a calculator of ASE."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from hambench.chem.molecule import SYMBOLS, Molecule
from hambench.data.graph import collate
from hambench.energy_model import EnergyModel
from hambench.errors import ConfigError
from hambench.learn.device import open_fabric
from hambench.learn.weights import cast
from hambench.model import Model
from hambench.results import read_result
from hambench.trained import load_trained
from hambench.units import HARTREE_EV

try:
    from ase import Atoms
    from ase.calculators.calculator import Calculator, all_changes
except ImportError as error:
    raise ConfigError("a calculator needs ASE; get it with: pip install 'hambench[ase]'") from error


class EnergyCalculator(Calculator):
    """Energies in eV and forces ``-dE/dR`` in eV/Angstrom of a model of energies.

    Charge and multiplicity of a molecule are those in ``atoms.info`` (keys ``charge``,
    ``multiplicity``), else 0 and 1; periodic cells are refused.

    Args:
        model: a model of energies.
        device: where it computes.
        charges: of the molecules it was trained on, others are warned of; None: not known.

    Raises:
        ConfigError: the model predicts no energies.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces"]

    def __init__(
        self,
        model: Model,
        device: torch.device | str = "cpu",
        charges: Collection[int] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, EnergyModel):
            raise ConfigError(
                f"{type(model).__name__} predicts Hamiltonians, a calculator needs energies; give "
                "a run of an energy task"
            )
        self.model = model.to(device).eval()
        self.device = torch.device(device)
        self.charges = charges
        self._told: set[str | int] = set()

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill ``results``; called by ASE.

        Raises:
            ConfigError: an element, charge or multiplicity unknown to the model, or a periodic
                cell.
        """
        super().calculate(atoms, properties, system_changes)
        molecule = _molecule(self.atoms, self.model)
        self._remark(molecule.charge)
        energies, forces = self.model.energy_and_forces(
            collate([molecule], self.model.graph).to(self.device)
        )
        energy = float(energies) * HARTREE_EV
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": forces.double().cpu().numpy() * HARTREE_EV,
        }

    def _remark(self, charge: int) -> None:
        """Warn, once each, of elements without a reference energy and of charges never seen."""
        known = self.model.references.cpu()
        absent = {
            SYMBOLS[z] for z in set(self.atoms.numbers.tolist()) if z < len(known) and known[z] == 0
        }
        if absent - self._told:
            self._told |= absent
            warnings.warn(
                f"the model was trained without {', '.join(sorted(absent))}: energies of molecules "
                "that hold it are far off, forces on it are not learned",
                stacklevel=2,
            )
        if self.charges is not None and charge not in {*self.charges, *self._told}:
            self._told.add(charge)
            seen = ", ".join(map(str, sorted(self.charges)))
            warnings.warn(
                f"the model was trained on molecules of charge {seen}, this one has {charge}: "
                "energies are guesses",
                stacklevel=2,
            )


def calculator(
    run_dir: str | os.PathLike[str],
    device: str = "auto",
    precision: Literal["float32", "float64"] | None = None,
) -> EnergyCalculator:
    """The model of a finished run on energies as an ASE calculator.

    Args:
        run_dir: of ``hambench run`` on a task of energies, or an export of it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: None: the one it was trained in. Second derivatives want float64.

    Raises:
        DataError, CheckpointError: as `hambench.trained.load_trained`.
        ConfigError: a run on Hamiltonians.
    """
    trained = load_trained(run_dir)
    if precision is not None:
        cast(trained.model, getattr(torch, precision))
    domain = read_result(trained.folder).domain
    charges = None if domain is None else domain.charges
    return EnergyCalculator(trained.model, open_fabric(device).device, charges)


def _molecule(atoms: Any, model: Model) -> Molecule:
    """The molecule of some atoms, which the model must know."""
    if np.any(atoms.pbc):
        raise ConfigError("the model is of molecules, the atoms are periodic; set atoms.pbc=False")
    known = [SYMBOLS[z] for z in model.basis.elements]
    if unknown := set(atoms.get_chemical_symbols()) - set(known):
        raise ConfigError(
            f"the model does not know {', '.join(sorted(unknown))}; it is for {' '.join(known)}"
        )
    return Molecule(
        np.array(atoms.numbers, dtype=np.int64),
        np.array(atoms.positions),
        charge=int(atoms.info.get("charge", 0)),
        multiplicity=int(atoms.info.get("multiplicity", 1)),
    )
