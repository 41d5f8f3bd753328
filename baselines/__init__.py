"""Models to compare with: published networks, and floors that learn nothing.

``MeanBlock`` predicts what label statistics tell, ``Minao`` what the usual initial guess of an
SCF gives for free, and ``ElementReference`` energies from the formula alone; a network has to
beat them to be worth its training. ``Mace`` learns energies without Hamiltonians, ``Uma`` has
learned them elsewhere; both run in environments of their own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hambench.baselines.mace.model import Mace
    from hambench.baselines.mean.model import MeanBlock
    from hambench.baselines.minao.model import Minao
    from hambench.baselines.phisnet.model import PhiSNet
    from hambench.baselines.qhnet.model import QHNet
    from hambench.baselines.reference.model import ElementReference
    from hambench.baselines.schnorb.model import SchNOrb
    from hambench.baselines.sphnet.model import SPHNet
    from hambench.baselines.uma.model import Uma

__all__ = [
    "ElementReference",
    "Mace",
    "MeanBlock",
    "Minao",
    "PhiSNet",
    "QHNet",
    "SPHNet",
    "SchNOrb",
    "Uma",
]

_HOME = {
    "ElementReference": "hambench.baselines.reference.model",
    "Mace": "hambench.baselines.mace.model",
    "MeanBlock": "hambench.baselines.mean.model",
    "Minao": "hambench.baselines.minao.model",
    "PhiSNet": "hambench.baselines.phisnet.model",
    "QHNet": "hambench.baselines.qhnet.model",
    "SPHNet": "hambench.baselines.sphnet.model",
    "SchNOrb": "hambench.baselines.schnorb.model",
    "Uma": "hambench.baselines.uma.model",
}


def __getattr__(name: str) -> Any:
    """Load an adapter on first use: listing models imports no torch."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
