"""`Theory`: a level of theory with every setting that decides the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from hambench.chem.orbitals import OrbitalBasis
from hambench.errors import ConfigError, RegistryError, nearest


@dataclass(frozen=True)
class Theory:
    """A level of theory with every setting that decides the numbers.

    Attributes:
        xc: functional, as PySCF and libxc name it.
        basis: orbital basis; elements it has effective core potentials for get them.
        fit: auxiliary basis of density fitting (pure functionals: RI-J), None for exact integrals.
        dispersion: add the Chai-Head-Gordon dispersion of wB97X-D to energies and forces.
        grid_level: PySCF's integration grid, 0-9, with its default pruning. (`treutler_prune`
            breaks rotational invariance by 1e-4 Eh and is not offered.)
        nlc_grid_level: grid of the VV10 part, for functionals that have one.
        conv_tol: Eh, energy change at which the SCF stops ...
        conv_tol_grad: ... once the norm of the orbital gradient is below this (Eh). The energy
            alone is no criterion for matrices: errors of H are first order in the gradient.
        max_cycles: SCF cycles before it counts as not converged.
    """

    xc: str
    basis: str
    fit: str | None = None
    dispersion: bool = False
    grid_level: int = 5
    nlc_grid_level: int = 1
    conv_tol: float = 1e-12
    conv_tol_grad: float = 1e-8
    max_cycles: int = 50

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form; `from_dict` reads it back."""
        return asdict(self)

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Theory:
        """The theory that `to_dict` wrote; ConfigError for a key it does not have."""
        known = [f.name for f in fields(Theory)]
        for key in content:
            if key not in known:
                raise ConfigError(f"unknown setting '{key}' of a theory.{nearest(key, known)}")
        try:
            return Theory(**content)
        except TypeError as error:
            raise ConfigError("a theory needs at least xc and basis") from error


THEORIES: Final[dict[str, Theory]] = {
    "pbe/def2-svp": Theory("pbe", "def2-svp", fit="def2-universal-jfit"),
    "wb97x-d/def2-svp": Theory(
        "HYB_GGA_XC_WB97X_D", "def2-svp", fit="def2-universal-jkfit", dispersion=True
    ),
    "wb97m-v/def2-tzvpd": Theory("wb97m-v", "def2-tzvpd"),
    "b3lyp/def2-svp": Theory("b3lyp", "def2-svp"),
    "b3lyp5/def2-svp": Theory("b3lyp5", "def2-svp"),
}
"""Theories of the benchmark families. ``b3lyp5`` (VWN5) is what PySCF called B3LYP before 2.3."""


def named(name: str) -> Theory:
    """The theory of that name in `THEORIES`; RegistryError with the nearest one."""
    if name.lower() not in THEORIES:
        raise RegistryError(f"unknown theory '{name}'.{nearest(name, THEORIES)}")
    return THEORIES[name.lower()]


def is_known(given: str | Mapping[str, Any] | None) -> bool:
    """Whether a theory was given: not nothing, nor what stands in a preset for a run to fill in."""
    return bool(given) and not (isinstance(given, str) and given.startswith("${"))


def of_labels(given: str | Mapping[str, Any] | None, basis: OrbitalBasis, owner: str) -> Theory:
    """The level of theory that a model was given of its labels.

    Args:
        given: settings of a `Theory`, as a task gives them, or a name in `THEORIES`.
        basis: orbital basis of the labels.
        owner: what needs it, for messages.

    Raises:
        ConfigError: none was given, or one in another basis.
        RegistryError: an unknown name.
    """
    if given is None or not is_known(given):
        names = (name for name, theory in THEORIES.items() if theory.basis == basis.name)
        example = next(names, f"{{xc: pbe, basis: {basis.name}}}")
        raise ConfigError(
            f"{owner} needs the level of theory of the labels, which a run takes from its task if "
            "it is given no other; say which, on the command line for instance "
            f"'model.hyperparameters.theory={example}', in Python theory=task.theory"
        )
    theory = named(given) if isinstance(given, str) else Theory.from_dict(given)
    if theory.basis.lower() != basis.name:
        raise ConfigError(
            f"theory of {owner}: basis {theory.basis}, expected {basis.name}, in which the labels "
            "are; give the theory of the task's own labels"
        )
    return theory
