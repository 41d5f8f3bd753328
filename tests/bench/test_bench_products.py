"""`hambench bench products`: what is timed is equal, and what is not, or not there, is said."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from e3nn import o3
from torch import Tensor

from hambench import cli
from hambench.bench import products
from hambench.bench.backends.cuequivariance import CuEquivariance
from hambench.bench.backends.e3nn import E3nn
from hambench.bench.backends.openequivariance import OpenEquivariance
from hambench.bench.backends.own import Ours, PathByPath
from hambench.bench.backends.product import Problem
from hambench.bench.products import TOLERANCES, compare, measure
from hambench.errors import ConfigError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def problem(harmonics: bool, dtype: torch.dtype = torch.float64, lmax: int = 2) -> Problem:
    return Problem(harmonics, 6, 8, lmax, dtype, CPU)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("harmonics", [False, True], ids=["features", "harmonics"])
@pytest.mark.parametrize("yardstick", [PathByPath, E3nn, CuEquivariance])
def test_yardsticks_are_equal_to_ours(yardstick, harmonics: bool, dtype: torch.dtype) -> None:
    if yardstick is CuEquivariance:
        pytest.importorskip("cuequivariance_torch")
    kind = "harmonics" if harmonics else "features"
    ours, other = compare(kind, problem(harmonics, dtype), 1, [yardstick])
    assert (ours.by, other.by) == ("hambench", yardstick.title)
    assert other.difference is not None
    assert other.difference < TOLERANCES[dtype]
    for one in (ours, other):
        assert one.cost is not None
        assert min(one.cost.both.low, one.cost.forward.low) > 0
        assert one.cost.calls > 50
        assert one.cost.launches is None
        assert one.cost.peak > 6 * 9 * 8 * dtype.itemsize  # the product at least
        assert one.paths == (11 if harmonics else 15)
    assert ours.cost.ratio == 1
    assert other.cost.ratio == other.cost.both.median / ours.cost.both.median


def test_yardsticks_of_as_many_paths_as_components() -> None:
    """Then weights and features have one shape."""
    case = Problem(True, 3, 4, 1, torch.float64, CPU)
    assert len(case.paths) == sum(case.sizes)
    assert all(one.cost is not None for one in compare("harmonics", case, 1, [PathByPath, E3nn]))


def test_gradients_are_of_what_models_differentiate_by() -> None:
    for harmonics, leaves in ((False, {"left", "right", "weights"}), (True, {"left", "weights"})):
        case = problem(harmonics)
        for kind in (Ours, PathByPath, E3nn):
            product = kind(case, case.factors())
            assert set(product.leaves) == leaves
            assert all(leaf.requires_grad for leaf in product.leaves.values())


class Wrong(PathByPath):
    """Its product is right, its gradient is not."""

    title = "wrong"

    def multiply(self) -> Tensor:
        found = super().multiply()
        return found + 1e-6 * (found - found.detach())


class Broken(PathByPath):
    """Its product is no number in one place."""

    title = "broken"

    def multiply(self) -> Tensor:
        found = super().multiply()
        return found.index_put((torch.tensor(0),) * 3, torch.tensor(torch.nan, dtype=found.dtype))


class Failing(PathByPath):
    """Its library fails."""

    title = "failing"

    def multiply(self) -> Tensor:
        raise RuntimeError("no kernel\nfor this device")


def test_what_is_not_equal_is_said_and_not_timed() -> None:
    _, wrong, broken, failing, right = compare(
        "features", problem(False), 1, [Wrong, Broken, Failing, PathByPath]
    )
    assert (failing.cost, failing.difference) == (None, None)
    assert failing.remark == "failed: RuntimeError: no kernel"
    assert right.cost is not None
    assert wrong.cost is None
    assert wrong.difference == pytest.approx(1e-6, rel=1e-3)
    assert wrong.remark == "not equal: differs by 1.0e-06, allowed 1e-10"
    assert (broken.cost, broken.difference) == (None, float("inf"))


def test_what_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuequivariance_torch", None)
    _, cue, oeq = compare("harmonics", problem(True), 1, [CuEquivariance, OpenEquivariance])
    assert cue.cost is cue.difference is oeq.cost is oeq.difference is None
    assert cue.remark == "not installed; pip install 'hambench[yardsticks]'"
    assert oeq.remark == "needs a GPU"
    (_, oeq) = compare("features", problem(False), 1, [OpenEquivariance])
    assert "no products of features" in oeq.remark


def test_kernels_that_are_missing_are_not_replaced_in_silence() -> None:
    pytest.importorskip("cuequivariance_torch")
    case = problem(True)
    with pytest.raises(ConfigError, match="kernels are not installed; pip install cuequivariance-"):
        CuEquivariance(replace(case, device=CUDA), case.factors())
    assert CuEquivariance(case, case.factors()).note == "method naive"


def test_open_equivariance_is_called_as_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in of its interface that multiplies by e3nn: it cannot be built without CUDA."""
    case = problem(True)

    def torch_to_oeq_dtype(dtype: torch.dtype) -> str:
        return {torch.float64: "float64"}[dtype]

    def multiply_by(asked: SimpleNamespace):
        def turned(x: Tensor, irreps: o3.Irreps, rows_first: bool) -> Tensor:
            parts = x.split([mul * ir.dim for mul, ir in irreps], dim=1)
            shapes = [(ir.dim, mul) if rows_first else (mul, ir.dim) for mul, ir in irreps]
            pairs = zip(parts, shapes, strict=True)
            return torch.cat([p.unflatten(1, s).transpose(1, 2).flatten(1) for p, s in pairs], 1)

        torch.set_default_dtype(torch.float64)
        known = o3.TensorProduct(*asked.words, **asked.options)
        torch.set_default_dtype(torch.float32)

        def multiply(left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
            found = known(turned(left, known.irreps_in1, True), right, weights)
            return turned(found, known.irreps_out, False)

        return multiply

    def problem_of(*words, irrep_dtype, weight_dtype, layout, **options) -> SimpleNamespace:
        assert (irrep_dtype, weight_dtype, layout) == ("float64", "float64", "ir_mul")
        return SimpleNamespace(words=words, options=options)

    stand_in = SimpleNamespace(
        Irreps=o3.Irreps, TPProblem=problem_of, TensorProduct=multiply_by,
        torch_to_oeq_dtype=torch_to_oeq_dtype,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "openequivariance", stand_in)
    factors = case.factors()
    found = products._everything(OpenEquivariance(replace(case, device=CUDA), factors))
    assert products._difference(found, products._everything(Ours(case, factors))) < 1e-12


def test_kinds_and_devices_that_are_not_there() -> None:
    with pytest.raises(ConfigError, match=r"no kind 'harmonic' of products.*'harmonics'"):
        measure(["harmonic"], [4])
    with pytest.raises(ConfigError, match="device is 'tpu'"):
        measure(["features"], [4], device="tpu")


def test_the_command(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    words = ["bench", "products", "rows=3,5", "channels=4", "lmax=1", "repeats=1", "device=cpu"]
    threads = torch.get_num_threads()
    for more in (["--json", "precision=float64"], ["kind=harmonics", f"out={tmp_path}"]):
        with pytest.raises(SystemExit) as left:
            cli.main([*words, *more])
        assert not left.value.code
        out = capsys.readouterr().out
        if "--json" in more:
            document = json.loads(out)
            assert (document["schema"], document["measured"]) == (1, "products")
            assert document["provenance"]["libraries"]["torch"] == torch.__version__
            found = document["results"]
            assert [(one["kind"], one["rows"]) for one in found[:: len(found) // 4]] == [
                ("features", 3), ("features", 5), ("harmonics", 3), ("harmonics", 5),
            ]  # fmt: skip
            assert {one["by"] for one in found} >= {"hambench", "path by path", "e3nn"}
            for one in found:
                assert (one["cost"] is None) == (one["difference"] is None)
                assert one["precision"] == "float64"
        else:
            assert "harmonics, 5 x 4, l <= 1  e3nn" in out
            assert "features" not in out
            kept = json.loads((tmp_path / "bench.json").read_text())
            assert {one["kind"] for one in kept["results"]} == {"harmonics"}
            assert "| harmonics, 5 x 4, l <= 1 | e3nn |" in (tmp_path / "bench.md").read_text()
            assert (tmp_path / "bench.svg").read_text().startswith("<?xml")
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("rows", ["0", "3,", "x", "3,-1"])
def test_wrong_rows(rows: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["bench", "products", f"rows={rows}"])
    assert left.value.code == 2
    assert "is no whole number from 1 on" in capsys.readouterr().err
