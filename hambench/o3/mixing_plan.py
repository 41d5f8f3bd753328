"""How components of features mix in the frames of edges, see `hambench.o3.mixing`: the numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hambench.o3.paths import Path, symbols


class Term(NamedTuple):
    """Numbers of one m >= 0 from l3 = m on: whether m3 = -m1, and which rows they are."""

    m: int
    odd: bool
    rows: slice


class Group(NamedTuple):
    """Consecutive paths of one l1.

    Attributes:
        l1, paths: which ones.
        numbers, numbers_back: (rows, paths) and transposed: from weights to numbers.
        terms: what these are.
    """

    l1: int
    paths: slice
    numbers: Tensor
    numbers_back: Tensor
    terms: tuple[Term, ...]


class Lines(NamedTuple):
    """All paths; every line is a component of the input times a number.

    Attributes:
        numbers, numbers_back: (lines, P) and transposed: from weights to numbers.
        source: (lines,) places in the grid of the input.
        collect, collect_back: (places, lines) and transposed: the output from the lines.
        scatter: (places, lines): sums by source.
    """

    numbers: Tensor
    numbers_back: Tensor
    source: Tensor
    collect: Tensor
    collect_back: Tensor
    scatter: Tensor


@dataclass(frozen=True, eq=False)
class Plan:
    """How to mix: largest degrees in and out, number of paths, what they do."""

    left: int
    result: int
    paths: int
    parts: tuple[Group, ...] | Lines

    @property
    def size(self) -> int:
        """Components that a block works on, about."""
        lines = 2 * len(self.parts.numbers) if isinstance(self.parts, Lines) else 0
        return self.paths + places(self.result) + lines

    @property
    def odd(self) -> bool:
        """Whether groups have paths of odd l1 + l2 + l3."""
        if isinstance(self.parts, Lines):
            return False
        return any(term.odd for group in self.parts for term in group.terms)


@lru_cache
def make_plan(
    paths: tuple[Path, ...],
    coefficients: tuple[float, ...],
    dtype: torch.dtype,
    device: torch.device,
    wide: bool,
) -> Plan:
    """Group paths.

    Args:
        paths, coefficients: see `HarmonicProduct`.
        dtype, device: of the constants, which are made in float64.
        wide: whether in `Lines`, else in groups.
    """
    left, _, result = (max(degrees) for degrees in zip(*paths, strict=True))

    def numbers(which: slice, lines: list[Line]) -> tuple[Tensor, Tensor]:
        """Of paths, and lines as rows."""
        row = {line: k for k, line in enumerate(lines)}
        matrix = torch.zeros(len(lines), which.stop - which.start, dtype=torch.float64)
        for column, (path, scale) in enumerate(zip(paths[which], coefficients[which], strict=True)):
            for line, number in _lines(path).items():
                if line in row:
                    matrix[row[line], column] += scale * number
        return constant(matrix), constant(matrix.T)

    def constant(x: Tensor) -> Tensor:
        return x.to(dtype).to(device).contiguous()

    if wide:
        lines = sorted({line for path in paths for line in _lines(path)})
        source = torch.tensor([place(line.l1, line.m1, left) for line in lines])
        target = torch.tensor([place(line.l3, line.m3, result) for line in lines])
        collect = functional.one_hot(target, places(result))
        scatter = functional.one_hot(source, places(left))
        parts: Lines | tuple[Group, ...] = Lines(
            *numbers(slice(0, len(paths)), lines),
            source=source.to(device),
            collect=constant(collect.T),
            collect_back=constant(collect),
            scatter=constant(scatter.T),
        )
        return Plan(left, result, len(paths), parts)
    groups = []
    for l1, some in groupby(range(len(paths)), key=lambda k: paths[k].l1):
        which = list(some)
        kinds = sorted({(m, odd) for k in which for _, m, _, _, odd in _lines(paths[k]) if m >= 0})
        lines, terms = [], []
        for m, odd in kinds:
            start = len(lines)
            lines += [Line(l1, m, l3, -m if odd else m, odd) for l3 in range(m, result + 1)]
            terms.append(Term(m, odd, slice(start, len(lines))))
        where = slice(which[0], which[-1] + 1)
        groups.append(Group(l1, where, *numbers(where, lines), tuple(terms)))
    return Plan(left, result, len(paths), tuple(groups))


class Line(NamedTuple):
    """Components that paths couple: of the input, of the output; whether l1 + l2 + l3 is odd."""

    l1: int
    m1: int
    l3: int
    m3: int
    odd: bool


def _lines(path: Path) -> dict[Line, float]:
    """What a path couples, and by which numbers; that of -m1 is the same, or minus it if odd."""
    l1, l2, l3 = path
    odd = bool((l1 + l2 + l3) % 2)
    symbol = symbols(path)[:, l2] * (2 * l2 + 1) ** 0.5
    lowest = min(l1, l3)
    orders = {m: -m if odd else m for m in range(-lowest, lowest + 1) if m or not odd}
    return {Line(l1, m, l3, n, odd): float(symbol[l1 + m, l3 + n]) for m, n in orders.items()}


def places(lmax: int) -> int:
    """Of the grid up to a degree."""
    return (lmax + 1) * (2 * lmax + 1)


def place(l: int, m: int, lmax: int) -> int:
    """Of a component in the grid."""
    return l * (2 * lmax + 1) + lmax + m
