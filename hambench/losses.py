"""Losses that models share, as sums over the entries of Hamiltonians (or overlaps).

Errors are those of the packed labels: entries that exist for the elements of a block, both blocks
of every pair, in the space and scaling of the model's labels. In the uncoupled space they are
matrix elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from hambench.data.graph import Batch, pair_labels
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


def label_errors(
    prediction: Prediction, batch: Batch, label: Literal["hamiltonian", "overlap"] = "hamiltonian"
) -> tuple[Tensor, Tensor]:
    """Predicted minus labelled entries of on-site blocks and of pair blocks, flat.

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
    places, pairs = pair_labels(batch, values)
    return (
        node[: batch.real.atoms].reshape(-1).index_select(0, batch.node_places) - batch[field],
        edge[: batch.real.edges].reshape(-1).index_select(0, places) - pairs,
    )


def mse_plus_mae(errors: list[Tensor], weight: float = 1.0) -> Loss:
    """Mean square plus mean absolute error, over all entries of the batch (PhiSNet, QHNet's MD17).

    Args:
        errors: parts of the entries, such as `label_errors`.
        weight: of the loss.
    """
    square = torch.stack([e.square().sum() for e in errors]).sum()
    absolute = torch.stack([e.abs().sum() for e in errors]).sum()
    count = square.new_full((2,), sum(e.numel() for e in errors))
    return Loss(weight * torch.stack([square, absolute]), count, sum_of_means)


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
    errors = torch.cat([node, edge])
    shares = batch.nao.to(errors.dtype).square().reciprocal()[owners]
    terms = torch.stack([(errors.square() * shares).sum(), (errors.abs() * shares).sum()])
    return Loss(terms, terms.new_full((2,), batch.real.molecules), sum_of_means)


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
    parts = _padded_errors(prediction, batch) if padded else label_errors(prediction, batch)
    total, count = parts[0].new_zeros(()), 0.0
    for weight, errors in zip(weights, parts, strict=True):
        total = total + weight * errors.square().sum()
        count += weight * errors.numel()
    return Loss(total[None], total.new_full((1,), count), rmse_plus_mse)


def _padded_errors(prediction: Prediction, batch: Batch) -> tuple[Tensor, Tensor]:
    """As `label_errors`, of all places of the blocks; empty ones are to be zero."""
    node, edge = label_errors(prediction, batch)  # refuses a batch without labels
    assert prediction.node is not None and prediction.edge is not None
    found = []
    for rows, places, errors in (
        (prediction.node[: batch.real.atoms], batch.node_places, node),
        (prediction.edge[: batch.real.edges], pair_labels(batch)[0], edge),
    ):
        found.append(rows.reshape(-1).index_copy(0, places, errors))
    return found[0], found[1]
