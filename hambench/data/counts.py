"""How much of a batch counts: all of it, or what comes before its padding.

Of a padded batch the numbers are tensors on its device, so that one captured step serves batches
of one shape that hold more and fewer molecules.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hambench.data.graph import Batch

Count = int | Tensor
"""A number, or a tensor of shape () int64."""


class Counts(NamedTuple):
    """What counts; each kind comes first in its tensors.

    Attributes:
        molecules, atoms, edges: of a batch.
        on_site: labels of on-site blocks.
        pairs: labels of pairs, each of which stands in two blocks.
    """

    molecules: Count
    atoms: Count
    edges: Count
    on_site: Count
    pairs: Count

    @classmethod
    def of(cls, batch: Batch) -> Counts:
        """Those of a batch; nothing waits for its device."""
        if "unpadded" in batch:
            return cls(*batch.unpadded.unbind())
        labels = (len(batch[f]) if f in batch else 0 for f in ("node_places", "pair_values"))
        return cls(*batch.real, *labels)


def counted(rows: Tensor, count: Count, dim: int = 0) -> Tensor:
    """The tensor with zeros along a dimension for what does not count, and no gradient there."""
    if isinstance(count, int):
        return rows
    shape = [-1 if k == dim % rows.ndim else 1 for k in range(rows.ndim)]
    beyond = torch.arange(rows.shape[dim], device=rows.device) >= count
    return rows.masked_fill(beyond.view(shape), 0)


def as_tensor(count: float | Tensor, like: Tensor) -> Tensor:
    """A count as a tensor of shape () of the type and device of another; nothing waits."""
    return count.to(like.dtype) if isinstance(count, Tensor) else like.new_full((), count)
