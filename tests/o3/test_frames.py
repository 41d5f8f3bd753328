"""Layers in edge frames against the same layers written plainly: values and all gradients."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import NamedTuple

import frames_oracle as oracle
import pytest
import torch
from torch import Tensor, nn

from hambench.o3 import kernels
from hambench.o3.ends import Ends
from hambench.o3.frames import EdgeFrames
from hambench.o3.layers import EquivariantRMSNorm, FeedForward, SO3Linear
from hambench.o3.so2 import SO2Convolution, gate_m

ATOMS, CHANNELS = 5, 6
PRECISIONS = [(torch.float64, 1e-10), (torch.float32, 1e-5)]


@pytest.fixture(params=PRECISIONS, ids=["float64", "float32"])
def precision(request: pytest.FixtureRequest) -> tuple[torch.dtype, float]:
    return request.param


class Where(NamedTuple):
    """Where and how the passes over memory run, and how well they then agree with the oracle."""

    dtype: torch.dtype
    tolerance: float
    device: str = "cpu"
    triton: bool = False


def placed() -> list[object]:
    """On the CPU, on a GPU, and by Triton's kernels on a GPU or in their interpreter.

    `tests/o3/test_kernels.py` starts the interpreter.
    """
    gpu, here = torch.cuda.is_available(), os.environ.get("TRITON_INTERPRET") == "1"
    device = "cpu" if here else "cuda"
    missing = [pytest.mark.gpu, pytest.mark.skipif(not gpu, reason="needs a GPU")]
    kernel = [
        pytest.mark.gpu,
        pytest.mark.skipif(not (gpu or here), reason="needs a GPU, or TRITON_INTERPRET=1"),
        pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed"),
    ]
    found: list[object] = []
    for dtype, tolerance in PRECISIONS:
        name = str(dtype).removeprefix("torch.")
        found += [
            pytest.param(Where(dtype, tolerance), id=name),
            pytest.param(Where(dtype, tolerance, "cuda"), id=f"{name}-cuda", marks=missing),
            pytest.param(Where(dtype, tolerance, device, True), id=f"{name}-triton", marks=kernel),
        ]
    return found


@pytest.fixture(params=placed())
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Where:
    """Triton's kernels, where they are meant, and PyTorch's passes, where these are."""
    monkeypatch.setenv(kernels.VARIABLE, "1" if request.param.triton else "0")
    return request.param


def agree(
    fast: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    precision: tuple[torch.dtype, float] | Where,
    layer: nn.Module | None = None,
    still: int = 0,
) -> None:
    """Equal values, gradients of every input and of every parameter, relative to the largest.

    The first ``still`` inputs need no gradient.
    """
    dtype, tolerance, device, _ = Where(*precision)
    parameters = list(layer.to(dtype).parameters()) if layer is not None else []
    found = []
    for function in (fast, plain):
        given = [x.to(device, dtype, copy=True) for x in inputs]
        moved = [x.requires_grad_() for x in given[still:]]
        out = function(*given)
        slope = torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out).cos()
        total = (out * slope.to(device)).sum()
        grads = torch.autograd.grad(total, [*moved, *parameters], allow_unused=True)
        found.append([out, *grads])
    for ours, theirs in zip(*found, strict=True):
        if theirs is None or not theirs.numel():
            assert ours is None or not ours.any()
            continue
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def edges(number: int, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Vectors, sources and targets in no order; the last atom has none."""
    torch.manual_seed(0)
    source, target = torch.randint(0, ATOMS - 1, (2, number)).to(device)
    return torch.randn(number, 3, dtype=torch.float64), source, target


def m_major(parts: list[Tensor]) -> Tensor:
    return torch.cat([signed for part in parts for signed in part], 1)


def per_m(x: Tensor, lmax: int) -> list[Tensor]:
    """Views of m-major features per |m|."""
    sizes = [lmax + 1] + [2 * (lmax + 1 - m) for m in range(1, lmax + 1)]
    parts = x.split(sizes, 1)
    return [p.unflatten(1, (2 if m else 1, -1)).transpose(0, 1) for m, p in enumerate(parts)]


def weights_of(number: int, lmax: int, channels: int = CHANNELS) -> Tensor:
    count = (lmax + 1) * (lmax + 2) // 2
    return torch.randn(number, count, 2 * channels, dtype=torch.float64)


# with gradients of the vectors, as forces want them, and without
@pytest.mark.parametrize("still", [0, 1])
@pytest.mark.parametrize(("lmax", "channels"), [(0, 6), (1, 130), (4, 6), (6, 6)])
def test_pairs(lmax: int, channels: int, still: int, where: Where) -> None:
    vectors, source, target = edges(6, where.device)
    nodes = torch.randn(ATOMS, (lmax + 1) ** 2, channels, dtype=torch.float64)

    def fast(vectors: Tensor, nodes: Tensor, weights: Tensor) -> Tensor:
        frames = EdgeFrames(vectors, lmax, Ends(source, target, ATOMS))
        return m_major(frames.pairs(nodes, weights))

    def plain(vectors: Tensor, nodes: Tensor, weights: Tensor) -> Tensor:
        return oracle.pairs(nodes, EdgeFrames(vectors, lmax).packed, weights, source, target)

    agree(fast, plain, [vectors, nodes, weights_of(6, lmax, channels)], where, still=still)


@pytest.mark.parametrize("still", [0, 1])
@pytest.mark.parametrize("mmax", [0, 2])
def test_pairs_of_small_m_alone(mmax: int, still: int, where: Where) -> None:
    lmax = 4
    vectors, source, target = edges(6, where.device)
    nodes = torch.randn(ATOMS, 25, CHANNELS, dtype=torch.float64)

    def parts(vectors: Tensor, nodes: Tensor, weights: Tensor, mmax: int | None) -> list[Tensor]:
        frames = EdgeFrames(vectors, lmax, Ends(source, target, ATOMS))
        return frames.pairs(nodes, weights, mmax)

    agree(
        lambda *inputs: m_major(parts(*inputs, mmax)),
        lambda *inputs: m_major(parts(*inputs, None)[: mmax + 1]),
        [vectors, nodes, weights_of(6, lmax)],
        where,
        still=still,
    )


@pytest.mark.parametrize("still", [0, 1])
@pytest.mark.parametrize(("lmax", "channels"), [(0, 6), (1, 130), (4, 6), (6, 6)])
@pytest.mark.parametrize("summed", [False, True])
def test_back_to_space(lmax: int, channels: int, summed: bool, still: int, where: Where) -> None:
    vectors, source, target = edges(6, where.device)
    x = torch.randn(6, (lmax + 1) ** 2, channels, dtype=torch.float64)

    def fast(vectors: Tensor, x: Tensor) -> Tensor:
        frames = EdgeFrames(vectors, lmax, Ends(source, target, ATOMS))
        parts = per_m(x, lmax)
        return frames.at_atoms(parts) if summed else frames.in_space(parts)

    def plain(vectors: Tensor, x: Tensor) -> Tensor:
        messages = oracle.to_space(x, EdgeFrames(vectors, lmax).packed)
        return oracle.summed(messages, target, ATOMS) if summed else messages

    agree(fast, plain, [vectors, x], where, still=still)


def test_the_passes_that_were_asked_for(where: Where) -> None:
    vectors, source, target = edges(11, where.device)
    ends = Ends(source, target, ATOMS)
    used = EdgeFrames(vectors, 1, ends).passes
    assert used.__name__ == f"hambench.o3.kernels.{'fused' if where.triton else 'plain'}"
    assert EdgeFrames(vectors.requires_grad_(), 1, ends).passes is kernels.plain_passes()


def test_sums_at_targets(precision: tuple[torch.dtype, float]) -> None:
    _, source, target = edges(11)
    ends = Ends(source, target, ATOMS)
    for shape in ((11,), (11, 3), (11, 1, 4)):
        rows = torch.randn(shape, dtype=torch.float64)
        agree(ends.sum_at_target, lambda r: oracle.summed(r, target, ATOMS), [rows], precision)


def test_no_edges(where: Where) -> None:
    like = {"dtype": where.dtype, "device": where.device}
    none = torch.zeros(0, dtype=torch.long, device=where.device)
    frames = EdgeFrames(torch.zeros(0, 3, **like), 2, Ends(none, none, ATOMS))
    nodes = torch.randn(ATOMS, 9, CHANNELS, **like, requires_grad=True)
    parts = frames.pairs(nodes, torch.zeros(0, 6, 2 * CHANNELS, **like, requires_grad=True))
    assert [part.shape[:3] for part in parts] == [(1, 0, 3), (2, 0, 2), (2, 0, 1)]
    assert frames.in_space(parts).shape == (0, 9, 2 * CHANNELS)
    parts = gate_m(parts, torch.zeros(0, 4 * CHANNELS, **like))
    out = frames.at_atoms(parts)
    assert out.shape == (ATOMS, 9, 2 * CHANNELS)
    assert not out.any()
    out.sum().backward()
    assert not nodes.grad.any()


# more edges than numbers of a feature, and fewer: other ways to the same products
@pytest.mark.parametrize("number", [3, 60])
@pytest.mark.parametrize("extra", [0, 4])
def test_convolution(number: int, extra: int, precision: tuple[torch.dtype, float]) -> None:
    lmax = 3
    conv = SO2Convolution(lmax, CHANNELS, 5, extra)
    x = torch.randn(number, 16, CHANNELS, dtype=torch.float64)

    def fast(x: Tensor) -> Tensor:
        features, scalars = conv(per_m(x, lmax))
        return torch.cat([m_major(features).flatten(1), scalars], 1)

    def plain(x: Tensor) -> Tensor:
        features, scalars = oracle.convolved(conv, x)
        return torch.cat([features.flatten(1), scalars], 1)

    agree(fast, plain, [x], precision, conv)


@pytest.mark.parametrize(("lmax", "channels"), [(0, 6), (1, 130), (3, 6)])
def test_gate(lmax: int, channels: int, where: Where) -> None:
    x = torch.randn(7, (lmax + 1) ** 2, channels, dtype=torch.float64)
    gates = torch.randn(7, lmax * channels, dtype=torch.float64)
    agree(lambda x, g: m_major(gate_m(per_m(x, lmax), g)), oracle.gated, [x, gates], where)


def test_gate_of_small_m_alone(where: Where) -> None:
    x = torch.randn(7, 16, CHANNELS, dtype=torch.float64)
    gates = torch.randn(7, 3 * CHANNELS, dtype=torch.float64)
    agree(
        lambda x, g: m_major(gate_m(per_m(x, 3)[:2], g)),
        lambda x, g: oracle.gated(x, g)[:, : 4 + 2 * 3],
        [x, gates],
        where,
    )


@pytest.mark.parametrize("lmax", [0, 4])
def test_norm(lmax: int, precision: tuple[torch.dtype, float]) -> None:
    norm = EquivariantRMSNorm(lmax, CHANNELS)
    nn.init.normal_(norm.scale)
    nn.init.normal_(norm.shift)
    x = torch.randn(7, (lmax + 1) ** 2, CHANNELS, dtype=torch.float64) + 1
    agree(norm, lambda x: oracle.normed(norm, x), [x], precision, norm)


def test_linear_and_feed_forward(precision: tuple[torch.dtype, float]) -> None:
    x = torch.randn(7, 16, CHANNELS, dtype=torch.float64)
    layer = SO3Linear(3, CHANNELS, 4)
    nn.init.normal_(layer.bias)
    plain = lambda x: oracle.linear(layer, x)  # noqa: E731
    agree(lambda x: layer(x.transpose(0, 1)).transpose(0, 1), plain, [x], precision, layer)
    network = FeedForward(3, CHANNELS)
    agree(network, lambda x: oracle.fed(network, x), [x], precision, network)


def test_a_second_derivative_is_refused() -> None:
    x = torch.randn(2, 9, CHANNELS, requires_grad=True)
    out = EquivariantRMSNorm(2, CHANNELS)(x).square().sum()
    (grad,) = torch.autograd.grad(out, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
