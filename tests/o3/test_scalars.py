"""Radial bases, linear maps and gates against published numbers and e3nn."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3
from e3nn.nn import FullyConnectedNet

from hambench.o3 import scalars
from hambench.o3.radial import BernsteinBasis, smooth_cutoff
from hambench.o3.scalars import (
    DegreeLinear,
    NormGate,
    WeightNetwork,
    degree_norms,
    inner_products,
    shifted_softplus,
)


@pytest.mark.parametrize(
    ("r", "alpha", "expected"),
    [
        (1.0, 1.0, (3.045397289e-07, 1.369844606e-02, 8.934223227e-03, 1.023434177e-03)),
        (2.0, 1.0, (9.189777770e-14, 2.937946463e-06, 2.603215434e-01, 1.108805908e-01)),
        (5.0, 1.0, (2.363888822e-33, 4.941555468e-19, 8.113829445e-02, 7.973901142e-01)),
        (2.0, 0.5, (3.004154419e-07, 1.351293202e-02, 8.813229378e-03, 1.009574072e-03)),
    ],
)
def test_bernstein_numbers(r: float, alpha: float, expected: tuple[float, ...]) -> None:
    """QHNet, section 2.3; the same basis per Bohr and in Angstrom, fixed and learned."""
    for unit, learn in ((1.0, False), (0.529177, False), (0.529177, True)):
        basis = BernsteinBasis(
            16, 15.0 * unit, alpha, unit=unit, learn=learn, rounded=True
        ).double()
        found = basis(torch.tensor([r * unit], dtype=torch.float64))[0, [0, 5, 14, 15]]
        # the numbers of 0.5 are of a raw one that was rounded to float32
        assert found.tolist() == pytest.approx(expected, rel=1e-7)


def test_cutoff_is_smooth() -> None:
    r = torch.tensor([0.0, 1.0, 2.999, 3.0, 3.001, 50.0], dtype=torch.float64, requires_grad=True)
    value = smooth_cutoff(r, 3.0)
    assert value[0] == 1
    assert (value[3:] == 0).all()
    (slope,) = torch.autograd.grad(value.sum(), r)
    assert slope.isfinite().all()
    assert (slope[3:] == 0).all()
    basis = BernsteinBasis(8, 3.0, 0.5).double()
    (slope,) = torch.autograd.grad(basis(r[1:]).sum(), r)
    assert slope.isfinite().all()


def test_linear_maps_and_networks_as_e3nn() -> None:
    irreps = o3.Irreps("4x0e+4x1o+4x2e")
    theirs = o3.Linear(irreps, o3.Irreps("3x0e+3x1o+3x2e"), biases=True).double()
    ours = DegreeLinear(2, 4, 3).double()
    with torch.no_grad():
        theirs.bias.normal_()
        ours.bias.copy_(theirs.bias)
        ours.weight.copy_(theirs.weight.view(3, 4, 3))
    x = torch.randn(5, 9, 4, dtype=torch.float64)
    flat = torch.cat([p.transpose(1, 2).flatten(1) for p in x.split([1, 3, 5], 1)], 1)
    expected = theirs(flat)
    found = torch.cat([p.transpose(1, 2).flatten(1) for p in ours(x).split([1, 3, 5], 1)], 1)
    assert (found - expected).abs().max() < 1e-12

    theirs = FullyConnectedNet([6, 5, 7], shifted_softplus).double()
    ours = WeightNetwork(6, 5, 7).double()
    for own, (_, layer) in zip(ours.weights, theirs.named_children(), strict=True):
        own.data.copy_(layer.weight.detach())
    x = torch.randn(8, 6, dtype=torch.float64)
    assert (ours(x) - theirs(x)).abs().max() < 1e-12
    assert (ours(0 * x) == 0).all()


def test_norms_have_a_gradient_at_zero() -> None:
    x = torch.randn(4, 9, 3, dtype=torch.float64)
    x[1] = 0
    x[2, 1:4] = 0
    x.requires_grad_()
    norms = degree_norms(x)
    assert (norms[2, 0] == 0).all()
    assert torch.allclose(norms[0, 1], x[0, 4:].norm(dim=0))
    (slope,) = torch.autograd.grad(norms.sum() + NormGate(2, 3).double()(x).sum(), x)
    assert slope.isfinite().all()
    products = inner_products(x, 2 * x)
    assert torch.allclose(products[:, 1], 2 * x[:, 4:].square().sum(1) / 5)


def test_gate_replaces_scalars() -> None:
    """QHNet 3.1: new scalars, factors for the rest; 820,480 parameters at 640 (its section 4.1)."""
    gate = NormGate(4, 128)
    assert sum(p.numel() for p in gate.parameters()) == 820_480
    gate = NormGate(2, 3).double()
    x = torch.randn(4, 9, 3, dtype=torch.float64)
    norms = torch.stack([x[:, 1:4].norm(dim=1), x[:, 4:].norm(dim=1)], 1)
    g = gate.network(torch.cat([x[:, 0], norms.flatten(1)], 1)).view(4, 3, 3)
    expected = torch.cat([g[:, :1], x[:, 1:4] * g[:, 1:2], x[:, 4:] * g[:, 2:]], 1)
    assert (gate(x) - expected).abs().max() < 1e-12


def by_degree(x: torch.Tensor) -> list[torch.Tensor]:
    return [x[:, l * l : (l + 1) ** 2] for l in range(round(x.shape[1] ** 0.5))]


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    parts = [part @ w / w.shape[0] ** 0.5 for part, w in zip(by_degree(x), weight, strict=True)]
    return torch.cat([parts[0] + bias, *parts[1:]], 1)


def gate(x: torch.Tensor, network: torch.nn.Module) -> torch.Tensor:
    norms = [part.norm(dim=1) for part in by_degree(x)[1:]]
    gates = network(torch.cat([x[:, 0], *norms], 1)).unflatten(1, (-1, x.shape[-1]))
    parts = [part * g[:, None] for part, g in zip(by_degree(x), gates.unbind(1), strict=True)]
    return torch.cat([gates[:, :1], *parts[1:]], 1)


def products(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    pairs = zip(by_degree(a)[1:], by_degree(b)[1:], strict=True)
    return torch.stack([(x * y).mean(1) for x, y in pairs], 1)


@pytest.mark.parametrize("few_calls", [False, True])
@pytest.mark.parametrize("by_component", [False, True])
@pytest.mark.parametrize(("rows", "lmax"), [(5, 4), (1, 0), (0, 2)])
def test_gradients(
    rows: int, lmax: int, by_component: bool, few_calls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients of what is written out, whatever lies next to what in memory."""
    monkeypatch.setattr(scalars, "wide", lambda device: few_calls)
    x, y = (torch.randn(rows, (lmax + 1) ** 2, 3, dtype=torch.float64) for _ in range(2))
    if by_component:
        x, y = (z.transpose(0, 1).contiguous().transpose(0, 1) for z in (x, y))
    x.requires_grad_()
    y.requires_grad_()
    maps, gates = DegreeLinear(lmax, 3, 2).double(), NormGate(lmax, 3).double()
    torch.nn.init.normal_(maps.bias)
    cases = [
        (maps(x), linear(x, maps.weight, maps.bias), [x, maps.weight, maps.bias]),
        (gates(x), gate(x, gates.network), [x, *gates.parameters()]),
    ]
    if lmax:
        norms = torch.stack([part.norm(dim=1) for part in by_degree(x)[1:]], 1)
        cases.append((degree_norms(x), norms, [x]))
        cases.append((inner_products(x, y), products(x, y), [x, y]))
        cases.append((inner_products(x, x), products(x, x), [x]))
    for found, expected, inputs in cases:
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, rtol=0, atol=1e-12)
        seed = torch.randn_like(found)
        for one, other in zip(
            torch.autograd.grad((found * seed).sum(), inputs),
            torch.autograd.grad((expected * seed).sum(), inputs),
            strict=True,
        ):
            assert torch.allclose(one, other, rtol=0, atol=1e-12)
