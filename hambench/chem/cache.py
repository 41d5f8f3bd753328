"""A cache bounded by the bytes it holds, not by the number of its entries."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class ByteCache(Generic[T]):
    """Values by key, of which the longest unused go when ``limit`` bytes are exceeded.

    Threads may share it. A value above the limit is not kept; two threads that miss the same key
    both make it, which is harmless.

    Args:
        limit: bytes kept at most.
        size_of: bytes of a value.
    """

    def __init__(self, limit: int, size_of: Callable[[T], int]) -> None:
        self.limit = limit
        self.bytes = 0
        self._size_of = size_of
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value kept under ``key``, or a new one of ``make``."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        value = make()
        size = self._size_of(value)
        with self._lock:
            if size <= self.limit and key not in self._kept:
                self._kept[key] = value
                self.bytes += size
                while self.bytes > self.limit:
                    self.bytes -= self._size_of(self._kept.popitem(last=False)[1])
        return value

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)
