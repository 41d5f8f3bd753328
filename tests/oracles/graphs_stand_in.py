"""In the place of CUDA graphs, where there is no GPU."""

from __future__ import annotations

from collections.abc import Callable


class StandIn:
    """Replays by calling; as in a capture, nothing is computed before the first replay."""

    def __init__(self) -> None:
        self.eager_calls = self.captures = self.replays = 0

    def eager(self, call: Callable[[], None]) -> None:
        self.eager_calls += 1
        call()

    def capture(self, call: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            call()

        return replay
