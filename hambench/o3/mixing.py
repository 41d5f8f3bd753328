"""Products of features with an edge's own spherical harmonics, in the frame of the edge.

There the harmonics have m2 = 0 alone, so a path takes component m1 to m3 = m1 where l1 + l2 + l3
is even and to m3 = -m1 where it is odd. All l2 between an l1 and an l3 together are one number for
each |m|, channel and edge, a linear map of the paths' weights. Features are turned into the frame,
mixed and turned back a few edges at a time; backward does it anew from the inputs.

In the frame they lie in a grid, whose rows are degrees 0..L and whose columns are orders -L..L.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hambench.o3.columns import Block, Columns, Kept, block_of, blocks, check_components, wide
from hambench.o3.mixing_plan import Group, Lines, Plan, make_plan, places
from hambench.o3.paths import Path
from hambench.o3.wigner import packed_offsets, wigner_blocks


def mix(
    x: Tensor,
    packed: Tensor,
    weights: Tensor,
    paths: tuple[Path, ...],
    coefficients: tuple[float, ...],
) -> Tensor:
    """Multiply with the harmonics of edges. Can be differentiated once.

    Args:
        x: (E, S1, C) features.
        packed: (E, P) packed Wigner matrices of the edges, at least up to the degrees of the
            features and of the result.
        weights: (E, P, C).
        paths, coefficients: see `HarmonicProduct`.

    Returns:
        (E, S3, C).

    Raises:
        ValueError: the features have fewer degrees than the paths.
    """
    plan = make_plan(paths, coefficients, x.dtype, x.device, wide(x.device))
    check_components(x, (plan.left + 1) ** 2, "left")
    return _Mixing.apply(x, packed, weights, plan)


class _Mixing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, weights: Tensor, plan: Plan) -> Tensor:
        ctx.save_for_backward(x, packed, weights)
        ctx.plan = plan
        out = x.new_empty(len(x), (plan.result + 1) ** 2, x.shape[-1])
        work = _forward.get(plan, block_of(x, plan.size))
        turns = zip(
            blocks(x, work.block),
            _split(packed, x, work.left),
            _split(packed, out, work.result),
            strict=True,
        )
        for rows, before, after in turns:
            work.left.turn_in(*before)
            work.weights.load(weights[rows])
            work.forward()
            work.result.turn_out(*after)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, packed, weights = ctx.saved_tensors
        turning = ctx.needs_input_grad[1]
        grad_x, grad_weights = torch.empty_like(x), torch.empty_like(weights)
        grad_packed = torch.zeros_like(packed) if turning else packed
        work = _backward.get(ctx.plan, block_of(x, ctx.plan.size))
        turns = zip(
            blocks(x, work.block),
            _split(packed, x, work.left),
            _split(packed, grad, work.result),
            _split(packed, grad_x, work.left),
            _split(grad_packed, x, work.left),
            _split(grad_packed, grad, work.result),
            strict=True,
        )
        for rows, before, above, below, turn_before, turn_above in turns:
            work.left.turn_in(*before)
            work.grad_result.turn_in(*above)
            work.weights.load(weights[rows])
            work.backward()
            work.grad_left.turn_out(*below)
            work.grad_weights.store(grad_weights[rows])
            if turning:
                work.forward()
                work.grad_left.add_outer(*turn_before)
                work.result.add_outer(*turn_above)
        grad_x[:, (ctx.plan.left + 1) ** 2 :] = 0
        return grad_x, grad_packed if turning else None, grad_weights, None


class _Grid(Columns):
    """Features of the frame, (degrees, orders, rows * C).

    Odd paths take them twisted, with m and -m swapped and one of them negative, as even ones take
    them.
    """

    def __init__(self, block: Block, lmax: int, twist: int = 0) -> None:
        """Grid for degrees up to ``lmax``.

        Args:
            block: of edges.
            lmax: largest degree.
            twist: sign of the orders that become negative in a twisted copy; 0: none is needed.
        """
        super().__init__(block, places(lmax))
        self.flat.zero_()
        self.block, self.lmax = block, lmax
        self.grid = self.flat.unflatten(0, (lmax + 1, 2 * lmax + 1))
        self._degrees: dict[int, list[Tensor]] = {}
        self._twisted = torch.zeros_like(self.grid) if twist else None
        self._negative = slice(lmax + 1, None) if twist > 0 else slice(lmax)

    def orders(self, m: int, twisted: bool = False) -> Tensor:
        """(degrees, 1 or 2, rows * C) components -m and m."""
        grid = self._twisted if twisted else self.grid
        assert grid is not None
        return grid[:, self.lmax - m : self.lmax + m + 1 : 2 * m or 1]

    def _twist(self) -> None:
        if self._twisted is not None:
            self._twisted.copy_(self.grid.flip(1))
            self._twisted[:, self._negative].neg_()

    def _parts(self, rows: int) -> list[Tensor]:
        """(rows, 2l+1, C) of each degree, views."""
        if rows not in self._degrees:
            folded = self._folded[:, :rows].unflatten(0, self.grid.shape[:2])
            self._degrees[rows] = [
                part[self.lmax - l : self.lmax + l + 1].transpose(0, 1)
                for l, part in enumerate(folded.unbind(0))
            ]
        return self._degrees[rows]

    def turn_in(self, matrices: Sequence[Tensor], x: Sequence[Tensor]) -> None:
        """Take features of space: per degree matrices (n, 2l+1, 2l+1), features (n, 2l+1, C)."""
        for l, part in enumerate(self._parts(len(x[0]))):
            part.copy_(torch.bmm(matrices[l], x[l]) if l else x[0])
        self._twist()

    def turn_out(self, matrices: Sequence[Tensor], x: Sequence[Tensor]) -> None:
        """Write features of space."""
        for l, part in enumerate(self._parts(len(x[0]))):
            x[l].copy_(torch.bmm(matrices[l].transpose(1, 2), part) if l else part)

    def add_outer(self, matrices: Sequence[Tensor], x: Sequence[Tensor]) -> None:
        """Add to the gradients of the matrices: features of the frame times those of space."""
        for l, part in enumerate(self._parts(len(x[0]))):
            matrices[l].add_(torch.bmm(part, x[l].transpose(1, 2)))


def _split(
    packed: Tensor, x: Tensor, grid: _Grid
) -> Iterator[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]:
    """Per block of rows the matrices and features of each degree of the grid, as views."""
    sizes = [2 * l + 1 for l in range(grid.lmax + 1)]
    used = packed[:, : packed_offsets(grid.lmax)[-1]]
    matrices = zip(*(m.split(grid.block.rows) for m in wigner_blocks(used, grid.lmax)), strict=True)
    parts = x[:, : sum(sizes)].split(sizes, dim=1)
    return zip(
        matrices, zip(*(part.split(grid.block.rows) for part in parts), strict=True), strict=True
    )


class _Forward:
    """A block of edges: features and weights, result, and what is done with them."""

    def __init__(self, plan: Plan, block: Block) -> None:
        self.block = block
        self.left = _Grid(block, plan.left, twist=plan.odd)
        self.result = _Grid(block, plan.result)
        self.weights = Columns(block, plan.paths)
        self.steps: list[_Step]
        if isinstance(plan.parts, Lines):
            self.steps = [_Wide(plan.parts, self)]
        else:
            self.steps = [_Narrow(group, self) for group in plan.parts]

    def forward(self) -> None:
        self.result.flat.zero_()
        for step in self.steps:
            step.forward()


class _Backward(_Forward):
    """With gradients."""

    def __init__(self, plan: Plan, block: Block) -> None:
        self.grad_left = _Grid(block, plan.left)
        self.grad_result = _Grid(block, plan.result, twist=-plan.odd)
        self.grad_weights = Columns(block, plan.paths)
        super().__init__(plan, block)

    def backward(self) -> None:
        self.grad_left.flat.zero_()
        for step in self.steps:
            step.backward()


_forward, _backward = Kept(_Forward), Kept(_Backward)


class _Step(ABC):
    """What some paths do to a block of edges."""

    @abstractmethod
    def forward(self) -> None:
        """Add to the result."""

    @abstractmethod
    def backward(self) -> None:
        """From the gradient of the result to those of weights (set) and input (added to)."""


class _Wide(_Step):
    """In as few calls as can be."""

    def __init__(self, lines: Lines, work: _Forward) -> None:
        self.lines, self.work = lines, work

    def forward(self) -> None:
        lines, work = self.lines, self.work
        terms = lines.numbers @ work.weights.flat
        terms.mul_(work.left.flat.index_select(0, lines.source))
        torch.mm(lines.collect, terms, out=work.result.flat)

    def backward(self) -> None:
        lines, work = self.lines, self.work
        assert isinstance(work, _Backward)
        slopes = lines.collect_back @ work.grad_result.flat
        numbers = lines.numbers @ work.weights.flat
        torch.mm(lines.scatter, numbers.mul_(slopes), out=work.grad_left.flat)
        slopes.mul_(work.left.flat.index_select(0, lines.source))
        torch.mm(lines.numbers_back, slopes, out=work.grad_weights.flat)


class _Narrow(_Step):
    """By adding products to rows in the cache; views are made once and serve all blocks."""

    def __init__(self, group: Group, work: _Forward) -> None:
        self.group = group
        self.weights = work.weights.flat[group.paths]
        self.numbers = self.weights.new_empty(len(group.numbers), self.weights.shape[1])
        self.terms = []
        for term in group.terms:
            source, result = work.left.orders(term.m, term.odd), work.result.orders(term.m)
            self.terms.append((result[term.m :], self.numbers[term.rows, None], source[group.l1]))
        if not isinstance(work, _Backward):
            return
        self.grad_weights = work.grad_weights.flat[group.paths]
        self.grad_numbers = torch.empty_like(self.numbers)
        self.slopes = []
        for term in group.terms:
            above = work.grad_result.orders(term.m, term.odd)[term.m :]
            source, slope = (x.orders(term.m)[group.l1] for x in (work.left, work.grad_left))
            pairs = zip(above.unbind(1), source.unbind(0), strict=True)
            sums = zip(above.unbind(0), self.numbers[term.rows].unbind(0), strict=True)
            self.slopes.append((self.grad_numbers[term.rows], list(pairs), slope, list(sums)))

    def forward(self) -> None:
        torch.mm(self.group.numbers, self.weights, out=self.numbers)
        for result, number, source in self.terms:
            result.addcmul_(number, source)

    def backward(self) -> None:
        torch.mm(self.group.numbers, self.weights, out=self.numbers)
        for grad_number, pairs, slope, sums in self.slopes:
            torch.mul(*pairs[0], out=grad_number)
            for above, source in pairs[1:]:
                grad_number.addcmul_(above, source)
            for above, number in sums:
                slope.addcmul_(above, number)
        torch.mm(self.group.numbers_back, self.grad_numbers, out=self.grad_weights)
