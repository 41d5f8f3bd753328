"""Losses that models share, as sums over the entries of Hamiltonians (or overlaps).

Errors are those of the packed labels: entries that exist for the elements of a block, both blocks
of every pair, in the space and scaling of the model's labels. In the uncoupled space they are
matrix elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hambench.data.counts import Count, Counts, as_tensor, counted
from hambench.data.graph import Batch, Normalisation, pair_labels
from hambench.data.matrices import entry_places
from hambench.errors import DataError
from hambench.model import Loss, Prediction


def rmse_plus_mse(terms: Tensor, counts: Tensor) -> Tensor:
    """``sqrt(m) + m`` of the mean square m = terms/counts (HELM; QHNet and PhiSNet alike)."""
    mean = (terms / counts).sum()
    return mean.sqrt() + mean


def sum_of_means(terms: Tensor, counts: Tensor) -> Tensor:
    """The sum of all means: MSE + MAE of squared and absolute errors."""
    return (terms / counts).sum()


def rmse_plus_mae(terms: Tensor, counts: Tensor) -> Tensor:
    """``sqrt(m) + a`` of the mean square m and the mean absolute error a (nablaDFT's QHNet)."""
    square, absolute = (terms / counts).unbind()
    return square.sqrt() + absolute


@dataclass(frozen=True)
class Errors:
    """Errors of entries.

    Attributes:
        values: flat; of padding they are zero.
        count: how many are not of padding.
    """

    values: Tensor
    count: Count


def label_errors(
    prediction: Prediction, batch: Batch, label: Literal["hamiltonian", "overlap"] = "hamiltonian"
) -> tuple[Errors, Errors]:
    """Predicted minus labelled entries of on-site blocks, and of pair blocks.

    Those of pairs are of the blocks (i, j), i < j, and then of their transposes.

    Args:
        prediction: in the space of the batch's labels.
        batch: with labels.
        label: which of them.

    Raises:
        DataError: the batch has none.
    """
    if label == "hamiltonian":
        field, vectors = "node_values", (prediction.node, prediction.edge)
        values = "pair_values"
    else:
        field, vectors = "overlap_node_values", prediction.overlap or (None, None)
        values = "overlap_pair_values"
    node, edge = vectors
    assert node is not None and edge is not None
    if field not in batch:
        name = "Hamiltonian" if label == "hamiltonian" else label
        raise DataError(f"the batch holds no {name} labels; train on molecules that have them")
    counts, (places, pairs) = Counts.of(batch), pair_labels(batch, values)
    own, both = _without_padding(
        node.reshape(-1).index_select(0, batch.node_places) - batch[field],
        edge.reshape(-1).index_select(0, places) - pairs,
        counts,
    )
    return Errors(own, counts.on_site), Errors(both, 2 * counts.pairs)


def _without_padding(own: Tensor, both: Tensor, counts: Counts) -> tuple[Tensor, Tensor]:
    """Values of on-site labels and of `pair_labels`, zero for those of padding."""
    pairs = counted(both.view(2, -1), counts.pairs, dim=1)
    return counted(own, counts.on_site), pairs.view(-1)


def mse_plus_mae(errors: Sequence[Errors], weight: float = 1.0) -> Loss:
    """Mean square plus mean absolute error, over all entries of the batch (PhiSNet, QHNet's MD17).

    Args:
        errors: parts of the entries, such as `label_errors`.
        weight: of the loss.
    """
    square = torch.stack([e.values.square().sum() for e in errors]).sum()
    absolute = torch.stack([e.values.abs().sum() for e in errors]).sum()
    count = as_tensor(sum(e.count for e in errors), square)
    return Loss(weight * torch.stack([square, absolute]), count.repeat(2), sum_of_means)


def total(losses: Sequence[Loss]) -> Loss:
    """The sum of losses, each of which finishes its own sums."""
    sizes = [len(loss.terms) for loss in losses]
    ends = [loss.finish for loss in losses]

    def finish(terms: Tensor, counts: Tensor) -> Tensor:
        parts = zip(ends, terms.split(sizes), counts.split(sizes), strict=True)
        return torch.stack([end(*sums) for end, *sums in parts]).sum()

    return Loss(
        torch.cat([loss.terms for loss in losses]),
        torch.cat([loss.counts for loss in losses]),
        finish,
    )


def molecule_mse_plus_mae(prediction: Prediction, batch: Batch) -> Loss:
    """As `mse_plus_mae` of every molecule's full matrix, then the mean over molecules (QH9)."""
    node, edge = label_errors(prediction, batch)
    size = prediction.spec.layout.size
    places, _ = pair_labels(batch)
    owners = torch.cat(
        [
            batch.batch[batch.node_places // size],
            batch.batch[batch.edge_index[1, places // size]],
        ]
    )
    errors = torch.cat([node.values, edge.values])
    shares = batch.nao.to(errors.dtype).square().reciprocal()[owners]
    terms = torch.stack([(errors.square() * shares).sum(), (errors.abs() * shares).sum()])
    molecules = as_tensor(Counts.of(batch).molecules, terms)
    return Loss(terms, molecules.repeat(2), sum_of_means)


def squared_errors(
    prediction: Prediction,
    batch: Batch,
    *,
    padded: bool = False,
    weights: tuple[float, float] = (1.0, 1.0),
) -> Loss:
    """RMSE + MSE over on-site and pair rows together, one weighted mean over all entries.

    With weights of one, as HELM has it, nodes and edges count by their numbers of entries.

    Args:
        prediction: in the space of the batch's labels.
        batch: with labels.
        padded: also count the empty places of the blocks, whose label is zero.
        weights: of an entry of an on-site and of a pair row.

    Raises:
        DataError: the batch has no labels.
    """
    parts = _block_errors(prediction, batch) if padded else label_errors(prediction, batch)
    total: Tensor = parts[0].values.new_zeros(())
    count: float | Tensor = 0.0
    for weight, errors in zip(weights, parts, strict=True):
        total = total + weight * errors.values.square().sum()
        count = count + weight * errors.count
    return Loss(total[None], as_tensor(count, total)[None], rmse_plus_mse)


def _block_errors(prediction: Prediction, batch: Batch) -> tuple[Errors, Errors]:
    """As `label_errors`, of all places of the blocks; empty ones are to be zero."""
    node, edge = label_errors(prediction, batch)  # refuses a batch without labels
    assert prediction.node is not None and prediction.edge is not None
    counts = Counts.of(batch)
    return (
        _at_all_places(prediction.node, batch.node_places, node, counts.atoms),
        _at_all_places(prediction.edge, pair_labels(batch)[0], edge, counts.edges),
    )


def _at_all_places(rows: Tensor, places: Tensor, errors: Errors, count: Count) -> Errors:
    """Errors at their places, and rows (n, K^2) at all others."""
    empty = torch.ones_like(rows).view(-1).index_fill(0, places, 0)
    placed = (rows.reshape(-1) * empty).index_add(0, places, errors.values)
    return Errors(counted(placed.view_as(rows), count).view(-1), rows.shape[1] * count)


def alignment(
    prediction: Prediction,
    batch: Batch,
    *,
    occupied: float = 1.0,
    virtual: float = 1.0,
    off_diagonal: float = 0.0,
) -> Loss:
    """Wavefunction alignment (WALoss, arXiv 2502.19227): errors between the label's own orbitals.

    With the label's orbitals C and ``A = C^T (H - H_label) C``, of which the diagonal is the error
    of the orbital energies to first order, a molecule of n orbitals has::

        1/n sum_pp' w_p A_pp'^2  +  off_diagonal / (n (n - 1)) sum_pq A_pq^2

    where p' runs over the orbitals degenerate with p, mostly p alone, and q over all others;
    averaged over molecules. The paper squares the diagonal alone, which within a degenerate set
    depends on the choice of its orbitals; the block does not. Of pairs beyond the model's cutoff,
    which it cannot change, no error is counted. No derivative of an eigensolver is taken.

    Args:
        prediction: of Hamiltonians.
        batch: whose spec asked for labels ``orbitals``.
        occupied: w of sets with occupied orbitals or the lowest empty one (the paper's rho).
        virtual: w of all others (xi).
        off_diagonal: see above.

    Raises:
        DataError: the batch has no orbitals.
    """
    if "orbitals" not in batch:
        raise DataError(
            "the batch holds no orbitals of its labels; make it of molecules with Hamiltonians, "
            "and a spec whose labels name 'orbitals' too"
        )
    orbitals = batch.orbitals
    errors = error_matrices(prediction, batch, orbitals.shape[-1])
    squares = (orbitals.mT @ errors @ orbitals).square()
    sets = batch.orbital_sets
    same = sets[:, :, None] == sets[:, None, :]
    low = (sets < batch.low_sets[:, None]).to(squares.dtype)
    weights = virtual + (occupied - virtual) * low
    count = (sets >= 0).sum(1)
    terms = (squares * (same * weights[:, :, None])).sum((1, 2)) / count.clamp(min=1)
    if off_diagonal:
        others = (count * (count - 1)).clamp(min=1)
        terms = terms + off_diagonal * (squares * ~same).sum((1, 2)) / others
    molecules = as_tensor(Counts.of(batch).molecules, terms)
    return Loss(terms.sum()[None], molecules[None], sum_of_means)


def error_matrices(prediction: Prediction, batch: Batch, width: int) -> Tensor:
    """(B, width, width) symmetric errors of Hamiltonians in Eh, in the type of the labels.

    They are differentiable, in canonical order and padded with zeros. Where two atoms have no edge
    there is none.

    Args:
        prediction: in the space and scaling of the batch's labels.
        batch: with labels.
        width: orbitals of the largest molecule, or more.
    """
    spec, molecules = prediction.spec, len(batch.orbitals)
    blocks, scaling = spec.layout, spec.normalisation
    node, edge = (errors.values for errors in label_errors(prediction, batch))
    places = batch.node_places, batch.pair_places.reshape(-1).long()

    def on_site(vectors: Tensor) -> Tensor:
        if scaling is not None:
            coupled = vectors if spec.space == "coupled" else blocks.couple(vectors)
            vectors = coupled * _deviations(scaling, vectors)[batch.numbers]
        return blocks.uncouple(vectors)

    if spec.space == "coupled" or scaling is not None:
        node = _converted(node, places[0], len(batch.numbers), blocks.size, on_site)
    if spec.space == "coupled":
        edge = _converted(edge, places[1], batch.edge_index.shape[1], blocks.size, blocks.uncouple)
    node, edge = _without_padding(node, edge, Counts.of(batch))
    where = torch.cat(entry_places(batch, blocks, width))
    flat = node.new_zeros(molecules * width**2).index_add(0, where, torch.cat([node, edge]))
    matrices = flat.view(molecules, width, width)
    return (matrices + matrices.mT) / 2


def _converted(
    values: Tensor, places: Tensor, rows: int, size: int, convert: Callable[[Tensor], Tensor]
) -> Tensor:
    """Values at places of (rows, size) vectors, after a conversion of these."""
    vectors = values.new_zeros(rows * size).index_add(0, places, values)
    return convert(vectors.view(rows, size)).reshape(-1).index_select(0, places)


_DEVIATIONS: WeakKeyDictionary[Normalisation, dict[tuple[torch.device, torch.dtype], Tensor]]
_DEVIATIONS = WeakKeyDictionary()


def _deviations(scaling: Normalisation, like: Tensor) -> Tensor:
    """``scaling.std`` on the device, moved once: every copy waits for the device."""
    moved = _DEVIATIONS.setdefault(scaling, {})
    key = like.device, like.dtype
    if key not in moved:
        moved[key] = scaling.std.to(*key)
    return moved[key]
