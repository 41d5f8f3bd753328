"""How many parameters SchNOrb has, and where that ends."""

from __future__ import annotations

from typing import Final

from hambench.baselines.schnorb.readout import largest_nao
from hambench.chem.orbitals import OrbitalBasis
from hambench.errors import ConfigError

LARGEST: Final = 300_000_000
"""Parameters a model may have; the largest published one has 242,361,817."""


def count_parameters(
    basis: OrbitalBasis, *, width: int, factors: int, directions: int, layers: int, blocks: int,
    gaussians: int, rows: int, overlap_rows: int, energy: bool,
) -> dict[str, int]:  # fmt: skip
    """Trainable parameters by part; ``overlap_rows`` is 0 where no overlap is learned."""

    def dense(inputs: int, outputs: int) -> int:
        return (inputs + 1) * outputs

    n = largest_nao(basis)
    filters = dense(gaussians, factors) + dense(factors, factors)
    update = dense(factors, factors) + dense(factors, width)
    state = filters + dense(width, factors) + dense(factors, factors)
    readout = dense(blocks * (directions or 3) * width, n**2)
    table = (max(basis.elements) + 1) * n
    return {
        "embedding": rows * width,
        "interactions": layers
        * (filters + width * factors + dense(factors, width) + dense(width, width)),
        "blocks": blocks * (state + 3 * update)
        - (not energy) * update
        + (blocks - 1) * (directions > 0) * 3 * dense(3, directions),
        "readout": (3 if overlap_rows else 2) * readout + overlap_rows * n**2,
        "diagonals": (2 if overlap_rows else 1) * table,
        "energy": energy * (dense(width, width // 2) + dense(width // 2, 1)),
    }


def refuse_too_large(basis: OrbitalBasis, parts: dict[str, int]) -> None:
    """ConfigError where a model would have more than `LARGEST` parameters."""
    total = sum(parts.values())
    if total > LARGEST:
        raise ConfigError(
            f"SchNOrb for {basis!r} would have {total:,} parameters, {parts['readout']:,} of them "
            f"in readouts, which have {largest_nao(basis)}^2 outputs for every pair of atoms; at "
            f"most {LARGEST:,} are built: lower model.hyperparameters.width or directions, or take "
            "a task of fewer elements"
        )
