"""Checkpoints of SPHNet's public code (microsoft/SPHNet), mapped onto our parameters.

They are those of models whose paths are not fixed yet, as the public code keeps fixed paths in
files beside the checkpoint. Weights that act on nothing may be there or not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from hambench.baselines.sphnet.model import SPHNet
from hambench.baselines.sphnet.unused import REST
from hambench.errors import CheckpointError, first_of

_RULES: tuple[tuple[str, str], ...] = (
    (r"^representation_model\.radial_basis_functions\._alpha$", "backbone.basis.raw"),
    (r"^representation_model\.Vectorial_interaction\.", "backbone.vectorial."),
    (r"\.node_fea_init\.embedding\.", ".element."),
    (r"\.node_fea_init\.distance_encoder\.", ".near_basis."),
    (r"\.node_fea_init\.rbf_linear\.", ".edge."),
    (r"\.node_fea_init\.neighbor_embedding\.embedding\.", ".neighbour."),
    (r"\.node_fea_init\.neighbor_embedding\.distance_proj\.", ".neighbour_filter."),
    (r"\.node_fea_init\.neighbor_embedding\.combine\.", ".combine."),
    (r"\.mlp_node_fea\.", ".scalars."),
    (r"\.bipartite_edge_fea_init\.distance_encoder\.", ".group_basis."),
    (r"\.bipartite_edge_fea_init\.rbf_linear\.", ".group_edge."),
    (r"\.visnet_att0\.(\d+)\.", r".short.\1."),
    (r"\.short\.(\d+)\.layernorm\.", r".short.\1.norm."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.dk_proj\.", ".key_edge."),
    (r"\.dv_proj\.", ".value_edge."),
    (r"\.s_proj\.", ".split."),
    (r"\.o_proj\.", ".out."),
    (r"\.vec_proj\.", ".vector."),
    (r"\.f_proj\.", ".edge."),
    (r"\.src_proj\.", ".source."),
    (r"\.trg_proj\.", ".target."),
    (r"\.longshortinteract_models\.(\d+)\.", r".long.\1."),
    (r"\.layernorm_node\.", ".norm."),
    (r"\.layernorm_group\.", ".group_norm."),
    (r"\.model_2\.q\.", ".query."),
    (r"\.model_2\.k\.", ".key."),
    (r"\.model_2\.val\.", ".value."),
    (r"\.model_2\.mlp_scalar_pos\.", ".direction."),
    (r"\.model_2\.mlp_scalar_vec\.", ".vector."),
    (r"\.model_2\.linears\.0\.", ".gate."),
    (r"\.model_2\.linears\.1\.", ".carry."),
    (r"\.model_2\.linears\.2\.", ".left."),
    (r"\.model_2\.linears\.3\.", ".right."),
    (r"\.model_2\.linears\.4\.", ".scale."),
    (r"\.model_2\.linears\.5\.", ".shift."),
    (r"\.out_norm1\.", ".short_norm."),
    (r"\.out_norm2\.", ".long_norm."),
    (r"^representation_model\.Spherical_interaction\.0\.conv\.", "backbone.first."),
    (r"^representation_model\.Spherical_interaction\.1\.conv\.", "backbone.second."),
    (r"\.fc_node\.layer(\d)\.weight$", r".radial.weights.\1"),
    (r"\.layer_l0\.layer(\d)\.weight$", r".scalars.weights.\1"),
    (r"\.norm\.affine_weight$", ".norm.scale"),
    (r"\.norm\.norm_l0\.", ".norm.scalar."),
    (r"\.linear_node_pre\.", ".before."),
    (r"\.linear_node\.", ".linear."),
    (r"\.linear_out\.", ".output."),
    (r"\.norm_gate\.fc\.", ".gate.network."),
    (r"\.pair_select_layer\.", ".select.linear."),
    (r"^hami_model\.rbf\._alpha$", "head.basis.raw"),
    (r"^hami_model\.e3_gnn_node_layer\.", "head.atom."),
    (r"^hami_model\.e3_gnn_node_pair_layer\.", "head.pair."),
    (r"\.norm_gate_1\.fc\.", ".left_gate.network."),
    (r"\.norm_gate_2\.fc\.", ".right_gate.network."),
    (r"\.linear_node_1\.", ".left."),
    (r"\.linear_node_2\.", ".right."),
    (r"\.linear_node_3\.", ".output."),
    (r"\.tp_(?:sp|node_pair_sp)\.path_weights$", ".product.importance"),
    (r"\.tp_(?:sp|fix)\.weight$", ".weight"),
    (r"\.norm_gate_pre\.fc\.", ".input_gate.network."),
    (r"\.linear_node_pair_input\.", ".input."),
    (r"\.linear_node_pair_inner\.", ".before."),
    (r"\.fc_node_pair\.layer0\.weight$", ".weights.radial_hidden"),
    (r"\.fc_node_pair\.layer1\.weight$", ".weights.radial_last"),
    (r"^(head\.pair\.\d)\.fc\.0\.", r"\1.weights.scalar_hidden."),
    (r"^(head\.pair\.\d)\.fc\.2\.", r"\1.weights.scalar_last."),
    (r"\.node_residual\.", ".output."),
    (r"^hami_model\.fc_ii\.hamiltonian\.", "head.atom_expansion.weights."),
    (r"^hami_model\.fc_ij\.hamiltonian\.", "head.pair_expansion.weights."),
    (r"^hami_model\.fc_ii_bias\.hamiltonian\.", "head.atom_expansion.biases."),
    (r"^hami_model\.fc_ij_bias\.hamiltonian\.", "head.pair_expansion.biases."),
    (r"^hami_model\.output_ii\.", "head.atom_expansion.bottleneck."),
    (r"^hami_model\.output_ij\.", "head.pair_expansion.bottleneck."),
)


def load_published(model: SPHNet, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict of the public code, in place.

    Args:
        model: built with the hyperparameters of the checkpoint.
        weights: the public code's tensors by name.

    Raises:
        CheckpointError: a tensor that is missing, left over, or of another size; names the first.
    """
    own = dict(model.named_parameters())
    dead = {} if model.unused is None else dict(model.unused.by_name())
    found: list[tuple[torch.nn.Parameter, Tensor]] = []
    missing = {name for name in own if not name.startswith("unused.")}
    for name, tensor in _parts(model, weights).items():
        if name in model.dead:
            size, target = torch.Size(model.dead[name]).numel(), dead.get(name)
        else:
            ours = renamed(name)
            if ours not in own:
                raise CheckpointError(
                    f"published tensor '{name}' has no place in this SPHNet; build the model "
                    "with the checkpoint's layers and sparsity"
                )
            size, target = own[ours].numel(), own[ours]
            missing.discard(ours)
        if tensor.numel() != size:
            raise CheckpointError(
                f"published tensor '{name}' holds {tensor.numel()} numbers, this model {size}; "
                "build the model with the checkpoint's width and basis"
            )
        if target is not None:
            found.append((target, tensor))
    if missing:
        raise CheckpointError(
            f"the published checkpoint lacks {first_of(missing)}; "
            "build the model with the checkpoint's layers and sparsity"
        )
    with torch.no_grad():
        for target, tensor in found:
            target.copy_(tensor.reshape(target.shape))


def renamed(name: str) -> str:
    """Our name of a parameter of the public code."""
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name


def _parts(model: SPHNet, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, those of which only the first half acts in two parts."""
    parts = {}
    for name, tensor in weights.items():
        if name + REST in model.dead:
            parts[name], parts[name + REST] = tensor.tensor_split(2)
        else:
            parts[name] = tensor
    return parts
