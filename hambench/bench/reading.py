"""Cost of a training sample - reading, order, packing - against a plain read of the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hambench.bench.molecules import Case
from hambench.bench.timing import Timing, interleaved
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.packing import forget_maps
from hambench.data.graph import GraphSpec, build_graph
from hambench.data.synthetic import SyntheticFormat


@dataclass(frozen=True)
class Reading:
    """What one way to read a row of a file costs.

    Attributes:
        case, format, what: which rows, of which format, and what is made of them.
        nao: orbitals of each.
        bytes: that the plain read of a row reads.
        raw: the plain read; the yardstick.
        time: of what is measured.
    """

    case: str
    format: str
    what: str
    nao: int
    bytes: int
    raw: Timing
    time: Timing

    @property
    def ratio(self) -> float:
        """``time`` over ``raw``, medians."""
        return self.time.median / self.raw.median


def measure_reading(case: Case, form: SyntheticFormat, folder: Path, repeats: int) -> list[Reading]:
    """Write a file of the case to ``folder`` and read it, warm, in all ways, in turns."""
    path = folder / f"{case.format}.data"
    form.write(path, case.molecules())
    rows, raw = form.open(path), form.raw(path)
    basis = OrbitalBasis.load(case.basis, case.numbers.tolist())
    packed = GraphSpec(basis, dtype=torch.float32, space="uncoupled")
    coupled = replace(packed, space="coupled")

    def sample(spec: GraphSpec) -> Callable[[int], Any]:
        def read(number: int) -> Any:
            molecule, hamiltonian = rows.stored(number % case.rows)
            return build_graph(molecule, spec, hamiltonian)

        return read

    def new_composition(number: int) -> Any:
        forget_maps()
        return sample(packed)(number)

    ways: dict[str, Callable[[int], Any]] = {
        "packed blocks": sample(packed),
        "packed blocks, coupled": sample(coupled),
        "whole molecule (H, S, canonical, float64)": lambda number: rows.row(number % case.rows),
    }
    calls = {"raw": lambda number: raw(number % case.rows), **ways}
    times = interleaved(calls, repeats)
    # last, as it empties the cache the others use; few, as it does not vary
    last = "packed blocks, composition new"
    again = interleaved({"raw": calls["raw"], last: new_composition}, max(repeats // 10, 3))
    found = {
        **{what: (times["raw"], times[what]) for what in ways},
        last: (again["raw"], again[last]),
    }
    nao, size = basis.nao(case.numbers), raw(0)
    return [
        Reading(case.name, form.name, what, nao, size, plain, time)
        for what, (plain, time) in found.items()
    ]
