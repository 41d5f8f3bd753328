"""How many shapes batches of molecules of many sizes have, as they are and padded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from hambench.bench.molecules import MEDIUM
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.edges import count_edges
from hambench.data.graph import GraphSpec, Shape
from hambench.data.loader import Loader
from hambench.data.padding import bucket

_SIZES: Final = (20, 60)  # atoms: about those of nabla2DFT
_MAX_EDGES: Final = 20_000


@dataclass(frozen=True)
class Shapes:
    """Shapes of the batches of one epoch.

    Attributes:
        molecules, batches: of the epoch.
        smallest, largest: atoms of a molecule.
        max_edges: of a batch.
        shapes, padded: different shapes, without padding and with it.
        edges, atoms: of the padded batches, as multiples of those of the molecules.
    """

    molecules: int
    batches: int
    smallest: int
    largest: int
    max_edges: int
    shapes: int
    padded: int
    edges: float
    atoms: float


def measure_shapes(molecules: int = 2000) -> Shapes:
    """Those of random molecules of 20 to 60 atoms whose atoms are all connected."""
    rng = np.random.default_rng(0)
    smallest, largest = _SIZES
    cases = [
        replace(MEDIUM, composition={6: int(n)})
        for n in rng.integers(smallest, largest + 1, molecules)
    ]
    rows = [case.geometry(rng) for case in cases]
    spec = GraphSpec(OrbitalBasis.load(MEDIUM.basis, [6]))
    atoms, edges = np.array([len(row) for row in rows]), count_edges(rows, spec.cutoff)
    plan = Loader(rows, spec, max_edges=_MAX_EDGES).plan(0)
    plain = [Shape(len(b), int(atoms[b].sum()), int(edges[b].sum())) for b in plan]
    padded = [bucket(shape, _MAX_EDGES) for shape in plain]
    return Shapes(
        molecules=molecules,
        batches=len(plan),
        smallest=smallest,
        largest=largest,
        max_edges=_MAX_EDGES,
        shapes=len(set(plain)),
        padded=len(set(padded)),
        edges=sum(shape.edges for shape in padded) / int(edges.sum()),
        atoms=sum(shape.atoms for shape in padded) / int(atoms.sum()),
    )
