"""Freed memory that the C library keeps."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Give freed memory back to the system, where the C library can (glibc).

    Large arrays of ever other sizes leave its heap in pieces that it neither reuses nor returns.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
