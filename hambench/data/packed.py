"""A batch in one piece of memory, which one copy brings to a device."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from hambench.data.graph import Batch

_ALIGNED: Final = 256  # bytes; every tensor begins at a multiple, as those of an allocator do


class Field(NamedTuple):
    """A contiguous tensor in the memory; ``start`` counts its own entries, not bytes."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Form:
    """All of a batch but the numbers in its tensors; can be hashed.

    Attributes:
        fields: its tensors.
        values: names and values of what is no tensor.
        size: bytes of its memory.
    """

    fields: tuple[Field, ...]
    values: tuple[tuple[str, Any], ...]
    size: int


@dataclass(frozen=True)
class Packed:
    """A batch whose tensors stand one behind the other.

    Attributes:
        memory: bytes, on any device.
        form: what they mean; batches of equal form can take each other's place in memory.
    """

    memory: Tensor
    form: Form

    @classmethod
    def of(cls, batch: Batch, *, pinned: bool = False) -> Packed:
        """A copy of a batch, if wanted in memory that a GPU reads by itself."""
        fields, values, tensors, size = [], [], [], 0
        for name, value in batch.to_dict().items():
            if not isinstance(value, Tensor):
                values.append((name, value))
                continue
            shape = tuple(value.shape)
            strides = tuple(prod(shape[k + 1 :]) for k in range(len(shape)))
            fields.append(Field(name, value.dtype, shape, strides, size // value.itemsize))
            tensors.append(value)
            size += -(-value.nbytes // _ALIGNED) * _ALIGNED
        memory = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        packed = cls(memory, Form(tuple(fields), tuple(values), size))
        for own, tensor in zip(packed._tensors(), tensors, strict=True):
            own.copy_(tensor)
        return packed

    def batch(self) -> Batch:
        """The batch, of views into the memory."""
        names = (field.name for field in self.form.fields)
        return Batch.from_dict({**dict(zip(names, self._tensors(), strict=True)), **self._values()})

    def to(self, device: torch.device) -> Packed:
        """The same on a device; from pinned memory to a GPU nothing waits."""
        return Packed(self.memory.to(device, non_blocking=True), self.form)

    def pin_memory(self) -> Packed:
        """The same in pinned memory."""
        return Packed(self.memory.pin_memory(), self.form)

    def _tensors(self) -> list[Tensor]:
        typed = {dtype: self.memory.view(dtype) for dtype in {f.dtype for f in self.form.fields}}
        return [typed[f.dtype].as_strided(f.shape, f.strides, f.start) for f in self.form.fields]

    def _values(self) -> dict[str, Any]:
        return dict(self.form.values)
