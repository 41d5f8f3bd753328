"""Weights that SPHNet's public code has and that act on nothing, by its names."""

from __future__ import annotations

from hambench.baselines.sphnet.vectorial import GAUSSIANS
from hambench.o3.products import triangle_paths

BACKBONE, HEAD = "representation_model.", "hami_model."
VECTORIAL = f"{BACKBONE}Vectorial_interaction."
REST = ":rest"
"""Marks the part of a tensor, behind its first rows, that is unused while these are."""

Shapes = dict[str, tuple[int, ...]]


def unused_shapes(
    lmax: int, channels: int, radial: int, short_layers: int, long_layers: int, sparse: bool
) -> Shapes:
    """Shapes by name of the public code.

    They are weights of layers never called, of results never used, and of vectors that are zero;
    biases of pair gates, which cancel; and whatever is for the other setting of ``sparse``.
    """
    paths = len(triangle_paths(lmax))
    shapes = _vectorial(channels, short_layers, long_layers)
    shapes |= _first_convolution(channels)
    if sparse:
        shapes[f"{BACKBONE}Spherical_interaction.1.conv.pair_select_layer.bias"] = (1,)
    for block in range(2):
        atom, pair = (f"{HEAD}e3_gnn_node_{kind}layer.{block}." for kind in ("", "pair_"))
        for product in (f"{atom}tp_sp.", f"{pair}tp_node_pair_sp."):
            shapes[f"{product}path_layer.weight"] = (paths, 2 * channels)
            shapes[f"{product}path_layer.bias"] = (paths,)
        if sparse:
            shapes[f"{atom}tp_fix.weight"] = (paths * channels,)
        else:
            shapes[f"{atom}tp_sp.weight"] = (paths * channels,)
            shapes[f"{atom}tp_sp.path_weights"] = (paths,)
            shapes[f"{pair}tp_node_pair_sp.path_weights"] = (paths,)
        if block == 0 or not sparse:
            shapes[f"{pair}pair_select_layer.weight"] = (1, (lmax + 1) * channels)
        shapes[f"{pair}pair_select_layer.bias"] = (1,)
    return shapes


def _vectorial(channels: int, short_layers: int, long_layers: int) -> Shapes:
    square, vector = (channels, channels), (channels,)
    shapes: Shapes = {
        "mlp_node_fea.weight" + REST: square,
        "mlp_node_fea.bias" + REST: vector,
        "mlp_node_vec_fea.weight": (2 * channels, channels),
        "edge_fea_init.distance_encoder.means": (GAUSSIANS,),
        "edge_fea_init.distance_encoder.betas": (GAUSSIANS,),
        "edge_fea_init.rbf_linear.weight": (channels, GAUSSIANS),
        "edge_fea_init.rbf_linear.bias": vector,
        "out_energy.output_network.0.weight": (channels, 2 * channels),
        "out_energy.output_network.0.bias": vector,
        "out_energy.output_network.2.weight": (1, channels),
        "out_energy.output_network.2.bias": (1,),
        "visnet_att0.0.vec_proj.weight": (3 * channels, channels),
    }
    for layer in {0, short_layers - 1}:
        shapes[f"visnet_att0.{layer}.f_proj.weight"] = square
        shapes[f"visnet_att0.{layer}.f_proj.bias"] = vector
        shapes[f"visnet_att0.{layer}.src_proj.weight"] = square
        shapes[f"visnet_att0.{layer}.trg_proj.weight"] = square
    for layer in range(long_layers):
        for kind in ("node", "group"):
            norm = f"longshortinteract_models.{layer}.layernorm_{kind}_vec."
            shapes[f"{norm}weight"] = shapes[f"{norm}bias"] = vector
    last = f"longshortinteract_models.{long_layers - 1}.model_2."
    for network in ("mlp_scalar_pos", "mlp_scalar_vec"):
        for layer in (0, 2):
            shapes[f"{last}{network}.{layer}.weight"] = square
            shapes[f"{last}{network}.{layer}.bias"] = vector
    for layer in (0, 1):
        shapes[f"{last}linears.{layer}.weight"] = square
    return {VECTORIAL + name: shape for name, shape in shapes.items()}


def _first_convolution(channels: int) -> Shapes:
    first = f"{BACKBONE}Spherical_interaction.0.conv."
    shapes: Shapes = {}
    for layer in (0, 2):
        shapes[f"{first}norm_gate.fc.{layer}.weight"] = (channels, channels)
        shapes[f"{first}norm_gate.fc.{layer}.bias"] = (channels,)
    for linear in ("linear_node", "linear_node_pre"):
        shapes[f"{first}{linear}.weight"] = (channels * channels,)
        shapes[f"{first}{linear}.bias"] = (channels,)
    return shapes
