"""Stopping at a safe point when the user or the system asks for it."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from hambench.errors import HambenchError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(HambenchError):  # noqa: N818 (no error, as KeyboardInterrupt is none)
    """The user or the system stopped the run, which can go on from its checkpoint (130)."""

    exit_code = 130


class StopRequest:
    """While its block runs, Ctrl-C and SIGTERM only set `signal`; the second one acts at once.

    Outside the main thread, where Python takes no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self._previous: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._note) for s in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
