"""Where the numbers of block vectors stand in the matrices of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from hambench.chem.blocks import BlockLayout, BlockMap
from hambench.data.graph import Batch, joined


def entry_places(batch: Batch, blocks: BlockLayout, width: int) -> tuple[Tensor, Tensor]:
    """Where labels stand in matrices (B, width, width) of the molecules, padded and made flat.

    Computed on the device of the batch, with no need to wait for it.

    Args:
        batch: with labels.
        blocks: of its block vectors.
        width: orbitals of the largest molecule, or more.

    Returns:
        For ``batch.node_places``, and for the places of `pair_labels`; of the matrix element that
        stands at each in uncoupled vectors.
    """
    tables, z = blocks.tables(batch.nao.device), batch.numbers
    before = torch.cumsum(tables.count[z], 0) - tables.count[z]
    first = before - (torch.cumsum(batch.nao, 0) - batch.nao)[batch.batch]

    def places(within: Tensor, i: Tensor, j: Tensor) -> Tensor:
        row = first[i] + tables.number[z[i], tables.row[within]]
        column = first[j] + tables.number[z[j], tables.column[within]]
        return (batch.batch[i] * width + row) * width + column

    atom = batch.node_places // blocks.size
    pairs = batch.pair_places.reshape(-1).long()
    i, j = batch.edge_index[:, pairs // blocks.size]
    return (
        places(batch.node_places % blocks.size, atom, atom),
        places(pairs % blocks.size, i, j),
    )


def matrix_map(batch: Batch, blocks: BlockLayout) -> BlockMap:
    """Index maps between the block vectors of a batch and its matrices, flat one behind the other.

    On the device of the batch; they are made on the CPU, so this waits for the device.
    """
    atoms = torch.bincount(batch.batch, minlength=len(batch.nao))
    owner = batch.batch[batch.edge_index[1]]
    edges = torch.bincount(owner, minlength=len(batch.nao))
    first = torch.cumsum(atoms, 0) - atoms
    pairs = (batch.edge_index - first[owner]).cpu().split(edges.tolist(), dim=1)
    elements = batch.numbers.cpu().split(atoms.tolist())
    maps = [
        blocks.block_map(z.numpy(), e.contiguous().numpy())
        for z, e in zip(elements, pairs, strict=True)
    ]
    steps = {
        "node_places": (atoms * blocks.size).tolist(),
        "node_matrix": batch.nao.square().tolist(),
        "edge_places": (edges * blocks.size).tolist(),
        "edge_matrix": batch.nao.square().tolist(),
    }
    maps_of = {
        field: joined([getattr(one, field) for one in maps], step).to(batch.nao.device)
        for field, step in steps.items()
    }
    return BlockMap(**maps_of)
