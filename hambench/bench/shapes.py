"""How many shapes batches of molecules of many sizes have, as they are and padded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hambench.bench.molecules import MEDIUM
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.edges import count_edges
from hambench.data.graph import GraphSpec, Shape
from hambench.data.loader import Loader
from hambench.data.padding import bucket, label_bucket

_SIZES: Final = (20, 60)  # atoms: about those of nabla2DFT
_MAX_EDGES: Final = 20_000


@dataclass(frozen=True)
class Shapes:
    """Shapes of the batches of one epoch.

    Attributes:
        molecules, batches: of the epoch.
        smallest, largest: atoms of a molecule.
        max_edges: of a batch.
        shapes, padded: different shapes, numbers of labels too, without padding and with it.
        edges, atoms, labels: of the padded batches, as multiples of those of the molecules.
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
    labels: float


def measure_shapes(molecules: int = 2000) -> Shapes:
    """Those of random molecules of 20 to 60 atoms, H and C, that are all connected."""
    rng = np.random.default_rng(0)
    smallest, largest = _SIZES
    sizes = rng.integers(smallest, largest + 1, molecules)
    carbons = rng.binomial(sizes, 0.5)
    rows = [
        replace(MEDIUM, composition={1: int(n - c), 6: int(c)}).geometry(rng)
        for n, c in zip(sizes, carbons, strict=True)
    ]
    basis = OrbitalBasis.load(MEDIUM.basis, [1, 6])
    spec = GraphSpec(basis)
    edges, labels = count_edges(rows, spec.cutoff), _labels(basis, sizes - carbons, carbons)
    plan = Loader(rows, spec, max_edges=_MAX_EDGES).plan(0)
    shapes = [Shape(len(b), int(sizes[b].sum()), int(edges[b].sum())) for b in plan]
    numbers = [tuple(map(int, labels[b].sum(0))) for b in plan]
    padded = [bucket(shape, _MAX_EDGES) for shape in shapes]
    more = [tuple(map(label_bucket, some)) for some in numbers]
    return Shapes(
        molecules=molecules,
        batches=len(plan),
        smallest=smallest,
        largest=largest,
        max_edges=_MAX_EDGES,
        shapes=len(set(zip(shapes, numbers, strict=True))),
        padded=len(set(zip(padded, more, strict=True))),
        edges=sum(shape.edges for shape in padded) / int(edges.sum()),
        atoms=sum(shape.atoms for shape in padded) / int(sizes.sum()),
        labels=sum(map(sum, more)) / int(labels.sum()),
    )


def _labels(
    basis: OrbitalBasis, hydrogens: NDArray[np.int64], carbons: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(molecules, 2) labels of on-site blocks and of pairs of atoms."""
    small, large = (basis.nao(np.array([z])) for z in (1, 6))
    on_site = hydrogens * small**2 + carbons * large**2
    return np.stack([on_site, ((hydrogens * small + carbons * large) ** 2 - on_site) // 2], 1)
