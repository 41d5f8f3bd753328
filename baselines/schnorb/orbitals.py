"""Pair factors with directions, their running product, and the sums a readout needs of it.

Block lambda gives every ordered pair a factor ``V_ij`` of B features in D directions; the readout
is linear in all of ``Omega^lambda = prod_{mu <= lambda} V^mu`` (arXiv 1906.10033, and the public
code). A factor is an outer product of the pair plus a part of each atom, so it is cheaper to make
it again than to keep it: of all numbers with P x B x D entries none survives the forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hambench.baselines.schnorb.pairs import Geometry, Group, Pairs
from hambench.baselines.schnorb.representation import TwoLayers, dense, gathered

_NUMBERS: Final = 2**23
"""Entries of one factor made at a time, so that memory does not grow with the batch."""


class Factor(NamedTuple):
    """``V_ij = value_ij x turn_ij + own_i + other_j``; ``turn_ji = sign turn_ij``.

    Attributes:
        value: (P, B) of a pair.
        turn: (P, D) of a pair, of the order (first, second) of its atoms.
        own, other: (N, D, B) of the row atom and of the column atom.
    """

    value: Tensor
    turn: Tensor
    own: Tensor
    other: Tensor


class Turns(nn.Module):
    """The maps Dp, De1 and De2 from three axes to D directions."""

    def __init__(self, directions: int) -> None:
        super().__init__()
        self.pair, self.own, self.other = (dense(3, directions) for _ in range(3))


class PairFactor(nn.Module):
    """The factor of one block, from its pair state.

    With p = pair(h), e = environment(h), c_ij the direction from i to j::

        V_ij = Dp (p_ij x c_ij) + De1 M_i + De2 M_j      M_i = sum_k e_ik x c_ik

    where Dp, De1 and De2 take three axes to D directions, with a bias each. Without axes (block 0)
    c is one number, 1, and there is no D. Without directions D is the three axes themselves.

    Args:
        width, factors: B and Q.
        axes: whether directions of the pairs enter.
        directions: D, or 0.
    """

    def __init__(self, width: int, factors: int, axes: bool, directions: int) -> None:
        super().__init__()
        self.pair = TwoLayers(factors, factors, width)
        self.environment = TwoLayers(factors, factors, width)
        self.axes = axes
        self.turns = Turns(directions) if axes and directions else None

    def forward(self, h: Tensor, geometry: Geometry) -> Factor:
        """(P, Q) -> the factor."""
        value, environment = self.pair(h), self.environment(h)
        atoms = len(geometry.pairs.share)
        if not self.axes:
            around = gathered(atoms, geometry, environment, environment)[:, None]
            return Factor(value, torch.ones_like(value[:, :1]), around, around)
        turn = geometry.direction
        along = turn[:, :, None] * environment[:, None]
        around = gathered(atoms, geometry, along, -along)
        if self.turns is None:
            return Factor(value, turn, around, around)
        pair, own, other = self.turns.pair, self.turns.own, self.turns.other
        return Factor(
            value,
            turn @ pair.weight.T,
            own.weight @ around + (own.bias + pair.bias)[:, None],
            other.weight @ around + other.bias[:, None],
        )


def running_products(
    factors: Sequence[Factor], pairs: Pairs, weight: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Linear readout of the products of all ordered pairs, and their sums over neighbours.

    The first factor has one direction, D = 1, and stands for all of the others.

    Args:
        factors: L of them.
        pairs: P pairs.
        weight: (q, n, n, L, D, B).

    Returns:
        ``rows`` (2, P, q, n, n): ``sum_{lambda d b} weight Omega^lambda`` of (i, j) and of (j, i),
        in the rows and columns that the group of a pair has, else zero; and per lambda the
        (N, D, B) sums over j of ``Omega_ij``, with D = 1 for lambda = 0.
    """
    rows, *sums = _RunningProducts.apply(pairs, weight, *(t for f in factors for t in f))
    return rows, sums


def products(factors: Sequence[Factor], pairs: Pairs, part: slice) -> tuple[list[Tensor], ...]:
    """(2, p, D, B) factors and their running products, of (i, j) and (j, i), for some pairs."""
    first, second = pairs.first[part], pairs.second[part]
    values: list[Tensor] = []
    running: list[Tensor] = []
    for number, factor in enumerate(factors):
        _, directions, width = factor.own.shape
        v = factor.own.new_empty(2, len(first), directions, width)
        both = torch.stack([first, second])
        torch.index_select(factor.own, 0, both.reshape(-1), out=v.view(-1, directions, width))
        v += factor.other[both.flip(0)]
        outer = factor.value[part][:, None] * factor.turn[part][:, :, None]
        v[0] += outer
        v[1].add_(outer, alpha=_sign(number))
        values.append(v)
        running.append(v if number == 0 else running[-1] * v)
    return values, running


def _sign(number: int) -> int:
    """Of the turn of (j, i) against that of (i, j): the first factor knows no direction."""
    return -1 if number else 1


class _RunningProducts(torch.autograd.Function):
    """`running_products`; the backward pass makes the products again, part by part."""

    @staticmethod
    def forward(ctx: Any, pairs: Pairs, weight: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        factors = _as_factors(tensors)
        ctx.pairs = pairs
        ctx.save_for_backward(weight, *tensors)
        q, n = weight.shape[:2]
        rows = weight.new_zeros(2, len(pairs.first), q, n, n)
        sums = [torch.zeros_like(factor.own) for factor in factors]
        joined = weight[:, :, :, 0].sum(-2)  # the first product is the same in all directions
        for group in pairs.groups:
            matrices = _matrices(group, weight, joined, factors)
            for part in _parts(group, weight):
                first, second = pairs.first[part], pairs.second[part]
                _, running = products(factors, pairs, part)
                for number, omega in enumerate(running):
                    sums[number].index_add_(0, first, omega[0])
                    sums[number].index_add_(0, second, omega[1])
                    for (sides, r, c), matrix in zip(_sides(group), matrices[number], strict=True):
                        read = omega[sides].flatten(2) @ matrix.T
                        rows[sides, part, :, :r, :c] += read.unflatten(-1, (q, r, c))
        return rows, *sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor, *grad_sums: Tensor) -> tuple[Tensor | None, ...]:
        pairs = ctx.pairs
        weight, *tensors = ctx.saved_tensors
        factors = _as_factors(tensors)
        grad_weight = torch.zeros_like(weight)
        joined = weight[:, :, :, 0].sum(-2)
        grad_joined = torch.zeros_like(joined)
        grads = [Factor(*map(torch.zeros_like, factor)) for factor in factors]
        for group in pairs.groups:
            matrices = _matrices(group, weight, joined, factors)
            for part in _parts(group, weight):
                first, second = pairs.first[part], pairs.second[part]
                values, running = products(factors, pairs, part)
                carried = None
                for number in reversed(range(len(factors))):
                    omega = running[number]
                    grad = torch.stack([grad_sums[number][first], grad_sums[number][second]])
                    target = grad_weight[:, :, :, number] if number else grad_joined
                    for (sides, r, c), matrix in zip(_sides(group), matrices[number], strict=True):
                        read = grad_rows[sides, part, :, :r, :c].flatten(2)
                        grad[sides] += (read @ matrix).view_as(grad[sides])
                        piece = target[:, :r, :c]
                        flat = omega[sides].flatten(0, 1).flatten(1)
                        piece += (read.flatten(0, 1).T @ flat).view(piece.shape)
                    if carried is not None:
                        above = values[number + 1].mul_(carried)
                        grad += above if above.shape == grad.shape else above.sum(2, keepdim=True)
                    carried = grad
                    into_factor = grad * running[number - 1] if number else grad
                    _add_gradient(
                        grads[number], factors[number], pairs, part, into_factor, _sign(number)
                    )
        grad_weight[:, :, :, 0] = grad_joined[..., None, :]
        return None, grad_weight, *(t for grad in grads for t in grad)


def _add_gradient(
    into: Factor, factor: Factor, pairs: Pairs, part: slice, gradient: Tensor, sign: int
) -> None:
    """Add what some pairs' (2, p, D, B) gradient means for the parts of their factor."""
    first, second = pairs.first[part], pairs.second[part]
    there, back = gradient
    into.own.index_add_(0, first, there).index_add_(0, second, back)
    into.other.index_add_(0, second, there).index_add_(0, first, back)
    outer = torch.add(there, back, alpha=sign)
    into.value[part] = torch.einsum("pdb,pd->pb", outer, factor.turn[part])
    into.turn[part] = torch.einsum("pdb,pb->pd", outer, factor.value[part])


def _as_factors(tensors: Sequence[Tensor]) -> list[Factor]:
    return [Factor(*tensors[k : k + 4]) for k in range(0, len(tensors), 4)]


def _sides(group: Group) -> list[tuple[slice, int, int]]:
    """Orders of the atoms, (i, j) first, that are read out together, and the size of their blocks.

    Where both atoms have as many orbitals, one product of matrices serves both orders.
    """
    if group.rows == group.columns:
        return [(slice(0, 2), group.rows, group.columns)]
    return [
        (slice(0, 1), group.rows, group.columns),
        (slice(1, 2), group.columns, group.rows),
    ]


def _matrices(
    group: Group, weight: Tensor, joined: Tensor, factors: Sequence[Factor]
) -> list[list[Tensor]]:
    """Per factor and side of a group, the (outputs, inputs) matrix of the entries it has."""
    return [
        [
            (weight[:, :r, :c, number] if number else joined[:, :r, :c]).reshape(
                -1, factor.own[0].numel()
            )
            for _, r, c in _sides(group)
        ]
        for number, factor in enumerate(factors)
    ]


def _parts(group: Group, weight: Tensor) -> Iterator[slice]:
    """The pairs of a group, few enough at a time."""
    step = max(_NUMBERS // (2 * weight.shape[-1] * weight.shape[-2]), 1)
    for start in range(group.start, group.stop, step):
        yield slice(start, min(start + step, group.stop))
