"""How everything is measured here."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hambench.bench.subject import Setting


@pytest.fixture
def setting() -> Setting:
    return Setting("cpu")


class StandIn:
    """In place of CUDA graphs: replays by calling."""

    def __init__(self) -> None:
        self.replays = 0

    def eager(self, call: Callable[[], None]) -> None:
        call()

    def capture(self, call: Callable[[], None]) -> Callable[[], None]:
        def replay() -> None:
            self.replays += 1
            call()

        return replay


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()
