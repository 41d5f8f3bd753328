"""What SPHNet leaves out: paths of its tensor products, and pairs of atoms (arXiv 2502.01171).

*Paths.* Every product along all triangle paths has one trained number W_p per path. In training
the products first take few paths at random, anew in every step; then those of the largest W, also
anew; and in the end these for good. With c_p the coefficient of a path in the full product, those
of the chosen ones are ``c_p W_p / sum of c_q W_q over the chosen q``.

*Pairs.* A linear score of its scalars tells which pairs of atoms a layer computes.

All weights keep their shape for good, so that optimisers, averages and checkpoints know nothing of
the phases: the fixed product selects the columns it needs (once per step, some 10^5 numbers) and
computes with these alone, weights of paths left out get a gradient of zero.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hambench.data.counts import Count
from hambench.o3.products import Path, PathProduct, triangle_paths

Phase = Literal["random", "adaptive", "fixed"]
GateScope = Literal["molecule", "batch"]
GateForm = Literal["fading", "hard"]
_LEAST: Final = 1e-3
"""Added in squares to the deviation of scores, below which fading gates close."""


def path_coefficients(paths: Sequence[Path]) -> list[float]:
    """``sqrt(d / n sqrt(d / P))``: d components of the result, n paths to it, P paths in all.

    The public code passes ``sqrt(d / P)`` as the weight of a path to e3nn, which normalises again.
    """
    to = Counter(path.l3 for path in paths)
    dims = [2 * path.l3 + 1 for path in paths]
    return [
        math.sqrt(d / to[path.l3] * math.sqrt(d / len(paths)))
        for path, d in zip(paths, dims, strict=True)
    ]


def dropped(count: int, sparsity: float) -> int:
    """How many of ``count`` numbers are below their quantile ``sparsity``, if no two are equal.

    The quantile is interpolated linearly, so all below place ``sparsity (count - 1)`` are.
    """
    return math.ceil(sparsity * (count - 1) - 1e-9)


class Choice(NamedTuple):
    """How the products of one forward pass choose their paths."""

    phase: Phase
    generator: torch.Generator | None = None


class Clock(nn.Module):
    """In which phase the choice of paths is.

    A step is a training pass with gradients; the passes without, by which the trainer sums the loss
    over parts of a batch, look ahead to those that follow them. Random choices follow from the step
    and a seed that is part of the state, so that a run that goes on from a checkpoint repeats them.

    Args:
        random_steps: steps of random paths; the first is number 1.
        adaptive_steps: steps with the best paths of the moment, after these.
    """

    step: Tensor
    seed: Tensor

    def __init__(self, random_steps: int, adaptive_steps: int) -> None:
        super().__init__()
        self.random_steps, self.adaptive_steps = random_steps, adaptive_steps
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.register_buffer("seed", torch.randint(2**31, ()))
        self._read: tuple[int, ...] = ()
        self._numbers = [0, 0]
        self._ahead = 0

    @property
    def fixed_step(self) -> int:
        """Number of the first step in the fixed phase, where counting ends."""
        return self.random_steps + self.adaptive_steps + 1

    @property
    def ended(self) -> bool:
        """Whether the fixed phase has begun."""
        return self.numbers()[0] >= self.fixed_step

    def numbers(self) -> list[int]:
        """Step and seed. They wait for the device only after somebody else has set them."""
        state = (self.step.data_ptr(), self.step._version, self.seed.data_ptr())
        if state != self._read:
            self._numbers = [int(self.step), int(self.seed)]
            self._read = state
        return self._numbers

    def advance(self) -> bool:
        """Begin another step; whether that begins the fixed phase."""
        step, seed = self.numbers()
        self._ahead = 0
        if step >= self.fixed_step:
            return False
        self._set(step + 1, seed)
        return step + 1 == self.fixed_step

    def look_ahead(self) -> None:
        """Choose for the next step, or the one after that the last time was asked for."""
        self._ahead += 1

    def finish(self) -> None:
        """Go to the fixed phase at once."""
        self._set(self.fixed_step, self.numbers()[1])

    def choice(self, training: bool) -> Choice:
        """For the step. Paths are drawn in training alone, the best are taken else."""
        step, seed = self.numbers()
        if step >= self.fixed_step:
            return Choice("fixed")
        step += self._ahead if training else 0
        if training and step <= self.random_steps:
            return Choice("random", torch.Generator().manual_seed((seed << 32) + step))
        return Choice("adaptive")

    def _set(self, step: int, seed: int) -> None:
        with torch.no_grad():
            self.step.fill_(step)
        self._numbers = [step, seed]
        self._read = (self.step.data_ptr(), self.step._version, self.seed.data_ptr())


class Chosen(NamedTuple):
    """Paths of a product.

    Attributes:
        product: along them.
        kept: (n,) their places among all paths; None: they are all.
        coefficients: (n,) of each; zero where a path is not chosen.
    """

    product: PathProduct
    kept: Tensor | None
    coefficients: Tensor

    def columns(self, weights: Tensor, dim: int) -> Tensor:
        """Those of the kept paths, of weights with all paths in dimension ``dim``."""
        return weights if self.kept is None else weights.index_select(dim, self.kept)


class SparseProduct(nn.Module):
    """The product of two features along all triangle paths, or along chosen ones.

    Args:
        lmax: largest degree.
        sparsity: share of paths left out; None: all paths are taken, always.

    Attributes:
        paths: all of them.
        importance: (P,) W, None where all paths are taken.
        mask: (P,) paths of the fixed phase, and coefficients (P,), those of others zero.
    """

    dense: Tensor
    mask: Tensor
    coefficients: Tensor

    def __init__(self, lmax: int, sparsity: float | None) -> None:
        super().__init__()
        self.lmax, self.sparsity = lmax, sparsity
        self.paths = triangle_paths(lmax)
        self.product = PathProduct(self.paths)
        dense = torch.tensor(path_coefficients(self.paths), dtype=torch.float64)
        self._exact = dense
        self.importance: nn.Parameter | None = None
        if sparsity is not None:
            self.importance = nn.Parameter(torch.ones(len(self.paths)))
            self.register_buffer("mask", torch.ones(len(self.paths), dtype=torch.bool))
            self.register_buffer("coefficients", torch.zeros(len(self.paths)))
        self._fixed: tuple[tuple[int, int], PathProduct, Tensor] | None = None
        self._moved: tuple[tuple[torch.dtype, torch.device], Tensor] | None = None

    def dense_coefficients(self, like: Tensor) -> Tensor:
        """(P,) c, in the type and on the device of ``like``."""
        key = like.dtype, like.device
        if self._moved is None or self._moved[0] != key:
            self._moved = key, self._exact.to(like.device, like.dtype)
        return self._moved[1]

    def choose(self, choice: Choice | None, like: Tensor) -> Chosen:
        """The paths to take now.

        Args:
            choice: None: all.
            like: features to come.
        """
        if choice is None or self.importance is None:
            return Chosen(self.product, None, self.dense_coefficients(like))
        if choice.phase == "fixed":
            product, kept = self._rebuilt()
            return Chosen(product, kept, self.coefficients.index_select(0, kept))
        places = self._best() if choice.generator is None else self._drawn(choice.generator)
        mask = torch.zeros_like(self.importance).index_fill(0, places, 1.0)
        return Chosen(self.product, None, self._shares(mask))

    def freeze(self) -> None:
        """Take the paths of the largest W as they are now, for good."""
        assert self.importance is not None
        with torch.no_grad():
            mask = torch.zeros_like(self.mask).index_fill(0, self._best(), True)
            self.mask.copy_(mask)
            self.coefficients.copy_(self._shares(mask.to(self.importance)))

    def forward(self, a: Tensor, b: Tensor, weights: Tensor, chosen: Chosen) -> Tensor:
        """(R, S, C) features and weights (R or 1, n, C), coefficients included -> (R, S, C)."""
        out: Tensor = chosen.product(a, b, weights)
        missing = (self.lmax + 1) ** 2 - out.shape[1]  # degrees that no chosen path leads to
        return functional.pad(out, (0, 0, 0, missing)) if missing else out

    def _shares(self, mask: Tensor) -> Tensor:
        assert self.importance is not None
        terms = self.dense_coefficients(mask) * self.importance * mask
        return terms / terms.sum()

    def _best(self) -> Tensor:
        """Places of the largest W; of equal ones the first."""
        assert self.importance is not None and self.sparsity is not None
        order = self.importance.detach().argsort(descending=True, stable=True)
        return order[: len(self.paths) - dropped(len(self.paths), self.sparsity)]

    def _drawn(self, generator: torch.Generator) -> Tensor:
        assert self.importance is not None and self.sparsity is not None
        count = int((1 - self.sparsity) * len(self.paths))
        places = torch.randperm(len(self.paths), generator=generator)[: max(count, 1)]
        return places.to(self.importance.device, non_blocking=True)

    def _rebuilt(self) -> tuple[PathProduct, Tensor]:
        """The product along the paths of the mask, and their places; made once for a mask."""
        state = self.mask.data_ptr(), self.mask._version
        if self._fixed is None or self._fixed[0] != state:
            kept = self.mask.nonzero()[:, 0]
            product = PathProduct([self.paths[p] for p in kept.tolist()]).to(kept.device)
            self._fixed = state, product, kept
        return self._fixed[1], self._fixed[2]


class Kept(NamedTuple):
    """Rows that a pair gate keeps.

    There are as many as a batch of these numbers of rows and molecules can have; where there are
    fewer, the last ones are no rows to keep, with a gate of zero.

    Attributes:
        rows: (n,) ascending, as far as they are kept.
        gates: (n, 1) factors of their scalars, in [1/2, 1).
        shares: (n, 1) factors of what is computed of them, in [0, 1].
    """

    rows: Tensor
    gates: Tensor
    shares: Tensor


class PairGate(nn.Module):
    """Keeps the rows whose score is at least the quantile ``sparsity`` of all scores.

    ``a = w . scalars`` (the public code's bias acts on nothing), ``g = sigmoid(a - q)``. As many
    rows are kept as there are without ties; of equal scores at the quantile the last rows are.
    Ties come with symmetric molecules: a ``hard`` gate then breaks their symmetry, and beside them
    the prediction jumps. A ``fading`` one does neither, as rows at the quantile have no share.

    Args:
        inputs: number of scalars.
        sparsity: share of rows to leave out.
        form: ``fading``: what is computed of a row is multiplied by ``tanh(2 (a - q) / d)``, d the
            standard deviation of the scores; ``hard``: by one, as published.
        scope: quantile over the rows of each ``molecule``, or over those of the ``batch``, as
            published: then a molecule's prediction depends on the others beside it.
    """

    def __init__(self, inputs: int, sparsity: float, form: GateForm, scope: GateScope) -> None:
        super().__init__()
        self.sparsity, self.form, self.scope = sparsity, form, scope
        self.linear = nn.Linear(inputs, 1, bias=False)

    def forward(self, scalars: Tensor, owner: Tensor, molecules: int, real: Count) -> Kept:
        """Choose among rows.

        Args:
            scalars: (R, inputs).
            owner: (R,) molecule of each row.
            molecules: of the batch.
            real: how many of them are no padding, see `Counts`; they come first.
        """
        scores = self.linear(scalars)[:, 0]
        if self.scope == "batch":  # padding is kept apart
            owner, molecules = (owner >= real).long(), 1 if isinstance(real, int) else 2
        above, quantiles = segment_quantiles(scores, owner, molecules, self.sparsity)
        share = (1 - self.sparsity) * len(scores) + self.sparsity * molecules
        most = min(len(scores), math.floor(share + 1e-6))
        rows = (~above).to(torch.uint8).argsort(stable=True)[:most]
        some = above.index_select(0, rows).to(scores)[:, None]
        excess, shares = scores - quantiles, some
        if self.form == "fading":
            opened = (2 * excess / segment_spread(scores, owner, molecules)).tanh()
            shares = opened.index_select(0, rows)[:, None] * some
        return Kept(rows, excess.index_select(0, rows).sigmoid()[:, None] * some, shares)


def segment_spread(values: Tensor, owner: Tensor, segments: int) -> Tensor:
    """(R,) ``sqrt(variance + 1e-3^2)`` of the segment of each of the values (R,)."""

    def mean(x: Tensor) -> Tensor:
        sums = x.new_zeros(segments).index_add(0, owner, x)
        return (sums / counts).index_select(0, owner)

    counts = values.new_zeros(segments).index_add(0, owner, torch.ones_like(values)).clamp(min=1)
    return (mean((values - mean(values)).square()) + _LEAST**2).sqrt()


def segment_quantiles(
    values: Tensor, owner: Tensor, segments: int, share: float
) -> tuple[Tensor, Tensor]:
    """Quantiles within segments, interpolated linearly.

    Args:
        values: (R,).
        owner: (R,) segment of each value.
        segments: how many there are; empty ones too.
        share: which quantile, in [0, 1).

    Returns:
        (R,) whether a value is among those that reach the quantile (their number is that of
        distinct values; equal ones count in their order), and the quantile of its segment.
    """
    order = values.argsort(stable=True)
    order = order.index_select(0, owner.index_select(0, order).argsort(stable=True))
    counts = owner.new_zeros(segments).index_add(0, owner, torch.ones_like(owner))
    starts = counts.cumsum(0) - counts
    place = share * (counts - 1).clamp(min=0).double()
    below = (place + 1e-9).floor()
    weight = (place - below).clamp(min=0)
    first = (starts + below.long())[owner]
    second = torch.minimum(first + 1, (starts + counts - 1)[owner])
    low, high = (values.index_select(0, order.index_select(0, at)) for at in (first, second))
    quantiles = low + weight[owner].to(values.dtype) * (high - low)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order), device=order.device)
    least = starts + (place - 1e-9).ceil().long()
    return ranks >= least[owner], quantiles
