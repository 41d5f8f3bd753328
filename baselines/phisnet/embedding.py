"""What a PhiSNet knows of an element: a row of its own, and its electron configuration."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from hambench.baselines.phisnet.layers import orthogonal

LAST: Final = 86
"""Largest atomic number there is a configuration of."""
_ORDERED: Final = "1s 2s 2p 3s 3p 3d 4s 4p 4d 4f 5s 5p 5d 6s 6p"
SHELLS: Final = tuple(_ORDERED.split())
_FILLING: Final = "1s 2s 2p 3s 3p 4s 3d 4p 5s 4d 5p 6s 4f 5d 6p"
_CAPACITY: Final = {"s": 2, "p": 6, "d": 10, "f": 14}
_EXCEPTIONS: Final = {
    24: "3d5 4s1",
    29: "3d10 4s1",
    41: "4d4 5s1",
    42: "4d5 5s1",
    44: "4d7 5s1",
    45: "4d8 5s1",
    46: "4d10 5s0",
    47: "4d10 5s1",
    57: "4f0 5d1",
    58: "4f1 5d1",
    64: "4f7 5d1",
    78: "5d9 6s1",
    79: "5d10 6s1",
}
"""Ground states in which a shell is not filled in the usual order."""


def occupations(z: int) -> dict[str, int]:
    """Electrons in each of the `SHELLS` of a neutral atom in its ground state."""
    left, found = z, dict.fromkeys(SHELLS, 0)
    for shell in _FILLING.split():
        found[shell] = min(left, _CAPACITY[shell[1]])
        left -= found[shell]
    for entry in _EXCEPTIONS.get(z, "").split():
        found[entry[:2]] = int(entry[2:])
    return found


@lru_cache
def configurations(dtype: torch.dtype, device: torch.device, rounded: bool) -> Tensor:
    """(87, 16): Z/86, then the filled fraction of each of the `SHELLS`; row 0 is zero.

    Args:
        dtype, device: of the table.
        rounded: to float32 first, as the public code has it in a float64 model too.
    """
    rows = [
        [z / LAST, *(n / _CAPACITY[shell[1]] for shell, n in occupations(z).items())]
        for z in range(LAST + 1)
    ]
    table = torch.tensor(rows, dtype=torch.float64)
    return (table.float() if rounded else table).to(device, dtype)


class ElementEmbedding(nn.Module):
    """``e_Z = E_Z + W q_Z`` with the electron configuration q_Z (arXiv 2106.02347).

    Args:
        features: F.
        rounded: see `configurations`.
    """

    def __init__(self, features: int, rounded: bool) -> None:
        super().__init__()
        self.rounded = rounded
        bound = 3**0.5
        self.table = nn.Parameter(torch.empty(LAST + 1, features).uniform_(-bound, bound))
        self.configuration = nn.Parameter(orthogonal(1, features, len(SHELLS) + 1)[0].detach())

    def forward(self, numbers: Tensor) -> Tensor:
        """(N,) atomic numbers -> (N, F)."""
        q = configurations(self.table.dtype, self.table.device, self.rounded)
        return functional.embedding(numbers, self.table) + functional.linear(
            q[numbers], self.configuration
        )
