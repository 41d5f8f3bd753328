"""Records of a run: schema, atomic files, provenance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from hambench import provenance, results
from hambench.errors import DataError

RESULTS = Path(__file__).resolve().parent.parent / "leaderboard" / "results"


def a_result() -> results.Result:
    return results.Result(
        run_id="0123456789abcdef",
        task="water_mini",
        task_version=1,
        fingerprint="ab" * 32,
        source="generated",
        split="test",
        model="helm",
        preset="helm_small",
        hyperparameters={"channels": 16},
        parameters=1000,
        recipe={"optimizer": {"name": "adam", "lr": 1e-3}},
        seed=0,
        metrics={"h_mae": results.Metric(value=1e-4, unit="Eh", ci95=(0.9e-4, 1.1e-4), n=100)},
        primary="h_mae",
        cost=results.Cost(
            device="cpu",
            wall_s=1.5,
            steps=10,
            epochs=0.5,
            steps_per_s=7.0,
            molecules_per_s=70.0,
            stopped_by="max_steps",
        ),
        provenance=provenance.provenance(results.now(), 0, {"hambench": "0.1.0"}),
    )


def test_result_reads_back_equal(tmp_path: Path):
    result = a_result()
    path = results.write_result(tmp_path, result)
    assert results.read_result(path) == results.read_result(tmp_path) == result
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_status_reads_back_equal(tmp_path: Path):
    status = results.Status(state="running", step=3, started=results.now(), updated=results.now())
    results.write_status(tmp_path, status)
    assert results.read_status(tmp_path) == status


def test_results_from_before_inference_was_measured_are_read():
    found = [results.read_result(path) for path in sorted(RESULTS.rglob("result.json"))]
    assert len(found) >= 10
    old = [one for one in found if one.cost.inference is None]
    assert old
    assert all(one.scoring == {} for one in old)
    assert {one.energy_steps for one in old if one.strategy} == {
        one.cost.steps for one in old if one.strategy
    }


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("schema_version", "2", "schema_version"),
        ("schema_version", 3, r"schema version 3, .* up to 2; update hambench"),
        ("primary", "psi", "primary metric 'psi' is not among"),
        ("parameters", 10**400, "parameters"),
        ("metrics", {}, "metrics"),
        ("seed", "zero", "seed"),
        ("extra", 1, "extra"),
        ("metrics", {"h_mae": {"value": None, "unit": "Eh", "ci95": None, "n": 1}}, "h_mae.value"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, field: str, value: object, said: str):
    content = json.loads(a_result().model_dump_json()) | {field: value}
    path = tmp_path / "result.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=said) as caught:
        results.read_result(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]"])
def test_garbage_is_refused_in_one_sentence(tmp_path: Path, content: bytes):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(DataError) as caught:
        results.read_result(tmp_path)
    assert "\n" not in str(caught.value)


def test_results_of_the_first_schema_name_their_first_metric_primary(tmp_path: Path):
    new = json.loads(a_result().model_dump_json())
    psi = {"value": 1.0, "unit": "1", "ci95": None, "n": 100, "std": None}
    old = new | {"schema_version": 1, "metrics": {"psi": psi, **new["metrics"]}}
    for field in ("primary", "reproduce", "step_budget"):
        del old[field]
    (tmp_path / "result.json").write_text(json.dumps(old))
    read = results.read_result(tmp_path)
    assert (read.schema_version, read.primary, read.reproduce) == (2, "psi", "")
    del old["metrics"]
    (tmp_path / "result.json").write_text(json.dumps(old))
    with pytest.raises(DataError, match="metrics: Field required"):
        results.read_result(tmp_path)


def test_a_huge_or_deeply_nested_file_is_refused(tmp_path: Path):
    path = tmp_path / "result.json"
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="is no valid result"):
        results.read_result(tmp_path)
    with open(path, "wb") as file:
        file.truncate(results.LARGEST + 1)
    with pytest.raises(DataError, match="more than 16 MiB"):
        results.read_result(tmp_path)


def test_a_missing_result_says_where(tmp_path: Path):
    with pytest.raises(DataError, match=r"there is no .*result\.json"):
        results.read_result(tmp_path)


@pytest.mark.parametrize(
    ("value", "interval"), [(float("nan"), None), (float("inf"), None), (1.0, (2.0, 1.0))]
)
def test_metrics_are_finite_and_intervals_ordered(value: float, interval: tuple | None):
    with pytest.raises(ValidationError):
        results.Metric(value=value, unit="Eh", ci95=interval, n=1)


def test_provenance_knows_code_machine_and_libraries():
    found = provenance.provenance(results.now(), 2, {})
    assert found.libraries.keys() >= {"torch", "numpy", "h5py"}
    assert found.restarts == 2
    assert found.cores >= 1
    assert found.cpu
    assert found.finished >= found.started


def test_command_line_hides_paths_of_the_program_and_secrets():
    line = provenance.command_line(["/some/where/hambench", "run", "task=a b", "api_token=abc"])
    assert line == "hambench run 'task=a b' 'api_token=***'"
    words = ["x", "run", "root=/home/me/runs", "--config", "/tmp/a b/c.yaml", "data=[/a/b.db,c/d]"]
    told = provenance.command_line(words)
    assert told == "x run root=.../runs --config .../c.yaml 'data=[.../b.db,c/d]'"
    assert provenance.command_line(["x", "recipe.lr=1/2", "url=https://a/b"]) == (
        "x recipe.lr=1/2 url=https://a/b"
    )
