"""How everything is measured here."""

from __future__ import annotations

import pytest

from hambench.bench.subject import Setting


@pytest.fixture
def setting() -> Setting:
    return Setting("cpu")
