"""`hambench bench data`: its synthetic files are what they say, and its numbers are there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hambench import cli
from hambench.bench.loading import measure_memory
from hambench.bench.molecules import CASES, LARGE, MEDIUM, WATER, Case
from hambench.bench.reading import measure_reading
from hambench.bench.timing import interleaved
from hambench.chem.orbitals import OrbitalBasis
from hambench.registry import formats, open_data


def test_cases_are_the_sizes_they_say() -> None:
    assert [len(case.numbers) for case in CASES] == [3, 40, 100]
    nao = [OrbitalBasis.load(case.basis).nao(case.numbers) for case in CASES]
    assert nao == [24, 389, 2315]


@pytest.mark.parametrize("case", [WATER, MEDIUM], ids=lambda case: case.format)
def test_synthetic_files_hold_what_was_written(case: Case, tmp_path: Path) -> None:
    _check(case, tmp_path)


def test_synthetic_omol_files_too(tmp_path: Path) -> None:
    _check(Case("small", {53: 1, 6: 1, 1: 3}, "def2-tzvpd", "omol_csh", 2), tmp_path)


def _check(case: Case, folder: Path) -> None:
    pytest.importorskip("ase")
    form, path = formats()[case.format], folder / "x.db"
    form.write(path, case.molecules(2))
    assert type(open_data(path)) is type(form.open(path))
    rows, raw = form.open(path), form.raw(path)
    for index, written in enumerate(case.molecules(2)):
        read = rows[index]
        assert np.array_equal(read.numbers, written.numbers)
        np.testing.assert_allclose(read.positions, written.positions, atol=1e-6)
        assert np.array_equal(read.hamiltonian, written.hamiltonian)
        at_least = rows.stored(index)[1].values.nbytes
        assert at_least < raw(index) < 2.2 * at_least + 2000  # SchNOrb's overlap is in one blob


def test_readings_are_ratios_to_the_plain_read(tmp_path: Path) -> None:
    pytest.importorskip("ase")
    found = measure_reading(WATER, formats()["schnorb"], tmp_path, repeats=5)
    assert len({one.what for one in found}) == len(found) == 4
    for one in found:
        assert one.ratio == one.time.median / one.raw.median > 1
        assert 0 < one.time.low <= one.time.median <= one.time.high


def test_functions_are_timed_in_turns() -> None:
    calls: list[tuple[str, int]] = []
    names = ("a", "b")
    times = interleaved({n: lambda k, n=n: calls.append((n, k)) for n in names}, 3)
    assert calls == [(n, 2 * k + i) for k in range(4) for i, n in enumerate(names)]
    assert times["a"].median < 0.1


def test_memory_of_a_sparse_file(tmp_path: Path) -> None:
    found = measure_memory(formats()[LARGE.format], tmp_path, 60_000_000, batches=2)
    assert found.file_bytes >= 60_000_000
    assert (tmp_path / "sparse.data").stat().st_blocks * 512 < 2_000_000  # holes
    assert (found.batches, found.molecules) == (2, 4)
    assert 0 < found.before < found.peak < 2e9


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("nope", "no model 'nope'"),
        ("minao", "minao has no parameters to train"),
        ("mace_small", "environment of its own"),
    ],
)
def test_a_wrong_model_is_told_before_anything_is_measured(
    model: str, said: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hambench.bench.data.measure_reading", pytest.fail)
    with pytest.raises(SystemExit) as left:
        cli.main(["bench", "data", f"model={model}"])
    assert left.value.code == 2
    assert said in capsys.readouterr().err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("ase")
    pytest.importorskip("matplotlib")
    words = ["bench", "data", "repeats=1", "workers=0", "seconds=0", "gigabytes=0", "batch_size=1"]
    place, out = tmp_path / "files", tmp_path / "out"
    place.mkdir()
    with pytest.raises(SystemExit) as left:
        cli.main([*words, f"--folder={place}", f"--out={out}", "device=cpu", "--json"])
    assert not left.value.code
    document = json.loads(capsys.readouterr().out)
    assert document["measured"] == "data"
    (found,) = document["results"]
    assert {one["case"] for one in found["reading"]} == {case.name for case in CASES}
    assert all(one["built"] > 0 and one["used"] > 0 for one in found["supply"])
    assert found["memory"] is None
    assert found["shapes"]["padded"] < found["shapes"]["shapes"] / 10
    assert 1 <= found["shapes"]["edges"] < 1.05
    assert not list(place.iterdir())
    assert json.loads((out / "bench.json").read_text())["results"] == [found]
    assert "2000 molecules of 20 to 60 atoms" in (out / "bench.md").read_text()
    assert (out / "bench.svg").read_text().startswith("<?xml")
