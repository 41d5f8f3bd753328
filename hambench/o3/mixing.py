"""Products of features with an edge's own spherical harmonics, in the frame of the edge.

There the harmonics have m2 = 0 alone, so a path takes component m1 to m3 = m1 where l1 + l2 + l3
is even and to m3 = -m1 where it is odd. All l2 between an l1 and an l3 together are one number for
each component, channel and edge, a linear map of the paths' weights.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from hambench.o3.columns import Columns, block_rows, blocks, wide
from hambench.o3.paths import Path, symbols
from hambench.o3.so2 import m_major


class Group(NamedTuple):
    """Consecutive paths; every line is a component of the input times one number.

    Attributes:
        paths: which ones.
        numbers, numbers_back: (lines, paths) and transposed: the numbers, of the weights.
        source: (lines,) components of the input.
        collect, collect_back: (S3, lines) and transposed: the output, of the lines.
        scatter: (S1, lines) ones and zeros that add lines by their source.
    """

    paths: slice
    numbers: Tensor
    numbers_back: Tensor
    source: Tensor
    collect: Tensor
    collect_back: Tensor
    scatter: Tensor


class Plan(NamedTuple):
    """How to mix components: groups of paths, their number, components in and out."""

    groups: tuple[Group, ...]
    paths: int
    inputs: int
    outputs: int


def mix(
    x: Tensor, weights: Tensor, paths: tuple[Path, ...], coefficients: tuple[float, ...]
) -> Tensor:
    """(E, S1, C) x, (E, P, C) weights -> (E, S3, C), m-major; can be differentiated once."""
    plan = make_plan(paths, coefficients, x.dtype, x.device, wide(x.device))
    return _Mixing.apply(x, weights, plan)


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
        paths, coefficients: see `PathProduct`; the right factors are harmonics.
        dtype, device: of the constants, which are made in float64.
        wide: all paths in one group, instead of one per l1.
    """
    left, right = max(path.l1 for path in paths), max(path.l3 for path in paths)
    into, out_of = ({index: place for place, index in enumerate(m_major(l))} for l in (left, right))
    members = groupby(range(len(paths)), key=lambda k: None if wide else paths[k].l1)
    groups = []
    for _, some in members:
        which = list(some)
        numbers: dict[tuple[int, int], Tensor] = {}
        for column, k in enumerate(which):
            l1, l2, l3 = paths[k]
            symbol = symbols(paths[k])[:, l2] * (2 * l2 + 1) ** 0.5 * coefficients[k]
            sign = (-1) ** (l1 + l2 + l3)
            for m in range(-min(l1, l3), min(l1, l3) + 1):
                if sign < 0 and m == 0:
                    continue
                line = into[l1 * l1 + l1 + m], out_of[l3 * l3 + l3 + sign * m]
                row = numbers.setdefault(line, torch.zeros(len(which), dtype=torch.float64))
                row[column] = symbol[l1 + m, l3 + sign * m]
        source, target = torch.tensor(list(numbers)).T
        matrix = torch.stack(list(numbers.values()))
        collect = functional.one_hot(target, len(out_of)).T
        scatter = functional.one_hot(source, len(into)).T

        def constant(x: Tensor) -> Tensor:
            return x.to(dtype).to(device).contiguous()

        groups.append(
            Group(
                paths=slice(which[0], which[-1] + 1),
                numbers=constant(matrix),
                numbers_back=constant(matrix.T),
                source=source.to(device),
                collect=constant(collect),
                collect_back=constant(collect.T),
                scatter=constant(scatter),
            )
        )
    return Plan(tuple(groups), len(paths), len(into), len(out_of))


class _Mixing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, plan: Plan) -> Tensor:
        ctx.save_for_backward(x, weights)
        ctx.plan = plan
        out = x.new_empty(len(x), plan.outputs, x.shape[-1])
        count = block_rows(x, 2 * max(len(group.numbers) for group in plan.groups))
        source, factors, result = (
            Columns(x, size, count) for size in (plan.inputs, plan.paths, plan.outputs)
        )
        for rows in blocks(x, count):
            source.load(x[rows])
            factors.load(weights[rows])
            result.flat.zero_()
            for group in plan.groups:
                lines = group.numbers @ factors.flat[group.paths]
                lines.mul_(source.flat.index_select(0, group.source))
                result.flat.addmm_(group.collect, lines)
            result.store(out[rows])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weights = ctx.saved_tensors
        plan: Plan = ctx.plan
        grad_x, grad_weights = torch.empty_like(x), torch.empty_like(weights)
        count = block_rows(x, 2 * max(len(group.numbers) for group in plan.groups))
        source, factors, result, slope, slopes = (
            Columns(x, size, count)
            for size in (plan.inputs, plan.paths, plan.outputs, plan.inputs, plan.paths)
        )
        for rows in blocks(x, count):
            source.load(x[rows])
            factors.load(weights[rows])
            result.load(grad[rows])
            slope.flat.zero_()
            for group in plan.groups:
                back = group.collect_back @ result.flat
                numbers = group.numbers @ factors.flat[group.paths]
                slope.flat.addmm_(group.scatter, numbers.mul_(back))
                back.mul_(source.flat.index_select(0, group.source))
                torch.mm(group.numbers_back, back, out=slopes.flat[group.paths])
            slope.store(grad_x[rows])
            slopes.store(grad_weights[rows])
        return grad_x, grad_weights, None
