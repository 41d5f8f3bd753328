"""Products of two features along paths, in groups of paths that share outer products.

All paths from (l1, l2) are one matrix product: their 3j symbols, stacked, times the outer products
of a_l1 and b_l2. Real 3j symbols vanish unless m1 + m2 + m3 is even. As 2l2+1 is odd, outer
products of even and odd m1 + m2 alternate, and each kind meets only every second row of the
results: two matrix products of half the rows and columns do. On a GPU, where a call costs more
than its arithmetic, all l2 of an l1 go together. Backward makes everything anew from the inputs,
the only tensors that are kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from hambench.o3.columns import Block, Columns, Kept, block_of, blocks, check_components, wide
from hambench.o3.paths import Path, components, symbols


class Part(NamedTuple):
    """Symbols that couple some of the outer products with some rows of the results.

    Attributes:
        matrix, transposed: (rows, columns) and (columns, rows).
        rows, columns: which ones.
    """

    matrix: Tensor
    transposed: Tensor
    rows: slice
    columns: slice


class Group(NamedTuple):
    """Consecutive paths of one l1, and of one l2 or several.

    Attributes:
        left, right: components of the factors.
        parts: symbols that together couple everything; none where products are the results.
        paths: which ones these are.
        terms: of each path its rows of the results, and its components of the output.
        rows: of the results.
        gather: (paths, rows) ones and zeros that add the rows of each path.
        collect: (S3, rows) ones and zeros that add rows into the output.
        path_of, target: (rows,) path and component of each row.
    """

    left: slice
    right: slice
    parts: tuple[Part, ...]
    paths: slice
    terms: tuple[tuple[slice, slice], ...]
    rows: int
    gather: Tensor
    collect: Tensor
    path_of: Tensor
    target: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of components of the factors."""
        return self.left.stop - self.left.start, self.right.stop - self.right.start


@dataclass(frozen=True, eq=False)
class Plan:
    """How to multiply along given paths.

    Attributes:
        groups: of paths, in their order.
        scale: (P, 1, 1) what the weights are multiplied by.
        sizes: components of the factors and of the result that take part.
        area, rows: of the largest group.
        wide: whether groups are of several l2.
    """

    groups: tuple[Group, ...]
    scale: Tensor
    sizes: tuple[int, int, int]
    area: int
    rows: int
    wide: bool


def contract(
    a: Tensor,
    b: Tensor,
    weights: Tensor,
    paths: tuple[Path, ...],
    coefficients: tuple[float, ...],
) -> Tensor:
    """(R, S1, C) a, (R, S2, C) b, (R, P, C) weights -> (R, S3, C); can be differentiated once.

    Raises:
        ValueError: the features have fewer degrees than the paths.
    """
    plan = make_plan(paths, coefficients, a.dtype, a.device, wide(a.device))
    for x, size, factor in zip((a, b), plan.sizes, ("left", "right"), strict=False):
        check_components(x, size, factor)
    return _Contraction.apply(a, b, weights, plan)


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
        paths, coefficients: see `PathProduct`.
        dtype, device: of the constants, which are made in float64.
        wide: all l2 of an l1 in one group.
    """
    norms = torch.tensor([_norm(path) for path in paths], dtype=torch.float64)
    scale = torch.tensor(coefficients, dtype=torch.float64) * norms
    members = groupby(range(len(paths)), key=lambda k: paths[k][: 1 if wide else 2])
    groups = [_group({k: paths[k] for k in some}, dtype, device, wide) for _, some in members]
    l1, l2, l3 = (max(degrees) for degrees in zip(*paths, strict=True))
    return Plan(
        groups=tuple(groups),
        scale=scale[:, None, None].to(dtype).to(device),
        sizes=((l1 + 1) ** 2, (l2 + 1) ** 2, (l3 + 1) ** 2),
        area=max(group.shape[0] * group.shape[1] for group in groups),
        rows=max(group.rows for group in groups),
        wide=wide,
    )


def _norm(path: Path) -> float:
    """What products with a scalar are multiplied by; the rest is a matrix of ones and zeros."""
    return 1.0 if path.l1 and path.l2 else (2 * path.l3 + 1) ** -0.5


def _group(paths: dict[int, Path], dtype: torch.dtype, device: torch.device, wide: bool) -> Group:
    first = next(iter(paths.values()))
    degrees = [path.l2 for path in paths.values()]
    right = slice(min(degrees) ** 2, (max(degrees) + 1) ** 2)
    terms, rows = [], 0
    for path in paths.values():
        # an empty row, where l3 skips a degree, so that even and odd m3 go on alternating
        start = rows if wide else rows + (rows + path.l3 - first.l3) % 2
        rows = start + 2 * path.l3 + 1
        terms.append((slice(start, rows), components(path.l3)))
    matrix = torch.zeros(rows, 2 * first.l1 + 1, right.stop - right.start, dtype=torch.float64)
    start = min(paths)
    path_of, target = torch.full((rows,), start), torch.zeros(rows, dtype=torch.long)
    for (k, path), (here, there) in zip(paths.items(), terms, strict=True):
        where = components(path.l2)
        where = slice(where.start - right.start, where.stop - right.start)
        matrix[here, :, where] = symbols(path).permute(2, 0, 1) / _norm(path)
        path_of[here], target[here] = k, torch.arange(there.start, there.stop)

    def part(rows: slice, columns: slice) -> Part:
        values = constant(matrix.flatten(1)[rows, columns])
        return Part(values, values.T.contiguous(), rows, columns)

    def constant(x: Tensor) -> Tensor:
        return x.to(dtype).to(device).contiguous()

    if wide:
        parts = [part(slice(None), slice(None))]
    elif first.l1 and first.l2:
        odd = sum(first) % 2
        parts = [part(slice(r, None, 2), slice((r + odd) % 2, None, 2)) for r in (0, 1)]
    else:
        parts = []
    return Group(
        left=components(first.l1),
        right=right,
        parts=tuple(parts),
        paths=slice(start, start + len(paths)),
        terms=tuple(terms),
        rows=rows,
        gather=constant(functional.one_hot(path_of - start, len(paths)).T),
        collect=constant(functional.one_hot(target).T),
        path_of=path_of.to(device),
        target=target.to(device),
    )


class _Contraction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, weights: Tensor, plan: Plan) -> Tensor:
        ctx.save_for_backward(a, b, weights)
        ctx.plan = plan
        # in memory component by component, as whatever acts on all rows likes it best
        out = a.new_empty(plan.sizes[2], len(a), a.shape[-1]).transpose(0, 1)
        work = _forward.get(plan, block_of(a, plan.area))
        for rows in blocks(a, work.block):
            work.load(a[rows], b[rows], weights[rows])
            work.result.flat.zero_()
            for step in work.steps:
                step.forward()
            work.result.store(out[rows])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        grads = [torch.empty_like(x) for x in inputs]
        work = _backward.get(ctx.plan, block_of(inputs[0], ctx.plan.area))
        for rows in blocks(grad, work.block):
            work.load(*(x[rows] for x in inputs))
            work.result.load(grad[rows])
            work.grad_left.flat.zero_()
            work.grad_right.flat.zero_()
            for step in work.steps:
                step.backward()
            work.store(*(x[rows] for x in grads))
        return *grads, None


class _Forward:
    """A block of rows: factors, weights, result, and what is done with them."""

    def __init__(self, plan: Plan, block: Block) -> None:
        self.block, self.scale = block, plan.scale
        left, right, result = plan.sizes
        self.left, self.right = Columns(block, left), Columns(block, right)
        self.weights, self.result = Columns(block, len(plan.scale)), Columns(block, result)
        self.outer, self.terms = Columns(block, plan.area).flat, Columns(block, plan.rows).flat
        kind = _Wide if plan.wide else _Narrow
        self.steps: list[_Step] = [kind(group, self) for group in plan.groups]

    def load(self, a: Tensor, b: Tensor, weights: Tensor) -> None:
        self.left.load(a)
        self.right.load(b)
        self.weights.load(weights, self.scale)


class _Backward(_Forward):
    """With the gradients of factors and weights; ``result`` is that of the result."""

    def __init__(self, plan: Plan, block: Block) -> None:
        left, right, _ = plan.sizes
        self.grad_left, self.grad_right = Columns(block, left), Columns(block, right)
        self.grad_weights = Columns(block, len(plan.scale))
        super().__init__(plan, block)

    def store(self, a: Tensor, b: Tensor, weights: Tensor) -> None:
        self.grad_left.store(a)
        self.grad_right.store(b)
        self.grad_weights.store(weights, self.scale)


_forward, _backward = Kept(_Forward), Kept(_Backward)


class _Step(ABC):
    """What a group does with a block of rows."""

    def __init__(self, group: Group, work: _Forward) -> None:
        self.group = group
        self.left, self.right = work.left.flat[group.left], work.right.flat[group.right]
        flat = work.outer[: group.shape[0] * group.shape[1]]
        self.outer = flat.unflatten(0, group.shape)
        self.terms = work.terms[: group.rows] if group.parts else flat
        self.parts = [
            (part.matrix, part.transposed, flat[part.columns], self.terms[part.rows])
            for part in group.parts
        ]
        self.weights = work.weights.flat
        self.result = work.result.flat
        if isinstance(work, _Backward):
            self.grad_left = work.grad_left.flat[group.left]
            self.grad_right = work.grad_right.flat[group.right]
            self.grad_weights = work.grad_weights.flat[group.paths]

    def multiply(self) -> None:
        """From the factors to the results of all paths."""
        torch.mul(self.left[:, None], self.right, out=self.outer)
        for matrix, _, outer, terms in self.parts:
            torch.mm(matrix, outer, out=terms)

    def spread(self) -> None:
        """From the gradient of the results to that of the outer products, in their place."""
        for _, transposed, outer, terms in self.parts:
            torch.mm(transposed, terms, out=outer)

    @abstractmethod
    def forward(self) -> None:
        """Add the paths to the result."""

    @abstractmethod
    def backward(self) -> None:
        """From the gradient of the result to those of weights (set) and factors (added to)."""


class _Narrow(_Step):
    """Sums by adding products to rows in the cache, without intermediates."""

    def __init__(self, group: Group, work: _Forward) -> None:
        super().__init__(group, work)
        factors = work.weights.lines[group.paths]
        self.paths = [
            (self.terms[rows], factor, self.result[target])
            for (rows, target), factor in zip(group.terms, factors, strict=True)
        ]
        self.by_left = list(zip(self.outer.unbind(0), self.left.unbind(0), strict=True))
        self.by_right = list(zip(self.outer.unbind(1), self.right.unbind(0), strict=True))

    def forward(self) -> None:
        self.multiply()
        for term, factor, result in self.paths:
            result.addcmul_(term, factor)

    def backward(self) -> None:
        self.multiply()
        for term, _, result in self.paths:
            term.mul_(result)
        torch.mm(self.group.gather, self.terms, out=self.grad_weights)
        for term, factor, result in self.paths:
            torch.mul(result, factor, out=term)
        self.spread()
        for outer, right in self.by_right:
            self.grad_left.addcmul_(outer, right)
        for outer, left in self.by_left:
            self.grad_right.addcmul_(outer, left)


class _Wide(_Step):
    """Sums in as few calls as can be."""

    def forward(self) -> None:
        self.multiply()
        self.terms.mul_(self.weights.index_select(0, self.group.path_of))
        self.result[: len(self.group.collect)].addmm_(self.group.collect, self.terms)

    def backward(self) -> None:
        self.multiply()
        slopes = self.result.index_select(0, self.group.target)
        self.terms.mul_(slopes)
        torch.mm(self.group.gather, self.terms, out=self.grad_weights)
        torch.mul(slopes, self.weights.index_select(0, self.group.path_of), out=self.terms)
        self.spread()
        self.grad_left.add_((self.outer * self.right).sum(1))
        self.grad_right.add_(self.outer.mul_(self.left[:, None]).sum(0))
