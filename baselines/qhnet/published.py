"""Checkpoints of QHNet's public codes, mapped onto our parameters.

divelab/AIRS and AIRI-Institute/nablaDFT have the same names for all that computes. The matrices of
e3nn's linear maps are flat there, degree by degree, input index slow, weights of products path by
path; so are ours, but for the shape.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from hambench.baselines.qhnet.model import QHNet
from hambench.baselines.qhnet.unused import EDITIONS, unused_shapes
from hambench.errors import CheckpointError, first_of

_RULES: tuple[tuple[str, str], ...] = (
    (r"^node_embedding\.", "embedding."),
    (r"^distance_expansion\._alpha$", "radial.raw"),
    (r"^output_ii\.", "on_site.reduce."),
    (r"^output_ij\.", "pair.reduce."),
    (r"^fc_ii\.hamiltonian\.", "on_site.weights."),
    (r"^fc_ii_bias\.hamiltonian\.", "on_site.biases."),
    (r"^fc_ij\.hamiltonian\.", "pair.weights."),
    (r"^fc_ij_bias\.hamiltonian\.", "pair.biases."),
    (r"^e3_gnn_layer\.0\.conv\.", "first."),
    (r"^e3_gnn_layer\.(\d+)\.conv\.", r"convolutions.\1."),
    (r"^e3_gnn_node_layer\.", "self_layers."),
    (r"^e3_gnn_node_pair_layer\.", "pair_layers."),
    (r"\.fc_node(_pair)?\.layer(\d)\.weight$", r".radial_weights.weights.\2"),
    (r"\.layer_l0\.layer(\d)\.weight$", r".scalar_weights.weights.\1"),
    (r"^(pair_layers\.\d+)\.fc\.", r"\1.scalar_weights."),
    (r"\.norm_gate_1\.fc\.", ".left_gate.network."),
    (r"\.norm_gate_2\.fc\.", ".right_gate.network."),
    (r"\.norm_gate_pre\.fc\.", ".node_gate.network."),
    (r"\.norm_gate\.fc\.", ".gate.network."),
    (r"\.linear_node_1\.", ".left."),
    (r"\.linear_node_2\.", ".right."),
    (r"\.linear_node_3\.", ".output."),
    (r"\.tp\.weight$", ".weights"),
    (r"\.linear_(node_pre|node_pair_inner)\.", ".inner."),
    (r"\.linear_(node|node_pair_n)\.", ".node."),
    (r"\.linear_(out|node_pair)\.", ".output."),
)
_CONSTANT = re.compile(r"\.output_mask$|\._w3j_|^distance_expansion\.(cutoff|logc|n|v)$")
"""Buffers of e3nn and of the radial basis, which follow from the settings."""

_FIXED_ALPHA = -0.43275213
"""What the raw alpha is where it is not used: the inverse of softplus at 0.5."""


def load_published(model: QHNet, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict of a public code into `QHNet`, in place.

    Weights that the public codes never use are taken where the model has a place for them, and may
    be absent.

    Args:
        model: built with the hyperparameters of the checkpoint.
        weights: the public code's tensors by name.

    Raises:
        CheckpointError: a tensor that is missing, left over, or of another size; names the first.
    """
    own: dict[str, Tensor] = dict(model.named_parameters())
    unused: dict[str, Tensor | None] = {}
    for edition in EDITIONS:
        unused |= dict.fromkeys(unused_shapes(model, edition))
    if hasattr(model, "unused"):
        own = {k: v for k, v in own.items() if not k.startswith("unused.")}
        unused |= model.unused.by_name()
    mapped: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        original = name.removeprefix("net.")  # of Lightning, in nablaDFT
        if _CONSTANT.search(original) or not tensor.numel():
            continue
        if original in unused:
            _take_unused(unused[original], tensor, original)
            continue
        target = renamed(original)
        if target not in own:
            raise CheckpointError(
                f"published tensor '{name}' has no place in this {type(model).__name__}; build the "
                "model with the checkpoint's layers"
            )
        if tensor.numel() != own[target].numel():
            raise CheckpointError(
                f"published tensor '{name}' holds {tensor.numel()} numbers, '{target}' "
                f"{own[target].numel()}; build the model with the checkpoint's width, basis, "
                "radial functions and embedding_rows"
            )
        mapped[target] = tensor.detach().reshape(own[target].shape)
    missing = [name for name in own if name not in mapped]
    if missing:
        raise CheckpointError(
            f"the published checkpoint lacks {first_of(missing)}; "
            "build the model with the checkpoint's layers, and learn_alpha as it had"
        )
    for name, tensor in mapped.items():
        own[name].data.copy_(tensor)


def _take_unused(place: Tensor | None, tensor: Tensor, name: str) -> None:
    """Keep a tensor without use, if there is a place."""
    if name.endswith("._alpha") and abs(float(tensor) - _FIXED_ALPHA) > 1e-6:
        raise CheckpointError(
            f"published tensor '{name}' was trained, and this model's alpha is fixed; build the "
            "model with learn_alpha=true"
        )
    if place is None:
        return
    if place.numel() != tensor.numel():
        raise CheckpointError(
            f"published tensor '{name}' holds {tensor.numel()} numbers, here it has "
            f"{place.numel()}; build the model with the checkpoint's width and basis"
        )
    place.data.copy_(tensor.detach().reshape(place.shape))


def renamed(name: str) -> str:
    """Our name of a parameter of the public codes."""
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    # their first layer is `first` here, so the others count from 0
    return re.sub(r"^convolutions\.(\d+)", lambda m: f"convolutions.{int(m[1]) - 1}", name)
