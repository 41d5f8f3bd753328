"""Checkpoints of SchNOrb's public codes, mapped onto our parameters.

Of atomistic-machine-learning/SchNOrb and of the fork that nablaDFT used. Their readouts number the
orbitals of an element as their matrices do; ours then do so too (`Places.order`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hambench.baselines.schnorb.model import SchNOrb
from hambench.baselines.schnorb.representation import TwoLayers
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import permutation
from hambench.errors import CheckpointError, first_of

_TWICE = re.compile(r"\.(ftensor|cfconv)\.(filter_network|cutoff_network)\.")
"""Tensors the public code lists a second time where they are used."""
_CONSTANTS = re.compile(r"\.cutoff$|\.distance_expansion\.(offsets|width)$")
"""Buffers that follow from hyperparameters."""
_BASIS = "output.basis_definition"


def load_published(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict of the public code into `SchNOrb`, in place.

    Args:
        model: built with the hyperparameters of the checkpoint, in a basis of degrees up to 2.
        weights: the public code's tensors by name. Where ``output.basis_definition`` is among them
            it says the order of the orbitals, else they stand in ORCA's.

    Raises:
        CheckpointError: a tensor that is missing, left over, or of another size, or a definition
            of another basis.
    """
    assert isinstance(model, SchNOrb)
    own = published_tensors(model, lambda parameter: parameter.data)
    own["output.atom_net.2.mean"], own["output.atom_net.2.stddev"] = (
        model.energy_mean,
        model.energy_std,
    )
    if model.energies is None:
        del own["output.atom_net.2.mean"], own["output.atom_net.2.stddev"]
    given = {
        name: tensor
        for name, tensor in weights.items()
        if not (_TWICE.search(name) or _CONSTANTS.search(name) or name == _BASIS)
    }
    for name, tensor in given.items():
        if name not in own:
            raise CheckpointError(
                f"published tensor '{name}' has no place in this SchNOrb; build the model with the "
                "checkpoint's layers, overlap and energies"
            )
        if tensor.numel() != own[name].numel():
            raise CheckpointError(
                f"published tensor '{name}' holds {tensor.numel()} numbers, there is place for "
                f"{own[name].numel()}; build the model with the checkpoint's widths and basis"
            )
    if missing := [name for name in own if name not in given]:
        raise CheckpointError(
            f"the published checkpoint lacks {first_of(missing)}; build the "
            "model with the checkpoint's layers, overlap and energies"
        )
    order = _order(model.basis, weights.get(_BASIS))
    with torch.no_grad():
        for name, place in own.items():
            place.copy_(given[name].reshape(place.shape))
        model.diagonal_mean.zero_()
        for z, numbers in order.items():
            model.places.order[z, : len(numbers)] = torch.from_numpy(numbers)


def published_tensors(model: SchNOrb, of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """By their names in the public code, views of something that has the shape of a parameter.

    Args:
        model: whose parameters they are.
        of: what to show of a parameter: its data, or its gradient.
    """
    body, at = model.representation, "representation"
    layers: list[Any] = list(body.interactions)
    blocks: list[Any] = list(body.blocks)
    factors: list[Any] = list(model.factors)
    found = {f"{at}.embedding.weight": of(body.embedding.weight)}

    def put(name: str, layer: nn.Module) -> None:
        for part, tensor in _tensors(name, layer):
            found[part] = of(tensor)

    for number, layer in enumerate(layers):
        name = f"{at}.schnet_interactions.{number}"
        put(f"{name}.filter_network", layer.filter)
        put(f"{name}.cfconv.in2f", layer.inward)
        put(f"{name}.cfconv.f2out", layer.out.first)
        put(f"{name}.dense", layer.out.second)
    for number, factor in enumerate(factors):
        name = f"{at}.interactions.{number - 1}" if number else f"{at}.first_interaction"
        block = blocks[number] if number < len(blocks) else None
        state = model.last if block is None else block.state
        assert state is not None
        put(f"{name}.filter_network", state.filter)
        put(f"{name}.ftensor.in2f", state.inward)
        put(f"{name}.ftensor.f2out", state.factor)
        if block is not None:
            put(f"{name}.atomnet", block.atom)
        put(f"{name}.pairnet", factor.pair)
        put(f"{name}.envnet", factor.environment)
        if factor.turns is not None:
            put(f"{name}.pairnet_mult", factor.turns.pair)
            put(f"{name}.envnet_mult1", factor.turns.own)
            put(f"{name}.envnet_mult2", factor.turns.other)
    readout, outputs = model.readout, model.places.orbitals**2
    offsite = ["offsitenet", "ov_offsitenet"]
    for name, weight, bias in (
        *zip(
            offsite,
            of(readout.pair_weight).split(outputs),
            of(readout.pair_bias).split(outputs),
            strict=False,
        ),
        ("onsitenet", of(readout.atom_weight), of(readout.atom_bias)),
    ):
        # inputs run over (block, feature, direction) there, over (block, direction, feature) here
        found[f"output.{name}.weight"] = weight.view(outputs, *readout.shape).mT
        found[f"output.{name}.bias"] = bias
    found["output.h0.orbital_energies"] = of(model.diagonal)
    if model.overlap_on_site is not None and model.overlap_diagonal is not None:
        found["output.ov_onsitenet.weight"] = of(model.overlap_on_site)
        found["output.s0.orbital_energies"] = of(model.overlap_diagonal)
    if model.energies is not None:
        put("output.atom_net", model.energies.layers)
    return found


def _tensors(name: str, layer: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters of a layer, or of two, by published name."""
    if isinstance(layer, TwoLayers):
        yield from _tensors(f"{name}.0", layer.first)
        yield from _tensors(f"{name}.1", layer.second)
    else:
        yield from ((f"{name}.{part}", tensor) for part, tensor in layer.named_parameters())


def _order(basis: OrbitalBasis, definition: Tensor | None) -> dict[int, np.ndarray]:
    """Per element, the published number of every canonical orbital.

    Args:
        basis: of the model.
        definition: (Z, n, 5) index, type, n, l, m of the orbitals, real ones first, then some of
            n = 0; None: ORCA's order.
    """
    if basis.lmax > 2:
        raise CheckpointError(
            f"{basis!r} has shells of degree {basis.lmax}, whose signs in published matrices are "
            "not known; published checkpoints are of degrees up to 2"
        )
    if definition is None:
        return {z: permutation([z], basis, "orca")[0] for z in basis.elements}
    found = {}
    for z, shells in basis.shells.items():
        n, l, m = definition[z, : shells.nao, 2:].cpu().numpy().T
        numbers = np.lexsort([m, n, l])
        expected = [(l, m) for l in shells.l for m in range(-l, l + 1)]
        beyond = bool((definition[z, shells.nao :, 2] > 0).any())
        if beyond or (n <= 0).any() or list(zip(l[numbers], m[numbers], strict=True)) != expected:
            raise CheckpointError(
                f"the published checkpoint defines other orbitals for Z = {z} than {basis!r} has; "
                "build the model for the checkpoint's basis"
            )
        found[z] = numbers
    return found
