"""The oracle beside these tests, by a name of its own: other models have one too."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location("qhnet_oracle", Path(__file__).parent / "oracle.py")
assert _spec is not None
assert _spec.loader is not None
_oracle = importlib.util.module_from_spec(_spec)
sys.modules["qhnet_oracle"] = _oracle
_spec.loader.exec_module(_oracle)
