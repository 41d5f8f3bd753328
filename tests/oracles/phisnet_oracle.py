"""PhiSNet path by path, as its public code computes it: slow, and by the equations alone.

Features are lists over l of (rows, 2l+1, F). Every product of two degrees is a broadcast product
with its coupling tensor, every sum over neighbours k of a pair (i, j) is over explicit triples, and
matrices are filled shell pair by shell pair. Nothing of `hambench.o3` is used.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from e3nn import o3
from torch import Tensor, nn
from torch.nn import functional

from hambench.baselines.phisnet.embedding import configurations
from hambench.baselines.phisnet.model import PhiSNet
from hambench.baselines.phisnet.names import entries
from hambench.data.graph import Batch
from hambench.units import BOHR

Feature = list[Tensor]

NEGATIVE = {
    (1, 1, 1), (1, 2, 2), (2, 2, 1), (1, 3, 3), (3, 3, 1), (4, 1, 4),
    (2, 3, 2), (2, 4, 3), (3, 2, 4), (4, 3, 2), (3, 3, 3), (4, 3, 4),
}  # fmt: skip
"""Couplings of the public code that are minus e3nn's."""


@cache
def coupling(l1: int, l2: int, l3: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    sign = -1 if (l1, l2, l3) in NEGATIVE else 1
    return sign * o3.wigner_3j(l1, l2, l3, dtype=torch.float64).to(device, dtype)


def couple(a: Tensor, b: Tensor, l3: int) -> Tensor:
    """(rows, 2l1+1, F) and (rows, 2l2+1, F) -> (rows, 2l3+1, F)."""
    symbol = coupling(a.shape[1] // 2, b.shape[1] // 2, l3, a.dtype, a.device)
    product = symbol[None, ..., None] * a[:, :, None, None] * b[:, None, :, None]
    return product.sum((1, 2))


def published_weights(model: PhiSNet) -> dict[str, Tensor]:
    """The weights of a model that carries the unused ones, as the public code names them."""
    spare, found = model.unused.by_name(), {}
    for entry in entries(model):
        if entry.parameter is None:
            found[entry.name] = spare[entry.name].detach().clone()
            continue
        ours = entry.parameter.detach()[entry.index]
        rows = None if entry.rows is None else entry.rows.to(ours.device)
        sign = entry.sign[:, None].to(ours) if isinstance(entry.sign, Tensor) else entry.sign
        whole = ours.new_zeros(entry.shape)
        if entry.unused is not None:
            left = ours.new_ones(entry.shape[0], dtype=torch.bool).index_fill(0, rows, False)
            whole[left] = spare[entry.name].detach()
        used = ... if rows is None else rows
        whole[used] = ours.reshape(whole[used].shape) * sign
        found[entry.name] = whole
    return found


class PathByPath(nn.Module):
    """The network of a `PhiSNet`, with copies of its weights under their public names.

    Args:
        model: with ``unused_weights``, of any floating type.
    """

    def __init__(self, model: PhiSNet) -> None:
        super().__init__()
        self.size, self.basis, self.overlap = model.size, model.basis, model.overlap is not None
        self.rounded = model.trunk.embedding.rounded
        self.lmax = model.size.lmax
        frozen = {entry.name for entry in entries(model) if entry.frozen}
        self.weights = {
            name: nn.Parameter(weight, requires_grad=name not in frozen)
            for name, weight in published_weights(model).items()
        }
        for name, parameter in self.weights.items():
            self.register_parameter(name.replace(".", "/"), parameter)
        self.tables = [self.table(kinds) for kinds in (model.kinds.atoms, model.kinds.pairs)]

    def table(self, kinds: list[tuple[int, int]]) -> dict[tuple[int, ...], int]:
        """(Z_i, Z_j, shell of i, shell of j, L) -> column of the head."""
        found: dict[tuple[int, ...], int] = {}
        used = [0] * (2 * self.basis.lmax + 1)
        for zi, zj in kinds:
            for ni, li in enumerate(self.basis.shells[zi].l):
                for nj, lj in enumerate(self.basis.shells[zj].l):
                    for l in range(abs(li - lj), li + lj + 1):
                        found[zi, zj, ni, nj, l] = used[l]
                        used[l] += 1
        return found

    def forward(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """Per molecule the Hamiltonian, and the overlap where the model has one."""
        w, degrees = self.weights, range(self.lmax + 1)
        numbers, (i, j) = batch.numbers, batch.edge_index
        vectors = (batch.positions[j] - batch.positions[i]) / BOHR
        distances = vectors.norm(dim=1)
        radial = self.radial(distances)
        harmonics = [
            o3.spherical_harmonics(l, vectors.roll(-1, 1), True, "component")[..., None]
            for l in degrees
        ]
        q = configurations(radial.dtype, radial.device, self.rounded)
        elements = (
            w["embedding.embedding.element_embedding"][numbers]
            + q[numbers] @ w["embedding.embedding.config_linear.weight"].T
        )
        zeros = [elements.new_zeros(len(numbers), 2 * l + 1, self.size.features) for l in degrees]
        x = [elements[:, None], *zeros[1:]]
        f = zeros
        for k in range(self.size.modules):
            x, y = self.module(f"module.{k}", x, radial, harmonics, i, j)
            f = [a + b for a, b in zip(f, y, strict=True)]
        central, neighbour = self.residual("residual_pc", f), self.residual("residual_pn", f)
        around = self.factors("radial_ii", radial, [n[j] for n in neighbour])
        atoms = [c.index_add(0, i, a) for c, a in zip(central, around, strict=True)]
        atoms = self.residual("residual_ii", atoms)
        pairs = self.pair_mix("mix_ij", [c[i] for c in central], [c[j] for c in central], radial)
        around = self.factors("radial_ij", radial, [n[j] for n in neighbour])
        target, source = triples(batch.edge_index)
        pairs = [p.index_add(0, target, a[source]) for p, a in zip(pairs, around, strict=True)]
        pairs = self.residual("residual_ij", pairs)
        hamiltonians = self.matrices(
            batch, self.head("full_ii", atoms), self.head("full_ij", pairs)
        )
        if not self.overlap:
            return hamiltonians, []
        second = [elements[j][:, None], *self.angular("angular_fn", harmonics)[1:]]
        mixed = self.pair_mix("mix_s", [p[i] for p in x_of(elements, zeros)], second, radial)
        on_site = self.linear("output_over_ii", x_of(elements, zeros))
        overlaps = self.matrices(batch, on_site, self.head("over_ij", mixed))
        return hamiltonians, [
            s - torch.diag(s.diagonal()) + torch.diag(torch.ones_like(s.diagonal()))
            for s in overlaps
        ]

    def radial(self, d: Tensor) -> Tensor:
        cutoff, count = self.size.cutoff / BOHR, self.size.basis
        alpha = functional.softplus(self.weights["radial_basis_functions._alpha"])
        v = torch.arange(count, dtype=torch.float64, device=d.device)
        n = count - 1 - v
        logs = math.lgamma(count) - torch.lgamma(v + 1) - torch.lgamma(n + 1)
        v, n, logs = v.to(d), n.to(d), logs.to(d)
        inside = torch.where(d < cutoff, d, 0.0)
        fade = torch.exp(-(inside**2) / ((cutoff - inside) * (cutoff + inside)))
        fade = torch.where(d < cutoff, fade, 0.0)
        x = -alpha * d[:, None]
        return fade[:, None] * torch.exp(logs + n * x + v * torch.log(-torch.expm1(x)))

    def module(
        self, name: str, x: Feature, radial: Tensor, harmonics: Feature, i: Tensor, j: Tensor
    ) -> tuple[Feature, Feature]:
        at = f"{name}.interaction"
        x = self.residual(f"{name}.residual_pre_x", x)
        own = self.residual(f"{at}.residual_pre_vi", x)
        own = self.linear(f"{at}.linear_i", self.swish(f"{at}.activation_i", own))
        other = self.residual(f"{at}.residual_pre_vj", x)
        other = self.linear(f"{at}.linear_j", self.swish(f"{at}.activation_j", other))
        other = [y[j] for y in other]
        first = self.angular(f"{at}.angular_fn1", harmonics)
        second = self.angular(f"{at}.angular_fn2", harmonics)
        messages = self.pair_mix(f"{at}.mixing", other, first, radial)
        direct = self.factors(f"{at}.radial_fn", radial, [s * other[0] for s in second])
        v = [a.index_add(0, i, m + d) for a, m, d in zip(own, messages, direct, strict=True)]
        v = self.residual(f"{at}.residual_post_v", v)
        v = self.linear(f"{at}.linear_v", self.swish(f"{at}.activation_v", v))
        x = [a + b for a, b in zip(x, v, strict=True)]
        x = self.residual(f"{name}.residual_post_x", x)
        return x, self.residual(f"{name}.residual_out", x)

    def swish(self, name: str, x: Feature) -> Feature:
        alpha, beta = self.weights[f"{name}.alpha"], self.weights[f"{name}.beta"]
        return [alpha * x[0] * torch.sigmoid(beta * x[0]), *x[1:]]

    def self_mix(self, name: str, x: Feature) -> Feature:
        out = [self.weights[f"{name}.keepcoeff_{l}"] * part for l, part in enumerate(x)]
        for l1 in range(self.lmax + 1):
            for l2 in range(l1 + 1, self.lmax + 1):
                for l in range(l2 - l1, min(l1 + l2, self.lmax) + 1):
                    factor = self.weights[f"{name}.mixcoeff_{l1}_{l2}_{l}"]
                    out[l] = out[l] + factor * couple(x[l1], x[l2], l)
        return out

    def linear(self, name: str, x: Feature) -> Feature:
        out = [
            part @ self.weights[f"{name}.linear.{l}.weight"].T
            for l, part in enumerate(self.self_mix(f"{name}.mixing", x))
        ]
        return [out[0] + self.weights[f"{name}.linear.0.bias"], *out[1:]]

    def residual(self, name: str, x: Feature) -> Feature:
        k = 0
        while f"{name}.stack.{k}.activation_pre.alpha" in self.weights:
            at = f"{name}.stack.{k}"
            y = self.linear(f"{at}.linear1", self.swish(f"{at}.activation_pre", x))
            y = self.linear(f"{at}.linear2", self.swish(f"{at}.activation_post", y))
            x = [a + b for a, b in zip(x, y, strict=True)]
            k += 1
        return x

    def pair_mix(self, name: str, x: Feature, y: Feature, radial: Tensor) -> Feature:
        rows, features = len(radial), self.size.features
        out = [radial.new_zeros(rows, 2 * l + 1, features) for l in range(self.lmax + 1)]
        for l1 in range(self.lmax + 1):
            for l2 in range(self.lmax + 1):
                for l in range(abs(l1 - l2), min(l1 + l2, self.lmax) + 1):
                    factor = radial @ self.weights[f"{name}.coeff_{l1}_{l2}_{l}.weight"].T
                    out[l] = out[l] + factor[:, None] * couple(x[l1], y[l2], l)
        return out

    def factors(self, name: str, radial: Tensor, x: Feature) -> Feature:
        weights = [radial @ self.weights[f"{name}.{l}.weight"].T for l in range(len(x))]
        return [weight[:, None] * part for weight, part in zip(weights, x, strict=True)]

    def angular(self, name: str, harmonics: Feature) -> Feature:
        out = [y @ self.weights[f"{name}.linear.{l}.weight"].T for l, y in enumerate(harmonics)]
        return [out[0] + self.weights[f"{name}.linear.0.bias"], *out[1:]]

    def head(self, name: str, x: Feature) -> Feature:
        x = self.swish(f"activation_{name}", self.residual(f"residual_{name}", x))
        return self.linear(f"output_{name}", x)

    def matrices(self, batch: Batch, atoms: Feature, pairs: Feature) -> list[Tensor]:
        """Molecules with the same atoms are filled together: a public batch is of one molecule."""
        numbers, owner = batch.numbers.tolist(), batch.batch.tolist()
        edges = {tuple(e): k for k, e in enumerate(batch.edge_index.T.tolist())}
        alike: dict[tuple[int, ...], list[list[int]]] = {}
        for molecule in range(len(batch.nao)):
            inside = [a for a, b in enumerate(owner) if b == molecule]
            alike.setdefault(tuple(numbers[a] for a in inside), []).append(inside)
        found: dict[int, Tensor] = {}
        for kinds, molecules in alike.items():
            rows = []
            for i, zi in enumerate(kinds):
                row = []
                for j, zj in enumerate(kinds):
                    of, table = (atoms, self.tables[0]) if i == j else (pairs, self.tables[1])
                    at = [
                        inside[i] if i == j else edges[inside[i], inside[j]] for inside in molecules
                    ]
                    place = torch.tensor(at).to(batch.numbers.device)
                    row.append(self.block(table, zi, zj, [h[place] for h in of]))
                rows.append(torch.cat(row, dim=2))
            raw = torch.cat(rows, dim=1)
            matrices = raw + raw.mT
            found |= {owner[inside[0]]: m for inside, m in zip(molecules, matrices, strict=True)}
        return [found[molecule] for molecule in range(len(batch.nao))]

    def block(self, table: dict[tuple[int, ...], int], zi: int, zj: int, irreps: Feature) -> Tensor:
        """(rows, orbitals of zi, orbitals of zj) of irreps (rows, 2l+1, columns)."""
        rows = []
        for ni, li in enumerate(self.basis.shells[zi].l):
            row = []
            for nj, lj in enumerate(self.basis.shells[zj].l):
                part = irreps[0].new_zeros(len(irreps[0]), 2 * li + 1, 2 * lj + 1)
                for l in range(abs(li - lj), min(li + lj, self.lmax) + 1):
                    column = irreps[l][:, :, table[zi, zj, ni, nj, l]]
                    symbol = coupling(li, lj, l, column.dtype, column.device)
                    part = part + (2 * l + 1) ** 0.5 * (symbol * column[:, None, None]).sum(-1)
                row.append(part)
            rows.append(torch.cat(row, dim=2))
        return torch.cat(rows, dim=1)


def x_of(elements: Tensor, zeros: Feature) -> Feature:
    return [elements[:, None], *zeros[1:]]


def triples(edges: Tensor) -> tuple[Tensor, Tensor]:
    """Edges (i, j) and (i, k), k unlike i and j, of all triples."""
    by_row: dict[int, list[int]] = {}
    for k, i in enumerate(edges[0].tolist()):
        by_row.setdefault(i, []).append(k)
    found = [(a, b) for row in by_row.values() for a in row for b in row if a != b]
    target, source = torch.tensor(found, dtype=torch.long).to(edges.device).reshape(-1, 2).T
    return target, source
