"""Forward and backward passes of a model against the same equations written path by path.

The oracles are those that the tests compare values and gradients with (tests/oracles). Both
compute, in turns and on one thread, the derivatives of one random sum of matrix elements. Example:

    python benchmarks/oracles.py qhnet ethanol --repeats 3
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "oracles"))

import phisnet_oracle
import qhnet_oracle
import schnorb_oracle
import sphnet_cases
import sphnet_oracle

import hambench
from hambench.baselines import SPHNet
from hambench.baselines.schnorb.published import published_tensors
from hambench.bench.molecules import BATCHES
from hambench.bench.timing import interleaved
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import Batch, collate
from hambench.model import Prediction

Pass = Callable[[], list[Tensor]]
"""A forward pass: its matrix elements, in one order for both sides."""
Sides = tuple[Pass, list[Pass]]
"""Ours, and what does the same path by path, in parts where memory asks for it."""


def qhnet(model: nn.Module, batch: Batch, molecules: list[Molecule]) -> Sides:
    slow = qhnet_oracle.PathByPath(model)

    def blocks(network: nn.Module) -> list[Tensor]:
        found = network(batch)
        return [found.node, found.edge]

    return lambda: blocks(model), [lambda: blocks(slow)]


def phisnet(model: nn.Module, batch: Batch, molecules: list[Molecule]) -> Sides:
    """The other side takes one molecule after the other: its broadcast products are large."""
    slow = phisnet_oracle.PathByPath(model)

    def fast() -> list[Tensor]:
        found = model(batch)
        overlaps = Prediction(batch, model.graph, *found.overlap).raw_matrices()
        pairs = zip(found.raw_matrices(), overlaps, strict=True)
        return [one for pair in pairs for one in pair]

    singles = [collate([molecule], model.graph) for molecule in molecules]
    return fast, [partial(lambda one: [m for kind in slow(one) for m in kind], b) for b in singles]


def schnorb(model: nn.Module, batch: Batch, molecules: list[Molecule]) -> Sides:
    weights = schnorb_oracle.leaves(published_tensors(model, lambda p: p))
    mean = model.hyperparameters["mean_messages"]
    slow = schnorb_oracle.Oracle(weights, model.orbitals, mean=mean)
    rows = batch.numbers.view(len(batch.nao), -1)
    places = batch.positions.view(*rows.shape, 3)

    def plain() -> list[Tensor]:
        return slow.cut(slow(rows, places)["H"], rows)

    return lambda: model(batch).raw_matrices(), [plain]


def sphnet(model: SPHNet, batch: Batch, molecules: list[Molecule]) -> Sides:
    """In the fixed phase, against all paths with coefficients of which most are zero."""
    model.freeze()
    layers = [*model.head.atom, *model.head.pair]
    paths = [sphnet_oracle.Paths(coefficients=layer.product.coefficients) for layer in layers]
    slow = sphnet_cases.oracle(model, paths, sparsity=model.hyperparameters["sparsity"])
    return lambda: list(sphnet_cases.squares(model, batch)), [lambda: list(slow(batch))]


SIDES: dict[str, tuple[Callable[..., Sides], str, dict[str, Any]]] = {
    "phisnet": (phisnet, "phisnet_md17_ethanol", {"molecule": None}),
    "qhnet": (qhnet, "qhnet", {}),
    "schnorb": (schnorb, "schnorb", {"rotate": False}),
    "sphnet": (sphnet, "sphnet", {"initial_guess": "none"}),
}
"""Which two passes, of which preset, with which hyperparameters of another value."""


def derivatives(passes: list[Pass], seeds: list[Tensor]) -> list[Tensor]:
    """Outputs of forward passes, each followed by the backward pass of their random sum."""
    found: list[Tensor] = []
    for forward in passes:
        some = forward()
        here = seeds[len(found) : len(found) + len(some)]
        sum((one * seed).sum() for one, seed in zip(some, here, strict=True)).backward()
        found += [one.detach() for one in some]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", choices=SIDES)
    parser.add_argument("case", choices=BATCHES)
    parser.add_argument("--batch-size", type=int, help="molecules; those of `hambench bench model`")
    parser.add_argument("--repeats", type=int, default=3, help="times each side is timed")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=NUMBER", help="other hyperparameters"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sides, preset, options = SIDES[asked.model]
    options |= {key: int(value) for key, value in (word.split("=") for word in asked.set)}
    case, size = BATCHES[asked.case]
    basis = OrbitalBasis.load(case.basis, case.numbers.tolist())
    model = hambench.build_model(preset, basis, **options).train()
    molecules = list(case.molecules(asked.batch_size or size))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)  # QHNet as it begins is not finite for 40 atoms on a grid
    batch = collate(molecules, model.graph)
    ours, plain = sides(model, batch, molecules)
    with torch.no_grad():
        seeds = [torch.randn_like(one) for one in ours()]
    both = [derivatives(passes, seeds) for passes in ([ours], plain)]
    scale = max(float(one.abs().max()) for one in both[1])
    error = max(float((a - b).abs().max()) for a, b in zip(*both, strict=True))
    assert error < 1e-3 * scale, f"the oracle differs by {error:.1e} of {scale:.1e}"
    times = interleaved(
        {
            "ours": lambda _: derivatives([ours], seeds),
            "path by path": lambda _: derivatives(plain, seeds),
        },
        asked.repeats,
    )
    fast, slow = times.values()
    print(
        f"{asked.model}, {len(molecules)} x {case.name}: {fast.median:.2f} s, path by path "
        f"{slow.median:.2f} s, {slow.median / fast.median:.1f} times as fast"
    )


if __name__ == "__main__":
    main()
