"""Every tensor of PhiSNet's public code by its name there, and where its numbers stand here.

The coupling tensors of the public code are e3nn's Wigner 3j symbols up to the sign of some;
products here are with e3nn's, and the sign goes to the weights. Its tables of columns depend on the
order of a molecule's atoms, see `phisnet.columns`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from hambench.baselines.phisnet.columns import Columns
from hambench.baselines.phisnet.embedding import LAST, SHELLS
from hambench.baselines.phisnet.energy import WIDTH, EnergyLayer, PhiSNetEnergy, PooledEnergy
from hambench.baselines.phisnet.heads import Head
from hambench.baselines.phisnet.layers import Branch, SelfMix, SphericalLinear, Swish, mixing_paths
from hambench.baselines.phisnet.network import Angular, ModularBlock, Size
from hambench.o3.products import Path, triangle_paths

if TYPE_CHECKING:
    from hambench.baselines.phisnet.model import PhiSNet

_OPPOSITE: Final = frozenset(
    map(
        Path._make,
        (
            (1, 1, 1), (1, 2, 2), (2, 2, 1), (1, 3, 3), (3, 3, 1), (4, 1, 4),
            (2, 3, 2), (2, 4, 3), (3, 2, 4), (4, 3, 2), (3, 3, 3), (4, 3, 4),
        ),
    )
)  # fmt: skip
"""Couplings (l1, l2, L) of the public code that are minus e3nn's, of degrees up to 4."""
SIGNS_KNOWN: Final = 4
"""Largest degree of couplings whose signs are known."""


@dataclass(frozen=True)
class Entry:
    """A tensor of the public code.

    Attributes:
        name, shape: there.
        parameter: of ours that holds it; None: nothing depends on it.
        index: of that parameter.
        sign: ours is theirs times this (per row, if a tensor).
        rows: of theirs that ours holds; None: all.
        frozen: not trained there.
    """

    name: str
    shape: tuple[int, ...]
    parameter: nn.Parameter | None = None
    index: int | slice | EllipsisType = ...
    sign: float | Tensor = 1.0
    rows: Tensor | None = None
    frozen: bool = False

    @property
    def unused(self) -> tuple[int, ...] | None:
        """Shape of what nothing depends on; None: all of it is used."""
        if self.parameter is None:
            return self.shape
        if self.rows is None or len(self.rows) == self.shape[0]:
            return None
        return (self.shape[0] - len(self.rows), *self.shape[1:])

    def ours(self, tensor: Tensor) -> Tensor:
        """Our form of their tensor, as far as it is used; of the shape of ``parameter[index]``."""
        assert self.parameter is not None
        sign = self.sign[:, None].to(tensor) if isinstance(self.sign, Tensor) else self.sign
        used = tensor if self.rows is None else tensor[self.rows]
        return (used * sign).reshape(self.parameter[self.index].shape)

    def rest(self, tensor: Tensor) -> Tensor:
        """What nothing depends on, of the shape of ``unused``."""
        if self.parameter is None or self.rows is None:
            return tensor
        spare = torch.ones(self.shape[0], dtype=torch.bool)
        spare[self.rows] = False
        return tensor[spare]


def entries(model: Any) -> Iterator[Entry]:
    """Every trainable or frozen tensor of the public code for a `PhiSNet` or `PhiSNetEnergy`."""
    size: Size = model.size
    features, trunk = size.features, model.trunk
    embedding, top = trunk.embedding, "embedding.embedding"
    yield Entry(f"{top}.element_embedding", (LAST + 1, features), embedding.table)
    yield Entry(f"{top}.config_linear.weight", (features, len(SHELLS) + 1), embedding.configuration)
    yield Entry("radial_basis_functions._alpha", (), trunk.basis.raw)
    for k, block in enumerate(trunk.blocks):
        yield from _modular_block(f"module.{k}", size, block)
    yield from _residual("residual_pc", size, size.blocks, trunk.central)
    yield from _residual("residual_pn", size, size.blocks, trunk.neighbour)
    yield from _radial("radial_ii", size, model.atoms.radial.weight)
    yield from _residual("residual_ii", size, size.blocks, model.atoms.residual)
    pairs = getattr(model, "pairs", None)
    yield from _pair_mix("mix_ij", size, _part(pairs, "mixing.weight"))
    yield from _radial("radial_ij", size, _part(pairs, "radial.weight"))
    yield from _residual("residual_ij", size, size.blocks, _part(pairs, "residual"))
    if not isinstance(model, PhiSNetEnergy):
        yield from _heads(model)
    if isinstance(model, PooledEnergy):
        yield from _energy_layer(features, _part(model, "head"))
    elif not isinstance(model, PhiSNetEnergy) and model.energy_layer:
        yield from _energy_layer(features, None)


def _heads(model: PhiSNet) -> Iterator[Entry]:
    size, overlap = model.size, model.overlap
    atoms, pairs = model.node_head.columns, model.edge_head.columns
    for name, columns, head in (
        ("full_ii", atoms, model.node_head),
        ("full_ij", pairs, model.edge_head),
        ("core_ii", atoms, None),
        ("core_ij", pairs, None),
        ("over_ij", pairs, _part(overlap, "head")),
    ):
        yield from _residual(f"residual_{name}", size, size.head_blocks, _part(head, "residual"))
        yield from _swish(f"activation_{name}", size.features, _part(head, "activation"))
        yield from _output(f"output_{name}", size, columns, head)
    yield from _pair_mix("mix_s", size, _part(overlap, "mixing"))
    for l in range(size.lmax + 1):
        scale = _part(overlap, "scale") if l else None
        yield Entry(f"angular_fn.linear.{l}.weight", (size.features, 1), scale, l - 1)
    yield Entry("angular_fn.linear.0.bias", (size.features,))
    yield from _self_mix("output_over_ii.mixing", size, None)
    for l in range(size.lmax + 1):
        yield Entry(f"output_over_ii.linear.{l}.weight", (atoms.width, size.features), frozen=True)
    bias = Entry("output_over_ii.linear.0.bias", (atoms.width,))
    if overlap is not None:
        numbers = torch.from_numpy(overlap.atoms.numbers)
        bias = replace(bias, parameter=overlap.bias, rows=numbers)
    yield bias


def _modular_block(name: str, size: Size, block: ModularBlock) -> Iterator[Entry]:
    inner, at = block.interaction, f"{name}.interaction"
    yield from _residual(f"{name}.residual_pre_x", size, size.blocks, block.before)
    yield from _residual(f"{name}.residual_post_x", size, size.blocks, block.behind)
    yield from _residual(f"{name}.residual_out", size, size.blocks, block.output)
    for letter, stack, branch in (
        ("i", "pre_vi", inner.own),
        ("j", "pre_vj", inner.other),
        ("v", "post_v", inner.after),
    ):
        yield from _branch(at, letter, stack, size, branch)
    yield from _pair_mix(f"{at}.mixing", size, inner.mixing)
    yield from _radial(f"{at}.radial_fn", size, inner.radial)
    yield from _angular(f"{at}.angular_fn1", size, inner.angular1)
    yield from _angular(f"{at}.angular_fn2", size, inner.angular2)


def _branch(at: str, letter: str, stack: str, size: Size, branch: Branch) -> Iterator[Entry]:
    yield from _residual(f"{at}.residual_{stack}", size, size.blocks, branch.residual)
    yield from _swish(f"{at}.activation_{letter}", size.features, branch.activation)
    yield from _linear(f"{at}.linear_{letter}", size, branch.linear)


def _residual(name: str, size: Size, blocks: int, live: Any) -> Iterator[Entry]:
    for k in range(blocks):
        block = None if live is None else live[k]
        at = f"{name}.stack.{k}"
        yield from _swish(f"{at}.activation_pre", size.features, _part(block, "activation_pre"))
        yield from _linear(f"{at}.linear1", size, _part(block, "linear1"))
        yield from _swish(f"{at}.activation_post", size.features, _part(block, "activation_post"))
        yield from _linear(f"{at}.linear2", size, _part(block, "linear2"))


def _swish(name: str, width: int, live: Swish | None) -> Iterator[Entry]:
    yield Entry(f"{name}.alpha", (width,), _part(live, "alpha"))
    yield Entry(f"{name}.beta", (width,), _part(live, "beta"))


def _linear(name: str, size: Size, live: SphericalLinear | None) -> Iterator[Entry]:
    yield from _self_mix(f"{name}.mixing", size, _part(live, "mixing"))
    degrees = 0 if live is None else len(live.linear.weight)
    for l in range(size.lmax + 1):
        weight = live.linear.weight if live is not None and l < degrees else None
        yield Entry(f"{name}.linear.{l}.weight", (size.features, size.features), weight, l)
    yield Entry(f"{name}.linear.0.bias", (size.features,), _part(live, "linear.bias"))


def _self_mix(name: str, size: Size, live: SelfMix | None) -> Iterator[Entry]:
    for l in range(size.lmax + 1):
        keep = live.keep if live is not None and l <= live.top else None
        yield Entry(f"{name}.keepcoeff_{l}", (size.features,), keep, l)
    yield from _paths(
        f"{name}.mixcoeff", "", mixing_paths(size.lmax), (size.features,),
        _part(live, "mix"), [] if live is None else live.paths,
    )  # fmt: skip


def _pair_mix(name: str, size: Size, live: nn.Parameter | None) -> Iterator[Entry]:
    paths = triangle_paths(size.lmax)
    held = [] if live is None else paths[: len(live)]  # those of the lowest l1 come first
    shape = (size.features, size.basis)
    yield from _paths(f"{name}.coeff", ".weight", paths, shape, live, held)


def _paths(
    name: str,
    end: str,
    paths: list[Path],
    shape: tuple[int, ...],
    live: nn.Parameter | None,
    held: list[Path],
) -> Iterator[Entry]:
    """Weights of products along paths, of which ``live`` has those ``held``."""
    places = {path: k for k, path in enumerate(held)}
    for path in paths:
        full = f"{name}_{path.l1}_{path.l2}_{path.l3}{end}"
        if path in places:
            yield Entry(full, shape, live, places[path], coupling_sign(*path))
        else:
            yield Entry(full, shape)


def _radial(name: str, size: Size, live: nn.Parameter | None) -> Iterator[Entry]:
    for l in range(size.lmax + 1):
        yield Entry(f"{name}.{l}.weight", (size.features, size.basis), live, l)


def _angular(name: str, size: Size, live: Angular) -> Iterator[Entry]:
    for l in range(size.lmax + 1):
        yield Entry(f"{name}.linear.{l}.weight", (size.features, 1), live.scale, l)
    yield Entry(f"{name}.linear.0.bias", (size.features,), live.bias)


def _output(name: str, size: Size, columns: Columns, live: Head | None) -> Iterator[Entry]:
    """The last map of a head: as many columns for each degree, of which some are used."""
    yield from _self_mix(f"{name}.mixing", size, _part(live, "mixing"))
    shape, start = (columns.width, size.features), 0
    for l in range(size.lmax + 1):
        full = f"{name}.linear.{l}.weight"
        if live is None or l > columns.top:
            yield Entry(full, shape)
            continue
        part = slice(start, start + columns.counts[l])
        signs = torch.tensor([coupling_sign(la, lb, l) for la, lb in columns.shells[part].tolist()])
        yield Entry(full, shape, live.weight, part, signs, torch.from_numpy(columns.numbers[part]))
        start = part.stop
    rows = torch.from_numpy(columns.numbers[: columns.counts[0]])
    yield Entry(f"{name}.linear.0.bias", (columns.width,), _part(live, "bias"), rows=rows)


def _energy_layer(features: int, live: EnergyLayer | None) -> Iterator[Entry]:
    for name, layer, shape in (
        ("linear_diagonal", _part(live, "atoms"), (WIDTH, features)),
        ("linear_offdiagonal", _part(live, "pairs"), (WIDTH, features)),
        ("linear_out", _part(live, "out"), (1, 2 * WIDTH)),
    ):
        at = f"energy_predictor.{name}"
        yield Entry(f"{at}.weight", shape, _part(layer, "weight"))
        yield Entry(f"{at}.bias", shape[:1], _part(layer, "bias"))
    yield from _swish("activation_energy", WIDTH, _part(live, "activation"))


def coupling_sign(l1: int, l2: int, l3: int) -> float:
    """Sign of a coupling of the public code relative to e3nn's."""
    return -1.0 if (l1, l2, l3) in _OPPOSITE else 1.0


def _part(owner: Any, path: str) -> Any:
    """A part of a module, by its dotted name; None of None."""
    return owner if owner is None else attrgetter(path)(owner)
