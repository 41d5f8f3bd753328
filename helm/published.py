"""Checkpoints of HELM's public code, mapped onto our parameters.

The public code (manasakani/maloq) names its modules differently and keeps the head's matrices
flat, input index slow, as e3nn's linear layers do. Names are given in its terms on the left.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from hambench.errors import CheckpointError, first_of

_RULES: tuple[tuple[str, str], ...] = (
    (r"^backbone\.sphere_embedding\.", "backbone.element."),
    (r"^backbone\.charge_embedding\.", "backbone.charge."),
    (r"^backbone\.spin_embedding\.", "backbone.multiplicity."),
    (r"^backbone\.scalar_node_embedding\.", "backbone.mixer."),
    (r"^backbone\.(source|target)_embedding\.", r"backbone.\1."),
    (r"^backbone\.edge_degree_embedding\.rad_func\.net\.", "backbone.edge_degree."),
    (r"^head\.so2_conv_", "head.edgewise.so2_conv_"),
    (r"^head\.linear\.", "head.atomwise."),
    (r"\.edge_wise\.", ".edgewise."),
    (r"\.so2_conv_([12])\.", r".conv\1."),
    (r"\.fc_m0\.", ".axial."),
    (r"\.so2_m_conv\.(\d+)\.fc\.", r".maps.\1."),
    (r"\.rad_func\.net\.", ".radial."),
    (r"\.atom_wise\.scalar_mlp\.0\.", ".feedforward.gates."),
    (r"\.atom_wise\.so3_linear_([12])\.", r".feedforward.linear\1."),
    (r"\.norm_([12])\.", r".norm\1."),
    (r"\.affine_weight$", ".scale"),
    (r"\.affine_bias$", ".shift"),
    (r"^head\.lin_scalars_learnable\.(0\.)?", "head.gate."),
    (r"^head\.node_lin_out_layers\.0\.", "head.node."),
    (r"^head\.edge_lin_out_layers\.alpha\.0\.", "head.even."),
    (r"^head\.edge_lin_out_layers\.beta\.0\.", "head.odd."),
    (r"^head\.edge_lin_out_layers\.0\.", "head.edge."),
    (r"^head\.lin_out_layers\.", "head.shared."),
    (r"^(head\.(?:node|even|odd|edge|shared))\.(\d+)\.weight$", r"\1.weights.\2"),
    (r"^(head\.(?:node|even|odd|edge|shared))\.0\.bias$", r"\1.bias"),
)


def load_published(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict of the public code into `Helm` or `HelmEnergy`, in place.

    Args:
        model: built with the hyperparameters of the checkpoint.
        weights: the public code's tensors by name; an ``epoch`` wrapper is taken off by the caller.

    Raises:
        CheckpointError: a tensor that is missing, left over, or of another size; names the first.
    """
    own = dict(model.named_parameters())
    mapped: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        target = renamed(name)
        if target not in own:
            raise CheckpointError(
                f"published tensor '{name}' has no place in this {type(model).__name__}; "
                "build the model with the checkpoint's generation, reductions and pair_gates"
            )
        if tensor.numel() != own[target].numel():
            raise CheckpointError(
                f"published tensor '{name}' holds {tensor.numel()} numbers, '{target}' "
                f"{own[target].numel()}; build the model with the checkpoint's width and basis"
            )
        mapped[target] = tensor.detach().reshape(own[target].shape)
    missing = [n for n in own if n not in mapped]
    if missing:
        raise CheckpointError(
            f"the published checkpoint lacks {first_of(missing)}; "
            "build the model with the checkpoint's generation, reductions and pair_gates"
        )
    for name, tensor in mapped.items():
        own[name].data.copy_(tensor)


def renamed(name: str) -> str:
    """Our name of a parameter of the public code."""
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name
