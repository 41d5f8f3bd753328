"""hambench: train and compare machine-learned Hamiltonians of molecules.

The names below are the public interface; each is imported when first used, so that
``import hambench`` stays light.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# In a checkout the folders helm/, tasks/ ... beside this package are hambench.helm, hambench.tasks.
# An installed wheel has them inside the package, and no pyproject.toml above it.
_root = Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "helm" / "__init__.py").is_file():
    __path__.append(str(_root))

_HOME = {
    "Molecule": "hambench.chem.molecule",
    "OrbitalBasis": "hambench.chem.orbitals",
    "Store": "hambench.data.store",
    "build_model": "hambench.models",
    "calculator": "hambench.ase_calculator",
    "collate": "hambench.data.graph",
    "load_published": "hambench.models",
    "load_task": "hambench.registry",
    "load_trained": "hambench.trained",
    "open_data": "hambench.registry",
    "predict": "hambench.inference.predict",
    "scf_guess": "hambench.inference.guess",
    "score": "hambench.scoring",
}

__all__ = [
    "Molecule",
    "OrbitalBasis",
    "Store",
    "__version__",
    "build_model",
    "calculator",
    "collate",
    "load_published",
    "load_task",
    "load_trained",
    "open_data",
    "predict",
    "scf_guess",
    "score",
]

if TYPE_CHECKING:
    from hambench.ase_calculator import calculator
    from hambench.chem.molecule import Molecule
    from hambench.chem.orbitals import OrbitalBasis
    from hambench.data.graph import collate
    from hambench.data.store import Store
    from hambench.inference.guess import scf_guess
    from hambench.inference.predict import predict
    from hambench.models import build_model, load_published
    from hambench.registry import load_task, open_data
    from hambench.scoring import score
    from hambench.trained import load_trained


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hambench' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOME))
