"""What the public codes of QHNet carry without using it: names and shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

from hambench.o3.products import triangle_paths

if TYPE_CHECKING:
    from hambench.baselines.qhnet.model import QHNet

Edition = Literal["airs", "nabladft"]
"""Public code: divelab/AIRS (MD17, QH9), or AIRI-Institute/nablaDFT."""

EDITIONS: Final[tuple[Edition, ...]] = get_args(Edition)


def unused_shapes(model: QHNet, edition: Edition) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that ``edition`` has beyond those of ``model``, by its names.

    Both have a vector in each expansion, whose weights come from elsewhere. In AIRS the first
    convolution has the gate and the linear maps of the others, whose input it takes as it is, pair
    layers have a second product, and alpha is there where it is fixed.
    """
    channels = model.embedding.embedding_dim
    shapes: dict[str, tuple[int, ...]] = {}
    for kind, head in (("ii", model.on_site), ("ij", model.pair)):
        size = head.expansion.weights + head.expansion.biases
        shapes[f"expand_{kind}.hamiltonian.weights"] = (size,)
    if edition == "nabladft":
        return shapes
    if model.radial.raw is None:
        shapes["distance_expansion._alpha"] = ()
    first = "e3_gnn_layer.0.conv"
    for k in (0, 2):
        shapes[f"{first}.norm_gate.fc.{k}.weight"] = (channels, channels)
        shapes[f"{first}.norm_gate.fc.{k}.bias"] = (channels,)
    for name in ("linear_node", "linear_node_pre"):
        shapes[f"{first}.{name}.weight"] = (channels * channels,)
        shapes[f"{first}.{name}.bias"] = (channels,)
    paths = len(triangle_paths(model.lmax))
    for k in range(len(model.pair_layers)):
        pair = f"e3_gnn_node_pair_layer.{k}"
        shapes[f"{pair}.tp_node_pair_2.weight"] = (paths * channels,)
        shapes[f"{pair}.linear_node_pair_2.weight"] = ((model.lmax + 1) * channels * channels,)
        shapes[f"{pair}.linear_node_pair_2.bias"] = (channels,)
    return shapes
