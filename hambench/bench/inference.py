"""Predicting the Hamiltonian of a molecule against one cycle of an SCF for it, on the same host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from hambench.bench.glycine import glycine
from hambench.bench.powerlaw import LEAST, Estimate, extrapolate
from hambench.bench.timing import Timing, interleaved
from hambench.chem.cycle import FirstCycle
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.theory import Theory
from hambench.data.edges import count_edges
from hambench.errors import ConfigError
from hambench.learn.device import open_fabric
from hambench.learn.outputs import outputs_of
from hambench.learn.weights import cast
from hambench.model import Model, silent
from hambench.models import build_model
from hambench.registry import MODELS

_ELEMENTS: Final = (1, 6, 7, 8)


@dataclass(frozen=True)
class Size:
    """One molecule.

    Attributes:
        atoms, orbitals, edges: of it; ordered pairs of atoms within the cutoff.
        points: of the integration grid.
        predicting: from the geometry to the (nao, nao) float64 Hamiltonian on the host.
        cycle: of the SCF, see `FirstCycle`.
        ratio: ``cycle`` over ``predicting``, medians.
    """

    atoms: int
    orbitals: int
    edges: int
    points: int
    predicting: Timing
    cycle: Timing
    ratio: float


@dataclass(frozen=True)
class Beyond:
    """A molecule that was not measured, by the power laws of those that were."""

    atoms: int
    predicting: Estimate
    cycle: Estimate


@dataclass(frozen=True)
class InferenceBench:
    """Prediction against SCF.

    Attributes:
        model, device, precision: what predicts, where; the weights are as initialised.
        threads: of the CPU, of both.
        theory: level of the SCF, with grid and density fitting.
        sizes: what was measured.
        beyond: what was extrapolated; None: nothing was asked for.
    """

    model: str
    device: str
    precision: str
    threads: int
    theory: dict[str, Any]
    sizes: list[Size]
    beyond: Beyond | None


def measure(
    model: str,
    atoms: Sequence[int],
    theory: Theory,
    *,
    beyond: int | None = None,
    device: str = "auto",
    precision: Literal["float32", "float64"] = "float32",
    threads: int = 1,
    repeats: int = 3,
) -> InferenceBench:
    """Both on glycine helices of several sizes, in turns.

    Args:
        model: preset, of Hamiltonians.
        atoms: of the molecules, see `glycine`.
        theory: level of the SCF, and basis of both.
        beyond: atoms of a molecule to extrapolate to; None: do not.
        device: of the model, as `open_fabric` takes it; the SCF is on the CPU.
        precision: of the model.
        threads: of the CPU, for both.
        repeats: how often each is timed.

    Raises:
        ConfigError: no such device or molecule; PySCF or threadpoolctl is not installed; a model
            that predicts what is beyond an initial guess, which is a Fock matrix by itself; too few
            sizes to extrapolate.
        RegistryError: no such model.
    """
    if beyond is not None and len(set(atoms)) < LEAST:
        raise ConfigError(
            f"extrapolation needs {LEAST} different numbers of atoms at least, got "
            f"{','.join(map(str, atoms))}; name more, or leave out beyond"
        )
    molecules = [glycine(count) for count in atoms]
    where = open_fabric(device).device
    with threads_of_all(threads):
        network = _network(model, molecules[0], theory, getattr(torch, precision)).to(where)
        sizes = [
            _measure(network, molecule, theory, repeats)
            for molecule in tqdm(molecules, desc="molecules", unit="mol", leave=False)
        ]
    return InferenceBench(
        model, str(where), precision, threads, asdict(theory), sizes,
        None if beyond is None else _beyond(sizes, beyond),
    )  # fmt: skip


@contextmanager
def threads_of_all(count: int) -> Iterator[None]:
    """So many threads of torch, of PySCF and of the linear algebra under both in the block.

    Raises:
        ConfigError: threadpoolctl is not installed.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ConfigError(
            "this needs threadpoolctl, which is not installed; install it with: pip install "
            "'hambench[yardsticks]'"
        ) from error
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


def _network(name: str, molecule: Molecule, theory: Theory, dtype: torch.dtype) -> Model:
    usual = MODELS.preset(name).content.get("hyperparameters", {})
    given = {"theory": theory.to_dict()} if "theory" in usual else {}
    network = build_model(name, OrbitalBasis.load(theory.basis, _ELEMENTS), **given)
    if network.graph.guess is not None:
        raise ConfigError(
            f"{name} predicts what is beyond an initial guess, whose Fock matrix takes as long as "
            "a cycle of the SCF; measure a model of whole Hamiltonians"
        )
    cast(network, dtype)
    nao = network.basis.nao(molecule.numbers)
    half = np.random.default_rng(0).standard_normal((nao, nao))
    labels = replace(molecule, basis=theory.basis, hamiltonian=half + half.T)
    network.prepare([labels], silent)
    return network


def predict(network: Model, molecule: Molecule) -> NDArray[np.float64]:
    """(nao, nao) Hamiltonian in Eh on the host, from the geometry on."""
    ((_, matrix),) = outputs_of(network, [molecule], batch_size=1)
    return matrix


def _measure(network: Model, molecule: Molecule, theory: Theory, repeats: int) -> Size:
    cycle = FirstCycle(molecule, theory)
    predict(network, molecule)
    # both have run: a Fock matrix, the first of two as long ones, was built for the cycle
    times = interleaved(
        {"predicting": lambda _: predict(network, molecule), "cycle": lambda _: cycle.run()},
        repeats,
        warm=True,
    )
    return Size(
        atoms=len(molecule),
        orbitals=cycle.orbitals,
        edges=int(count_edges([molecule], network.graph.cutoff)[0]),
        points=cycle.points,
        **times,
        ratio=times["cycle"].median / times["predicting"].median,
    )


def _beyond(sizes: list[Size], atoms: int) -> Beyond:
    measured = [size.atoms for size in sizes]
    return Beyond(
        atoms,
        extrapolate(measured, [size.predicting.median for size in sizes], atoms),
        extrapolate(measured, [size.cycle.median for size in sizes], atoms),
    )
