"""How everything is measured here."""

from __future__ import annotations

import pytest
from graphs_stand_in import StandIn

from hambench.bench.subject import Setting


@pytest.fixture
def setting() -> Setting:
    return Setting("cpu")


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()
