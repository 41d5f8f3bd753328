"""SPHNet by its equations, path by path: slow, clear, and independent of `hambench.o3`.

Features are lists of (rows, C, 2l+1), as e3nn keeps them. Products run over all paths in turn, one
einsum each; paths that are masked have a coefficient of zero, and are computed all the same. Runs
in any floating type; its symbols and harmonics are e3nn's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from e3nn import o3
from torch import Tensor
from torch.nn.functional import layer_norm, linear, silu, softplus

Features = list[Tensor]
KAPPA = 1.878204668541552


@dataclass
class Settings:
    """What the equations leave open."""

    lmax: int
    heads: int = 8
    short_cutoff: float = 5.0
    long_cutoff: float = 15.0
    cutoff: float = 15.0
    pair_cutoff: float = 30.0
    norm_layout: str = "corrected"
    unit_vectors: str = "exact"
    vector_lengths: str = "fading"
    pair_order: str = "symmetric"
    gate_form: str = "fading"
    gate_scope: str = "molecule"
    sparsity: float | None = None


@dataclass
class Paths:
    """Paths of one product: a mask with coefficients from W, or coefficients for good."""

    mask: Tensor | None = None
    coefficients: Tensor | None = None


@cache
def symbol(l1: int, l2: int, l3: int, like: tuple[torch.device, torch.dtype]) -> Tensor:
    return o3.wigner_3j(l1, l2, l3, dtype=torch.float64).to(*like)


@cache
def triangles(lmax: int, kind: str) -> tuple[tuple[int, int, int], ...]:
    found = []
    for l1 in range(lmax + 1):
        for l2 in range(lmax + 1):
            for l3 in range(lmax + 1):
                allowed = abs(l1 - l2) <= l3 <= l1 + l2
                allowed &= kind == "all" or (l1 + l2 + l3) % 2 == 0
                if allowed and (kind != "scalar" or l1 == 0):
                    found.append((l1, l2, l3))
    return tuple(found)


def coefficients(paths: tuple[tuple[int, int, int], ...]) -> list[float]:
    found = []
    for path in paths:
        d = 2 * path[2] + 1
        ways = sum(other[2] == path[2] for other in paths)
        found.append(math.sqrt(d / ways * math.sqrt(d / len(paths))))
    return found


class Oracle:
    """The network as functions of its weights.

    Args:
        weights: parameters by their names in `SPHNet`.
        slots: degrees of the orbital slots.
        settings: see `Settings`.
        paths: of the products of atoms 1, 2 and pairs 1, 2; None: all paths.
    """

    def __init__(
        self,
        weights: dict[str, Tensor],
        slots: tuple[int, ...],
        settings: Settings,
        paths: list[Paths] | None = None,
    ) -> None:
        self.w, self.slots, self.s = weights, slots, settings
        self.paths = paths or [Paths()] * 4

    def __call__(self, batch: Any) -> tuple[Tensor, Tensor]:
        """(N, K, K) on-site blocks, (pairs, K, K) blocks of pairs, later atom first."""
        h = self.vectorial(batch)
        x1, x2 = self.spherical(batch, h)
        node = self.atoms(x1, 0, self.paths[0])
        more = self.atoms(x2, 1, self.paths[1])
        node = [a + b for a, b in zip(node, more, strict=True)]
        on_site = self.expand("head.atom_expansion", node, h)
        first, second = batch.edge_index[:, batch.pair_index[0]]
        both = h[first] + h[second]
        forth = self.pairs(batch, x1, x2, second, first)
        blocks = self.expand("head.pair_expansion", forth, both)
        if self.s.pair_order == "symmetric":
            back = self.pairs(batch, x1, x2, first, second)
            back = self.expand("head.pair_expansion", back, both)
            blocks = (blocks + back.transpose(1, 2)) / 2
        return on_site, blocks

    # ---- first stage

    def vectorial(self, batch: Any) -> Tensor:
        w, p = self.w, "backbone.vectorial."
        z, x = batch.numbers, batch.positions
        n = len(z)
        source, target = batch.edge_index[:, batch.near_index]
        v = x[source] - x[target]
        r = v.norm(dim=1)
        length = r
        if self.s.unit_vectors == "published":
            length = ((v + 1e-6) ** 2).sum(1).sqrt() + 1e-6
        d = v / length[:, None]
        fade = envelope(r, self.s.short_cutoff)[:, None]
        rbf = self.exp_normal("near_basis", r, self.s.short_cutoff)
        e = w[p + "element.weight"][z]
        m = w[p + "neighbour.weight"][z[source]] * self.linear("neighbour_filter", rbf) * fade
        around = torch.zeros_like(e).index_add(0, target, m)
        e = self.linear("combine", torch.cat([e, around], 1))
        f = self.linear("edge", rbf)
        s = self.linear("scalars", e)
        vec = s.new_zeros(n, 3, s.shape[1])
        for k in range(self.count("short")):
            s, vec, f = self.short(f"short.{k}.", s, vec, f, source, target, d, fade)
        far, vec = s, vec
        atom, group = batch.group_pairs
        labels, where = batch.group_index.unique(return_inverse=True)
        group = torch.searchsorted(labels, group)
        member = torch.nn.functional.one_hot(where).to(x.dtype)
        charge = z.to(x.dtype)
        centres = member.T @ (charge[:, None] * x) / (member.T @ charge)[:, None]
        v = x[atom] - centres[group]
        if self.s.unit_vectors == "published":
            r = ((v + 1e-6) ** 2).sum(1).sqrt() + 1e-6
            u = v / r[:, None]
        else:
            r = (v**2).sum(1).clamp(min=1e-40).sqrt()
            u = v / r.clamp(min=1e-3)[:, None]
        g = self.linear("group_edge", self.exp_normal("group_basis", r, self.s.long_cutoff))
        mean = member.T / member.sum(0)[:, None]
        for k in range(self.count("long")):
            far, vec = self.long(f"long.{k}.", far, vec, g, atom, group, u, mean)
        joined = torch.cat([self.norm("short_norm", s), self.norm("long_norm", far)], 1)
        return self.linear("output", joined)

    def short(self, name, s, vec, f, source, target, d, fade):
        x, v = self.norm(name + "norm", s), scaled(vec, self.s.vector_lengths)
        heads = (len(f), self.s.heads, -1)
        dk, dv = (silu(self.linear(name + k, f)) for k in ("key_edge", "value_edge"))
        q, k = self.linear(name + "query", x)[target], self.linear(name + "key", x)[source]
        a = silu((q * k * dk).view(heads).sum(2)) * fade
        m = (self.linear(name + "value", x)[source] * dv).view(heads) * a[..., None]
        m = m.flatten(1)
        s1, s2 = silu(self.linear(name + "split", m)).chunk(2, 1)
        mv = v[source] * s1[:, None] + d[:, :, None] * s2[:, None]
        total = torch.zeros_like(s).index_add(0, target, m)
        moved = torch.zeros_like(vec).index_add(0, target, mv)
        o1, o2, o3_ = self.linear(name + "out", total).chunk(3, 1)
        df = 0.0
        if self.prefix(name + "vector") in self.w:
            v1, v2, v3 = self.linear(name + "vector", v).chunk(3, 2)
            ds, dvec = (v1 * v2).sum(1) * o2 + o3_, v3 * o1[:, None] + moved
        else:
            ds, dvec = o3_, moved
        if self.prefix(name + "edge") in self.w:
            w1 = across(self.linear(name + "target", v)[target], d)
            w2 = across(self.linear(name + "source", v)[source], -d)
            df = silu(self.linear(name + "edge", f)) * (w1 * w2).sum(1)
        return s + ds, vec + dvec, f + df

    def long(self, name, s, vec, g, atom, group, u, mean):
        x, v = self.norm(name + "norm", s), scaled(vec, self.s.vector_lengths)
        y = self.norm(name + "group_norm", mean @ s)
        heads = (len(g), self.s.heads, -1)
        q, k = self.linear(name + "query", x)[atom], self.linear(name + "key", y)[group]
        a = silu((q * k * g).view(heads).sum(2) / math.sqrt(s.shape[1] / self.s.heads))
        m = self.linear(name + "value", y)[group].view(heads) * a[..., None]
        m = m.flatten(1)
        total = torch.zeros_like(s).index_add(0, atom, m)
        inner = (self.linear(name + "left", v) * self.linear(name + "right", v)).sum(1)
        ds = inner * self.linear(name + "scale", total) + self.linear(name + "shift", total)
        if self.prefix(name + "carry") not in self.w:
            return s + ds, vec
        groups = scaled(torch.einsum("gn,nac->gac", mean, vec), self.s.vector_lengths)
        mv = self.network(name + "direction", m)[:, None] * -u[:, :, None]
        mv = mv + self.network(name + "vector", m)[:, None] * groups[group]
        moved = torch.zeros_like(vec).index_add(0, atom, mv)
        gate, carry = self.linear(name + "gate", total), self.linear(name + "carry", v)
        return s + ds, vec + moved + gate[:, None] * carry

    def exp_normal(self, name: str, r: Tensor, cutoff: float) -> Tensor:
        means, betas = (self.w[f"backbone.vectorial.{name}.{k}"] for k in ("means", "betas"))
        decay = torch.exp(-5 * r / cutoff)[:, None]
        return envelope(r, cutoff)[:, None] * torch.exp(-betas * (decay - means) ** 2)

    # ---- convolutions

    def spherical(self, batch: Any, h: Tensor) -> tuple[Features, Features]:
        lmax, n = self.s.lmax, len(h)
        sender, receiver = batch.edge_index[:, batch.nearest_index]
        v = batch.positions[receiver] - batch.positions[sender]
        harmonics = o3.spherical_harmonics(
            list(range(lmax + 1)), v.roll(-1, 1), normalize=True, normalization="component"
        )
        y = [part[:, None] for part in harmonics.split([2 * l + 1 for l in range(lmax + 1)], 1)]
        rbf = self.bernstein("backbone.basis.raw", v.norm(dim=1), self.s.cutoff)
        name = "backbone.first."
        s0 = torch.cat([h[receiver], h[sender]], 1)
        weights = self.fcn(name + "radial.weights.", rbf) * self.fcn(name + "scalars.weights.", s0)
        m = self.product([h[sender][..., None]], y, weights, "scalar")
        x1 = self.mixed(name + "output", self.normalised(name + "norm.", summed(m, receiver, n)))
        name = "backbone.second."
        p = self.mixed(name + "before", x1)
        s0 = self.scalars(take(p, receiver), take(p, sender))
        z = self.mixed(name + "linear", self.gate(name + "gate.network.", x1))
        if self.s.sparsity is not None:
            kept, g, share = self.pair_gate(
                name + "select.linear.weight", s0, batch.batch[receiver]
            )
            s0, rbf, y = g * s0[kept], rbf[kept], take(y, kept)
            sender, receiver = sender[kept], receiver[kept]
        weights = self.fcn(name + "radial.weights.", rbf) * self.fcn(name + "scalars.weights.", s0)
        m = self.product(take(z, sender), y, weights, "natural")
        if self.s.sparsity is not None:
            m = [part * share for part in m]
        m = self.normalised(name + "norm.", summed(m, receiver, n))
        out = self.mixed(name + "output", [a + b for a, b in zip(m, z, strict=True)])
        return x1, [a + b for a, b in zip(x1, out, strict=True)]

    def scalars(self, a: Features, b: Features) -> Tensor:
        return torch.cat([a[0][..., 0], b[0][..., 0], *inner(a, b)], 1)

    def pair_gate(self, name: str, s0: Tensor, owner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows that are kept, factors of their scalars, and of what is computed of them."""
        score = s0 @ self.w[name][0]
        if self.s.gate_scope == "batch":
            owner = torch.zeros_like(owner)
        quantile, spread = torch.empty_like(score), torch.empty_like(score)
        for k in owner.unique():
            here = owner == k
            quantile[here] = torch.quantile(score[here], self.s.sparsity)
            spread[here] = torch.sqrt(score[here].var(correction=0) + 1e-6)
        kept = torch.nonzero(score >= quantile)[:, 0]
        share = torch.tanh(2 * (score - quantile) / spread)
        if self.s.gate_form == "hard":
            share = torch.ones_like(share)
        return kept, torch.sigmoid(score - quantile)[kept, None], share[kept, None, None]

    def normalised(self, name: str, x: Features) -> Features:
        lmax, n = self.s.lmax, len(x[0])
        power = sum((part**2).sum(2) / (lmax * part.shape[2]) for part in x[1:]).mean(1)
        nu = (power + 1e-5) ** -0.5
        out = [layer_norm(x[0][..., 0], x[0].shape[1:2], *self.affine(name + "scalar"))[..., None]]
        for l, part in enumerate(x[1:], 1):
            scale = self.w[name + "scale"][l - 1]
            if self.s.norm_layout == "published":
                flat = part.reshape(n, -1)
                place = torch.arange(flat.shape[1], device=flat.device) % len(scale)
                part = (flat * scale[place]).view_as(part)
            else:
                part = part * scale[:, None]
            out.append(part * nu[:, None, None])
        return out

    # ---- head

    def atoms(self, x: Features, block: int, paths: Paths) -> Features:
        name = f"head.atom.{block}."
        left = self.mixed(name + "left", self.gate(name + "left_gate.network.", x))
        right = self.mixed(name + "right", self.gate(name + "right_gate.network.", x))
        weights = self.w[name + "weight"].reshape(1, -1)
        c = self.chosen(name, paths)
        t = self.product(left, right, weights, "all", c)
        if block:
            t = [a + b for a, b in zip(t, x, strict=True)]
        return self.mixed(name + "output", self.gate(name + "gate.network.", t))

    def pairs(
        self, batch: Any, x1: Features, x2: Features, row: Tensor, column: Tensor
    ) -> Features:
        r = (batch.positions[row] - batch.positions[column]).norm(dim=1)
        rbf = self.bernstein("head.basis.raw", r, self.s.pair_cutoff)
        out: Features = []
        for block, x in enumerate((x1, x2)):
            name = f"head.pair.{block}."
            p = self.mixed(name + "before", x)
            a, b = take(p, row), take(p, column)
            s0 = torch.cat([(a[0] + b[0])[..., 0] / 2, *inner(a, b)], 1)
            y = self.mixed(name + "input", self.gate(name + "input_gate.network.", x))
            i, j, basis = row, column, rbf
            kept = torch.arange(len(row), device=row.device)
            if block and self.s.sparsity is not None:
                kept, g, share = self.pair_gate(name + "select.linear.weight", s0, batch.batch[row])
                s0, i, j, basis = g * s0[kept], row[kept], column[kept], rbf[kept]
            name += "weights."
            hidden = basis @ self.w[name + "radial_hidden"] / math.sqrt(basis.shape[1])
            last = self.w[name + "radial_last"].flatten(1)
            first = KAPPA * (softplus(hidden) - math.log(2)) @ last / math.sqrt(len(last))
            hidden = silu(linear(s0, *self.affine(name + "scalar_hidden")))
            weights = first * linear(hidden, *self.affine(name + "scalar_last"))
            name = f"head.pair.{block}."
            c = self.chosen(name, self.paths[2 + block])
            t = self.product(take(y, j), take(y, i), weights, "all", c)
            f = self.mixed(name + "output", self.gate(name + "gate.network.", t))
            if block and self.s.sparsity is not None:
                f = [part * share for part in f]
            if block == 0:
                out = f
            else:
                out = [o.index_add(0, kept, part) for o, part in zip(out, f, strict=True)]
        return out

    def chosen(self, name: str, paths: Paths) -> Tensor:
        """Coefficients of all paths."""
        if paths.coefficients is not None:
            return paths.coefficients
        like = self.w["backbone.basis.raw"]
        c = torch.tensor(coefficients(triangles(self.s.lmax, "all")), dtype=torch.float64).to(like)
        if paths.mask is None:
            return c
        terms = c * self.w[name + "product.importance"] * paths.mask
        return terms / terms.sum()

    def expand(self, name: str, features: Features, scalars: Tensor) -> Tensor:
        """(rows, K, K) blocks."""
        f = self.mixed(name + ".bottleneck", features)
        theta, beta = self.mlp(name + ".weights.", scalars), self.mlp(name + ".biases.", scalars)
        channels, rows = f[0].shape[1], len(scalars)
        starts = [sum(2 * l + 1 for l in self.slots[:k]) for k in range(len(self.slots) + 1)]
        blocks = scalars.new_zeros(rows, starts[-1], starts[-1])
        used = biased = 0
        for l in range(self.s.lmax + 1):
            for la in sorted(set(self.slots)):
                for lb in sorted(set(self.slots)):
                    if not abs(la - lb) <= l <= la + lb:
                        continue
                    some = [k for k, slot in enumerate(self.slots) if slot == la]
                    other = [k for k, slot in enumerate(self.slots) if slot == lb]
                    size = channels * len(some) * len(other)
                    shape = (rows, channels, len(some), len(other))
                    matrix = theta[:, used : used + size].view(shape)
                    used += size
                    t = torch.einsum("rwuv,rwm->ruvm", matrix, f[l])
                    if l == 0:
                        size = len(some) * len(other)
                        bias = beta[:, biased : biased + size].view(rows, len(some), len(other), 1)
                        t, biased = t + bias, biased + size
                    w3j = symbol(la, lb, l, (t.device, t.dtype))
                    t = torch.einsum("ikm,ruvm->ruivk", w3j, t) / channels
                    for u, a in enumerate(some):
                        for v, b in enumerate(other):
                            rows_, columns = slice(*starts[a : a + 2]), slice(*starts[b : b + 2])
                            blocks[:, rows_, columns] += t[:, u, :, v]
        return blocks

    # ---- primitives

    def product(
        self, x: Features, y: Features, weights: Tensor, kind: str, c: Tensor | None = None
    ) -> Features:
        """Path by path; weights (R or 1, P C)."""
        paths = triangles(self.s.lmax, kind)
        channels, like = x[0].shape[1], (x[0].device, x[0].dtype)
        c = torch.tensor(coefficients(paths), dtype=torch.float64).to(weights) if c is None else c
        out: list[Tensor | None] = [None] * (self.s.lmax + 1)
        for k, (l1, l2, l3) in enumerate(paths):
            w = c[k] * weights[:, k * channels : (k + 1) * channels]
            pair = x[l1][..., None] * y[l2][:, :, None]
            term = w[..., None] * torch.einsum("ijk,rcij->rck", symbol(l1, l2, l3, like), pair)
            before = out[l3]
            out[l3] = term if before is None else before + term
        return [part for part in out if part is not None]

    def mixed(self, name: str, x: Features) -> Features:
        weight, bias = self.w[name + ".weight"], self.w.get(name + ".bias")
        out = []
        for l, part in enumerate(x):
            new = torch.einsum("rui,uv->rvi", part, weight[l]) / math.sqrt(part.shape[1])
            out.append(new + bias[:, None] if l == 0 and bias is not None else new)
        return out

    def gate(self, name: str, x: Features) -> Features:
        norms = []
        for part in x[1:]:
            squares = (part**2).sum(2)
            norms.append(torch.where(squares > 0, squares, 1.0).sqrt() * (squares > 0))
        g = self.mlp(name, torch.cat([x[0][..., 0], *norms], 1)).split(x[0].shape[1], 1)
        return [g[0][..., None], *(p * f[..., None] for p, f in zip(x[1:], g[1:], strict=True))]

    def fcn(self, name: str, x: Tensor) -> Tensor:
        first, last = self.w[name + "0"], self.w[name + "1"]
        hidden = KAPPA * (softplus(x @ first / math.sqrt(len(first))) - math.log(2))
        return hidden @ last / math.sqrt(len(last))

    def mlp(self, name: str, x: Tensor) -> Tensor:
        return linear(silu(linear(x, *self.affine(name + "0"))), *self.affine(name + "2"))

    def bernstein(self, name: str, r: Tensor, cutoff: float) -> Tensor:
        """16 exponential Bernstein polynomials; logarithms of binomials rounded to float32."""
        u = -softplus(self.w[name]) * r
        near = r < cutoff
        safe = torch.where(near, r, 0.0)
        fade = torch.where(near, torch.exp(-(safe**2) / ((cutoff - safe) * (cutoff + safe))), 0.0)
        out = []
        for v in range(16):
            binomial = torch.tensor(math.log(math.comb(15, v)), dtype=torch.float32).item()
            out.append(fade * torch.exp(binomial + (15 - v) * u + v * torch.log(-torch.expm1(u))))
        return torch.stack(out, 1)

    def prefix(self, name: str) -> str:
        return f"backbone.vectorial.{name}.weight"

    def count(self, layers: str) -> int:
        return len(
            {k.split(".")[3] for k in self.w if k.startswith(f"backbone.vectorial.{layers}.")}
        )

    def linear(self, name: str, x: Tensor) -> Tensor:
        return linear(x, *self.affine("backbone.vectorial." + name))

    def network(self, name: str, x: Tensor) -> Tensor:
        return self.mlp(f"backbone.vectorial.{name}.", x)

    def norm(self, name: str, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[1:], *self.affine("backbone.vectorial." + name))

    def affine(self, name: str) -> tuple[Tensor, Tensor | None]:
        return self.w[name + ".weight"], self.w.get(name + ".bias")


def inner(a: Features, b: Features) -> list[Tensor]:
    return [(p * q).mean(2) for p, q in zip(a[1:], b[1:], strict=True)]


def take(x: Features, rows: Tensor) -> Features:
    return [part[rows] for part in x]


def summed(x: Features, rows: Tensor, n: int) -> Features:
    return [part.new_zeros(n, *part.shape[1:]).index_add(0, rows, part) for part in x]


def envelope(r: Tensor, cutoff: float) -> Tensor:
    return torch.where(r < cutoff, (torch.cos(math.pi * r / cutoff) + 1) / 2, 0.0)


def scaled(v: Tensor, lengths: str) -> Tensor:
    """Vectors with the length of the smallest channel moved to 0, of the largest to 1."""
    squares = (v**2).sum(1)
    length = torch.where(squares > 0, squares, 1.0).sqrt() * (squares > 0)
    low, high = length.min(1, keepdim=True).values, length.max(1, keepdim=True).values
    spread = torch.where(high > low, high - low, 1.0)
    if lengths == "fading":
        spread = torch.sqrt((high - low) ** 2 + 1e-4)
    direction = v / length.clamp(min=1e-12)[:, None]
    return torch.relu((length - low) / spread)[:, None] * direction


def across(v: Tensor, d: Tensor) -> Tensor:
    return v - (v * d[..., None]).sum(1, keepdim=True) * d[..., None]
