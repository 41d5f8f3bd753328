"""Triton's kernels without a GPU: in the interpreter, compiled for one; and how they are chosen.

On a GPU `tests/o3/test_frames.py` runs them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import hambench
from hambench.errors import ConfigError
from hambench.learn.weights import cast
from hambench.o3 import kernels
from hambench.o3.ends import Ends
from hambench.o3.frames import EdgeFrames

TESTS = Path(__file__).parent
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


@pytest.mark.parametrize("value", ["", "0", None])
def test_pytorch_is_the_default(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(kernels.VARIABLE, value)
    assert kernels.chosen(torch.zeros(1)) is kernels.plain_passes()


def test_an_unknown_value_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.VARIABLE, "yes")
    with pytest.raises(ConfigError, match="HAMBENCH_TRITON is 'yes', expected 1"):
        kernels.chosen(torch.zeros(1))


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.VARIABLE, "1")
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ConfigError, match="triton is not installed"):
        kernels.chosen(torch.zeros(1))


@needs_triton
def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.VARIABLE, "1")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError, match="runs on device 'cpu', expected cuda"):
        kernels.chosen(torch.zeros(1))


@needs_triton
def test_an_old_triton_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.VARIABLE, "1")
    monkeypatch.setattr("triton.__version__", "3.2.0")
    with pytest.raises(ConfigError, match=r"triton is 3\.2\.0, expected 3\.6 or later"):
        kernels.chosen(torch.zeros(1))


@pytest.mark.slow
@needs_triton
def test_in_the_interpreter() -> None:
    """A process of its own: whether a function is interpreted is decided when it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", str(TESTS / "test_frames.py"), "-k", "triton"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " skipped" not in done.stdout


@pytest.mark.gpu
@needs_gpu
@needs_triton
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_a_network(dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """HELM's matrices and gradients by PyTorch and by the kernels."""
    task = hambench.load_task("water_mini")
    molecules = task.split("train")[:5]
    torch.manual_seed(0)
    model = hambench.build_model("helm_small", task.basis)
    cast(model, dtype)
    model.prepare(molecules)
    model.to("cuda")
    batch = hambench.collate(molecules, model.graph).to("cuda")
    found = []
    for asked in "01":
        monkeypatch.setenv(kernels.VARIABLE, asked)
        model.zero_grad()
        prediction = model(batch)
        model.loss(prediction, batch).value().backward()
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append([*prediction.matrices(), *grads])
    for plain, fused in zip(*found, strict=True):
        assert (plain - fused).abs().max() <= tolerance * plain.abs().max()


@pytest.mark.gpu
@needs_gpu
@needs_triton
def test_the_same_bits_twice() -> None:
    from hambench.o3.kernels import fused

    first, second = (every_pass(fused, torch.float32, "cuda", edges=5000) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class Recorder:
    """Stands in for a kernel and keeps what it is launched with."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.calls: list[tuple[tuple[Any, ...], dict[str, int]]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *arguments, **constants: self.calls.append((arguments, constants))


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_for_a_gpu(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Machine code of compute capability 9.0 that keeps all it has in registers."""
    from hambench.o3.kernels import device, fused

    names = ["into_frames", "into_space", "gate", "gate_backward"]
    recorders = [Recorder(getattr(device, name)) for name in names]
    for name, recorder in zip(names, recorders, strict=True):
        monkeypatch.setattr(device, name, recorder)
    every_pass(fused, dtype)
    assert [len(recorder.calls) for recorder in recorders] == [3, 3, 1, 1]
    for recorder in recorders:
        for arguments, constants in recorder.calls:
            assert _bytes_outside_registers(recorder.kernel, arguments, constants, tmp_path) == 0


def every_pass(
    passes: kernels.Passes, dtype: torch.dtype, device: str = "cpu", edges: int = 3
) -> list[torch.Tensor]:
    """What all passes give for lmax = 4 and 128 channels."""
    random = torch.Generator().manual_seed(0)
    like = {"generator": random, "dtype": dtype}
    source, target = torch.randint(0, 3, (2, edges), generator=random).to(device)
    vectors = torch.randn(edges, 3, **like).to(device)
    frames = EdgeFrames(vectors, 4, Ends(source, target, 3))
    nodes = torch.randn(3, 25, 128, **like).to(device)
    weights = torch.randn(edges, 15, 256, **like).to(device)
    gates = torch.randn(edges, 4 * 128, **like).to(device)
    parts, kept = passes.pairs(nodes, weights, frames, 4)
    of_nodes, _, of_weights = passes.pairs_backward(parts, kept, frames, 4)
    found = [*parts, of_nodes, of_weights]
    parts = [part[..., :128].contiguous() for part in parts]
    for summed in (False, True):
        out, kept = passes.to_space(parts, frames, summed)
        found += [out, *passes.to_space_backward(out, kept, frames, summed)[1]]
    gated, kept = passes.gate(parts, gates)
    of_gates, grads = passes.gate_backward(gated, kept)
    return [*found, *gated, of_gates, *grads]


def _bytes_outside_registers(
    kernel: Any, arguments: tuple[Any, ...], constants: dict[str, int], folder: Path
) -> int:
    """Stack of a thread, and local memory, where what finds no register is spilled."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    warps = {"num_warps": constants.pop("num_warps")}
    values = dict(zip(kernel.arg_names, arguments, strict=False))
    fixed = {name: value for name, value in values.items() if value is None} | constants
    source = ASTSource(
        kernel,
        {
            name: "constexpr" if name in fixed else _type(value)
            for name, value in (values | constants).items()
        },
        fixed,
        {place: [["tt.divisibility", 16]] for place in _pointers(arguments)},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=warps)
    binary = folder / "kernel.cubin"
    binary.write_bytes(compiled.asm["cubin"])
    command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", binary]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "REG:" in usage
    return sum(int(number) for number in re.findall(r"(?:STACK|LOCAL):(\d+)", usage))


def _type(value: Any) -> Any:
    """Of an argument in Triton's words."""
    if isinstance(value, tuple):
        return tuple(map(_type, value))
    if isinstance(value, int):
        return "i32"
    return {torch.float32: "*fp32", torch.float64: "*fp64", torch.int64: "*i64"}[value.dtype]


def _pointers(values: tuple[Any, ...]) -> Iterator[tuple[int, ...]]:
    """Places of tensors, which begin at multiples of 16 bytes."""
    for i, value in enumerate(values):
        if isinstance(value, tuple):
            yield from ((i, *place) for place in _pointers(value))
        elif isinstance(value, torch.Tensor):
            yield (i,)
