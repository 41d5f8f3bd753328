"""Stopping at a safe point when the user or the system asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from hambench.errors import HambenchError

WARNING: Final = "SIGUSR2"
"""What a scheduler sends ahead of a time limit or a preemption."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
_ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)


class Interrupted(HambenchError):  # noqa: N818 (no error, as KeyboardInterrupt is none)
    """The user or the system stopped the run, which can go on from its checkpoint (130).

    Attributes:
        signal: name of what stopped it; None if that is not known.
    """

    exit_code = 130

    def __init__(self, message: str, signal: str | None = None) -> None:
        super().__init__(message)
        self.signal = signal


class Terminated(KeyboardInterrupt):
    """A signal other than Ctrl-C, taken as Ctrl-C is; ``signal`` is its name."""

    def __init__(self, message: str, signal: str) -> None:
        super().__init__(message)
        self.signal = signal


class StopRequest:
    """While its block runs, Ctrl-C, SIGTERM and SIGUSR2 only set `signal`; the second acts at once.

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


@contextmanager
def termination_as_interrupt(*, anew: bool = False) -> Iterator[None]:
    """SIGTERM, SIGHUP and SIGUSR2 end the block as Ctrl-C does, with everything put in order.

    Args:
        anew: also replace handlers that others have set; else signals that are handled, or ignored
            as nohup has SIGHUP ignored, stay as they are.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        raise Terminated(f"stopped by {name}; the same command goes on", name)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in _ENDS:
            if anew or signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
