"""HELM: Hamiltonian-trained electronic-structure learning for molecules (arXiv 2510.00224)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hambench.helm.adapter import Helm, HelmEnergy

__all__ = ["Helm", "HelmEnergy"]


def __getattr__(name: str) -> Any:
    """Load the network on first use: listing models imports no torch."""
    if name in __all__:
        from hambench.helm import adapter

        return getattr(adapter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
