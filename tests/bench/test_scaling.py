"""`hambench bench scaling`: exponents, what is left out, and that sizes are those asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hambench import cli
from hambench.bench import scaling
from hambench.bench.molecules import organic
from hambench.bench.scaling import exponent, measure
from hambench.data.edges import count_edges
from hambench.errors import ConfigError

WORDS = ["model.hyperparameters.channels=8", "model.hyperparameters.layers=1"]


def test_exponents_are_those_of_the_larger_half() -> None:
    edges = [6, 30, 132, 552, 1560]
    assert exponent(edges, [3.0 * n for n in edges]) == pytest.approx(1)
    assert exponent(edges, [2.0 * n**2 for n in edges]) == pytest.approx(2)
    assert exponent(edges, [9.0, 9.0, *(0.1 * n for n in edges[2:])]) == pytest.approx(1)
    assert exponent([2, 8], [1.0, 2.0]) == pytest.approx(0.5)
    assert exponent([2], [1.0]) is None
    assert exponent([], []) is None


def test_a_step_on_growing_molecules(setting) -> None:
    (found,) = measure(
        "helm_small", "atoms", sizes=[6, 3, 12], setting=setting, repeats=1, words=WORDS
    )
    assert [(p.size, p.molecules, p.atoms, p.edges) for p in found.points] == [
        (3, 1, 3, 6), (6, 1, 6, 30), (12, 1, 12, 132),
    ]  # fmt: skip
    for point in found.points:
        assert point.time_per_edge == point.time.median / point.edges > 0
        assert point.peak_per_edge == point.peak / point.edges > 0
    assert 0.7 < found.peak_exponent < 1.1  # activations of edges
    assert found.skipped == ()


def test_predictions_with_both_bases_on_the_same_molecules(setting) -> None:
    found = measure(
        "schnorb_small", "basis", part="predict", sizes=[3, 5], setting=setting, repeats=1
    )
    assert [one.basis for one in found] == ["def2-svp", "def2-tzvpd"]
    small, large = found
    assert [p.edges for p in small.points] == [p.edges for p in large.points] == [6, 20]
    for one, other in zip(small.points, large.points, strict=True):
        assert one.peak < other.peak


def test_batches_grow(setting) -> None:
    (found,) = measure("helm_small", "batch", sizes=[1, 3], setting=setting, repeats=1, words=WORDS)
    assert [(p.size, p.molecules, p.atoms) for p in found.points] == [(1, 1, 9), (3, 3, 27)]


def test_what_will_not_fit_is_left_out(setting) -> None:
    sizes = [3, 6, 9, 40]
    (found,) = measure(
        "helm_small", "atoms", sizes=sizes, memory=0.02, setting=setting, repeats=1, words=WORDS
    )
    assert [p.size for p in found.points] == [3, 6, 9]
    (left,) = found.skipped
    assert (left.size, left.edges, left.limit) == (40, 1560, 20_000_000)
    (whole,) = measure("helm_small", "atoms", sizes=[40], setting=setting, repeats=1, words=WORDS)
    assert left.needs == pytest.approx(whole.points[0].peak, rel=0.05)


@pytest.mark.parametrize(("axis", "size", "edges"), [("atoms", 40, 1560), ("batch", 40, 2880)])
def test_a_first_size_that_will_not_fit_is_not_built(setting, monkeypatch, axis, size, edges):
    whole = {"sizes": [size], "setting": setting, "repeats": 1, "words": WORDS}
    (built,) = measure("helm_small", axis, **whole)
    (point,) = built.points
    assert point.edges == edges
    work, largest = scaling._work, []

    def watched(*args):
        build, device = work(*args)
        return lambda molecules: largest.append(len(molecules)) or build(molecules), device

    monkeypatch.setattr(scaling, "_work", watched)
    (found,) = measure("helm_small", axis, memory=0.8e-9 * point.peak, **whole)
    assert not found.points
    (left,) = found.skipped
    assert (left.size, left.edges) == (size, edges)
    assert left.needs == pytest.approx(point.peak, rel=0.1)
    assert max(largest) < size if axis == "batch" else len(largest) == 2


@pytest.mark.parametrize("model", ["helm_small", "qhnet_small"])  # with a cutoff, and without
def test_very_large_sizes_take_no_memory_of_their_own(setting, model) -> None:
    (found,) = measure(model, "atoms", sizes=[50_000], memory=1, setting=setting, repeats=1)
    (left,) = found.skipped
    assert left.needs > 1e9


def test_edges_without_a_matrix_of_pairs() -> None:
    case = organic(150, "def2-svp")
    for cutoff in (None, 5.0):
        edges = scaling._edges(case.geometries(3), cutoff)
        assert edges == count_edges(list(case.molecules(3)), cutoff).sum()


def test_the_first_size_too(setting) -> None:
    (found,) = measure(
        "helm_small", "atoms", sizes=[3], memory=1e-6, setting=setting, repeats=1, words=WORDS
    )
    assert not found.points
    assert [(one.size, one.limit) for one in found.skipped] == [(3, 1000)]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory: 9 bytes")],
)
def test_what_does_not_fit_is_left_out_when_it_fails(setting, monkeypatch, error) -> None:
    work = scaling._work

    def too_large(*args):
        build, device = work(*args)

        def checked(molecules):
            if len(molecules[0]) > 3:
                raise error
            return build(molecules)

        return checked, device

    monkeypatch.setattr(scaling, "_work", too_large)
    (found,) = measure("helm_small", "atoms", sizes=[3, 6], setting=setting, repeats=1, words=WORDS)
    assert [p.size for p in found.points] == [3]
    assert [(one.size, one.needs) for one in found.skipped] == [(6, None)]
    assert found.time_exponent is None


def test_other_failures_are_failures(setting, monkeypatch) -> None:
    def broken(*args):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(scaling, "peak_and_launches", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        measure("helm_small", "atoms", sizes=[3], setting=setting, words=WORDS)


def test_wrong_input(setting, capsys) -> None:
    with pytest.raises(ConfigError, match="no option of random molecules"):
        measure("helm_small", "atoms", sizes=[3], setting=setting, words=["recipe.clip_norm=1"])
    for word, said in (
        ("sizes=3,x", "'x' is no whole number"), ("axis=time", "'time' is not one"),
        ("sizes=1,3", "one atom, which has no edges"), ("memory=nan", "nan is no finite number"),
        ("threads=100000", "not in the range"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as left:
            cli.main(["bench", "scaling", "model=helm_small", word])
        assert left.value.code == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("basis", ["def2-svp", "def2-tzvpd"])
def test_a_basis_beside_both_is_refused(basis: str, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["bench", "scaling", "model=helm_small", "axis=basis", f"basis={basis}"])
    assert left.value.code == 2
    assert f"nothing for basis={basis} to say; leave it out" in capsys.readouterr().err


def test_the_command(capsys, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    words = ["model=helm_small", "sizes=3,6,40", "memory=0.02", "repeats=1", "device=cpu", *WORDS]
    with pytest.raises(SystemExit) as left:
        cli.main(["bench", "scaling", *words, "--json", f"--out={tmp_path}"])
    assert not left.value.code
    document = json.loads(capsys.readouterr().out)
    assert document["measured"] == "scaling"
    (found,) = document["results"]
    assert [p["size"] for p in found["points"]] == [3, 6]
    page = (tmp_path / "bench.md").read_text()
    assert "time ~ edges^" in page
    assert "skipped: needs about" in page
    assert (tmp_path / "bench.svg").read_text().startswith("<?xml")
