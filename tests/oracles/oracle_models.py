"""The oracles of networks as models: trained like what they are compared with.

Graph, loss and weights are those of the model, so `hambench.learn` does the same step on both: the
same loss of the same labels, the same optimiser. Only the forward pass, and with it the backward
pass, is the oracle's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import phisnet_oracle
import qhnet_oracle
import schnorb_oracle
import sphnet_cases
import torch
from sphnet_oracle import Paths
from torch import Tensor, nn
from torch.nn.functional import pad

from hambench.baselines import PhiSNet, QHNet, SchNOrb, SPHNet
from hambench.baselines.schnorb.published import published_tensors
from hambench.data.graph import Batch, GraphSpec, pair_labels
from hambench.data.matrices import entry_places
from hambench.model import Loss, Model, Prediction

Predict = Callable[[Batch], Prediction]


class OracleModel(Model):
    """An oracle in the place of a model's network.

    Args:
        model: on its device; gives graph and loss.
        weights: what is trained, the model itself or copies of its weights under public names.
        predict: by these weights.
    """

    def __init__(self, model: Model, weights: nn.Module, predict: Predict) -> None:
        super().__init__(model.basis)
        self.weights, self.predict = weights, predict
        self._model = (model,)  # no module of this one: its weights are trained where they are used

    @property
    def graph(self) -> GraphSpec:
        """That of the model."""
        return self._model[0].graph

    def forward(self, batch: Batch) -> Prediction:
        """What the oracle says."""
        return self.predict(batch)

    def loss(self, prediction: Prediction, batch: Batch) -> Loss:
        """That of the model."""
        return self._model[0].loss(prediction, batch)


def oracle_model(model: Model) -> OracleModel:
    """The oracle of a model, with the weights that the model has now.

    `SPHNet` has to be in its fixed phase. The oracle of `SchNOrb` is for molecules of one size.
    """
    weights, predict = _ORACLES[type(model)](model)
    return OracleModel(model, weights, predict)


def _qhnet(model: QHNet) -> tuple[nn.Module, Predict]:
    return model, qhnet_oracle.PathByPath(model)


def _phisnet(model: PhiSNet) -> tuple[nn.Module, Predict]:
    oracle = phisnet_oracle.PathByPath(model)

    def predict(batch: Batch) -> Prediction:
        hamiltonians, overlaps = oracle(batch)
        node, edge = vectors(batch, model.graph, hamiltonians)
        overlap = vectors(batch, model.graph, overlaps) if overlaps else None
        return Prediction(batch, model.graph, node=node, edge=edge, overlap=overlap)

    return oracle, predict


def _schnorb(model: SchNOrb) -> tuple[nn.Module, Predict]:
    weights = {
        name: nn.Parameter(weight.detach())
        for name, weight in schnorb_oracle.leaves(published_tensors(model, lambda p: p)).items()
    }
    mean = model.hyperparameters["mean_messages"]
    oracle = schnorb_oracle.Oracle(weights, model.orbitals, mean=mean)

    def predict(batch: Batch) -> Prediction:
        rows = batch.numbers.view(len(batch.nao), -1)
        found = oracle(rows, batch.positions.view(*rows.shape, 3))["H"]
        node, edge = vectors(batch, model.graph, oracle.cut(found, rows))
        return Prediction(batch, model.graph, node=node, edge=edge)

    return nn.ParameterList(weights.values()), predict


def _sphnet(model: SPHNet) -> tuple[nn.Module, Predict]:
    """All paths, with coefficients of which most are zero."""
    layers = [*model.head.atom, *model.head.pair]
    paths = [Paths(coefficients=layer.product.coefficients) for layer in layers]
    oracle = sphnet_cases.oracle(model, paths, sparsity=model.hyperparameters["sparsity"])

    def predict(batch: Batch) -> Prediction:
        spec = model.graph
        square = spec.layout.square.to(batch.numbers.device).reshape(-1)
        node, later = oracle(batch)
        blocks = later.new_zeros(batch.num_edges, *later.shape[1:])
        first, second = batch.pair_index
        blocks = blocks.index_copy(0, second, later).index_copy(0, first, later.mT)
        node, edge = (
            some.new_zeros(len(some), square.numel()).index_copy(1, square, some.flatten(1))
            for some in (node, blocks)
        )
        return Prediction(batch, spec, node=node, edge=edge)

    return model, predict


_ORACLES: dict[type[Model], Callable[..., tuple[nn.Module, Predict]]] = {
    PhiSNet: _phisnet,
    QHNet: _qhnet,
    SchNOrb: _schnorb,
    SPHNet: _sphnet,
}


def vectors(batch: Batch, spec: GraphSpec, matrices: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Uncoupled on-site and pair vectors of matrices, at the places that have labels.

    Args:
        batch: with labels.
        spec: of its vectors.
        matrices: of every molecule.
    """
    size, width = spec.layout.size, max(map(len, matrices))
    margins = [(0, width - len(matrix)) * 2 for matrix in matrices]
    padded = [pad(matrix, margin) for matrix, margin in zip(matrices, margins, strict=True)]
    flat = torch.stack(padded).reshape(-1)
    rows = len(batch.numbers), batch.num_edges
    places = batch.node_places, pair_labels(batch)[0]
    node, edge = (
        flat.new_zeros(count * size).index_copy(0, at, flat[where]).view(count, size)
        for count, at, where in zip(
            rows, places, entry_places(batch, spec.layout, width), strict=True
        )
    )
    return node, edge
