"""SchNOrb written straight from its equations, as its public code computes it.

Neighbour tensors [molecule, atom, neighbour, ...], every ordered pair by itself, all running
products kept, the on-site readout once per neighbour. Slow and clear; it knows nothing of the
model's modules. Parameters come by their published names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional


class Oracle:
    """Matrices and energies of molecules of one size, with orbitals in the order of the readout.

    Args:
        weights: parameters by published name.
        orbitals: (Z,) orbitals of each element.
        gaussians, cutoff: of the distance.
        mean: sums over neighbours that update atoms are means.
        energy_mean, energy_std: of the energy per atom.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], orbitals: Tensor, gaussians: int = 50,
        cutoff: float = 10.0, mean: bool = False, energy_mean: float = 0.0, energy_std: float = 1.0,
    ) -> None:  # fmt: skip
        self.w, self.orbitals, self.mean = dict(weights), orbitals, mean
        self.gaussians, self.cutoff = gaussians, cutoff
        self.energy_mean, self.energy_std = energy_mean, energy_std
        self.n = self.w["output.h0.orbital_energies"].shape[1]

    def dense(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"))

    def two(self, name: str, x: Tensor) -> Tensor:
        return self.dense(f"{name}.1", ssp(self.dense(f"{name}.0", x)))

    def __call__(self, numbers: Tensor, positions: Tensor) -> dict[str, Tensor]:
        """(b, A) and (b, A, 3) -> H and S (b, A n, A n) padded to n orbitals per atom, E (b,)."""
        atoms = numbers.shape[1]
        at = torch.arange(atoms, device=numbers.device)
        others = at.expand(atoms, atoms)[at != at[:, None]].view(atoms, atoms - 1)
        vector = positions[:, others] - positions[:, :, None]
        distance = vector.norm(dim=-1)
        direction = vector / distance[..., None]
        centres = torch.linspace(
            0, self.cutoff, self.gaussians, dtype=torch.float64, device=distance.device
        ).to(distance)
        width = centres[1] - centres[0]
        smeared = torch.exp(-((distance[..., None] - centres) ** 2) / (2 * width**2))
        fade = 0.5 * (torch.cos(math.pi * distance / self.cutoff) + 1)
        fade = (fade * (distance < self.cutoff))[..., None]
        x = self.w["representation.embedding.weight"][numbers]
        layer = 0
        while (name := f"representation.schnet_interactions.{layer}") + ".dense.weight" in self.w:
            filters = self.two(f"{name}.filter_network", smeared) * fade
            y = (filters * self.dense(f"{name}.cfconv.in2f", x)[:, others]).sum(2)
            y = y / (atoms - 1) if self.mean else y
            x = x + self.dense(f"{name}.dense", ssp(self.dense(f"{name}.cfconv.f2out", y)))
            layer += 1
        stages = []
        block = 0
        while (name := block_name(block)) + ".pairnet.0.weight" in self.w:
            filters = self.two(f"{name}.filter_network", smeared) * fade
            a = self.dense(f"{name}.ftensor.in2f", x)
            h = ssp(self.dense(f"{name}.ftensor.f2out", a[:, :, None] * filters * a[:, others]))
            axes = direction if block else torch.ones_like(distance)[..., None]
            pair = self.two(f"{name}.pairnet", h)[..., None] * axes[..., None, :]
            around = (self.two(f"{name}.envnet", h)[..., None] * axes[..., None, :]).sum(2)
            if f"{name}.pairnet_mult.weight" in self.w:
                v = (
                    self.dense(f"{name}.pairnet_mult", pair)
                    + self.dense(f"{name}.envnet_mult1", around)[:, :, None]
                    + self.dense(f"{name}.envnet_mult2", around)[:, others]
                )
            else:
                v = pair + around[:, :, None] + around[:, others]
            stages.append(v)
            if f"{name}.atomnet.0.weight" in self.w:
                summed = h.mean(2) if self.mean else h.sum(2)
                x = x + self.two(f"{name}.atomnet", summed)
            block += 1
        if block > 1:  # the first factor is the same in all directions
            stages[0] = stages[0].expand_as(stages[1])
        products = torch.cumprod(torch.stack([v.flatten(3) for v in stages], 3), 3)
        z = products.flatten(3)
        out = {"H": self.matrix("offsitenet", z, others)}
        own = self.dense("output.onsitenet", z).mean(2).unflatten(-1, (self.n, self.n))
        out["H"] = self.finished(out["H"], own, "h0", numbers)
        if "output.ov_offsitenet.weight" in self.w:
            own = self.w["output.ov_onsitenet.weight"].view(-1, self.n, self.n)[numbers]
            out["S"] = self.finished(self.matrix("ov_offsitenet", z, others), own, "s0", numbers)
        if "output.atom_net.0.weight" in self.w:
            each = self.two("output.atom_net", x)[..., 0]
            out["E"] = (self.energy_std * each + self.energy_mean).sum(1)
        return out

    def matrix(self, name: str, z: Tensor, others: Tensor) -> Tensor:
        """(b, A, A, n, n) blocks of different atoms, zero on the diagonal."""
        blocks = self.dense(f"output.{name}", z).unflatten(-1, (self.n, self.n))
        index = others[None, :, :, None, None].expand(blocks.shape)
        return blocks.new_zeros(*blocks.shape[:2], len(others), self.n, self.n).scatter(
            2, index, blocks
        )

    def finished(self, blocks: Tensor, own: Tensor, diagonal: str, numbers: Tensor) -> Tensor:
        """Symmetric (b, A n, A n) matrices without orbitals that do not exist."""
        size = numbers.shape[1] * self.n
        at = torch.arange(numbers.shape[1], device=numbers.device)
        blocks = blocks.clone()
        blocks[:, at, at] = own
        full = blocks.permute(0, 1, 3, 2, 4).reshape(-1, size, size)
        full = 0.5 * (full + full.mT)
        exists = self.exists(numbers).view(-1, size)
        full = full * (exists[:, :, None] & exists[:, None, :])
        table = self.w[f"output.{diagonal}.orbital_energies"][numbers].reshape(-1, size)
        return full + torch.diag_embed(table * exists)

    def cut(self, matrix: Tensor, numbers: Tensor) -> list[Tensor]:
        """Per molecule the matrix of its orbitals alone."""
        exists = self.exists(numbers).flatten(1)
        return [m[e][:, e] for m, e in zip(matrix, exists, strict=True)]

    def exists(self, numbers: Tensor) -> Tensor:
        """(b, A, n): which orbitals there are."""
        places = torch.arange(self.n, device=numbers.device)
        return places < self.orbitals[numbers][..., None]


def leaves(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of published weights to take gradients of, those of axes flattened to matrices."""
    copies = {name: tensor.detach().clone() for name, tensor in weights.items()}
    return {
        name: (tensor.reshape(len(tensor), -1) if tensor.ndim > 2 else tensor).requires_grad_()
        for name, tensor in copies.items()
    }


def ssp(x: Tensor) -> Tensor:
    return functional.softplus(x) - math.log(2)


def block_name(block: int) -> str:
    if block:
        return f"representation.interactions.{block - 1}"
    return "representation.first_interaction"
