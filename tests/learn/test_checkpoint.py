"""Checkpoints: atomic, rotated, verified; and weights files."""

from __future__ import annotations

import pickle
import random
import resource
import signal

import numpy as np
import pytest
import torch
from toy_model import Toy

from hambench.errors import CheckpointError, DataError, RunError
from hambench.learn.checkpoint import (
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from hambench.learn.weights import cast, load_weights, save_weights

CPU = torch.device("cpu")


def content(value: float) -> dict:
    return {"tensor": torch.full((20_000,), value), "plain": [1, {"a": None, "b": float("inf")}]}


def test_round_trip_and_rotation(tmp_path):
    assert load_checkpoint(tmp_path) is None
    for value in (1.0, 2.0):
        save_checkpoint(tmp_path, content(value))
    found = load_checkpoint(tmp_path)
    assert torch.equal(found["tensor"], content(2.0)["tensor"])
    assert found["plain"] == content(2.0)["plain"]
    (tmp_path / "last.pt").unlink()
    assert float(load_checkpoint(tmp_path)["tensor"][0]) == 1.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["previous.pt"]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
def test_damage_is_noticed_and_the_previous_one_taken(tmp_path, damage, caplog):
    for value in (1.0, 2.0):
        save_checkpoint(tmp_path, content(value))
    last = tmp_path / "last.pt"
    raw = bytearray(last.read_bytes())
    raw[len(raw) // 2] ^= 1
    last.write_bytes({"flip": raw, "cut": raw[:-100], "empty": b"", "foreign": b"x" * 999}[damage])
    assert float(load_checkpoint(tmp_path)["tensor"][0]) == 1.0
    assert "last.pt cannot be read" in caplog.text
    # the next one must not push the damaged file over the good one
    save_checkpoint(tmp_path, content(3.0))
    assert float(load_checkpoint(tmp_path)["tensor"][0]) == 3.0
    (tmp_path / "last.pt").unlink()
    assert float(load_checkpoint(tmp_path)["tensor"][0]) == 1.0
    (tmp_path / "previous.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*delete that folder"):
        load_checkpoint(tmp_path)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"format": 1, "x": Trap()}, tmp_path / "last.pt", pickle_module=pickle)
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_another_format_version_is_refused(tmp_path):
    torch.save({"format": 99}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="has format 99, this version of hambench reads 1"):
        load_checkpoint(tmp_path)


def test_a_write_that_fails_leaves_the_checkpoints_as_they_were(tmp_path):
    for value in (1.0, 2.0):
        save_checkpoint(tmp_path, content(value))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limit[1]))
    try:
        with pytest.raises(RunError, match=r"cannot write .*last\.pt"):
            save_checkpoint(tmp_path, content(3.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    from hambench.learn import checkpoint

    def full(self, data):
        self.error = OSError(28, "No space left on device")
        raise self.error

    save_checkpoint(tmp_path, content(1.0))
    monkeypatch.setattr(checkpoint._Sink, "write", full)
    with pytest.raises(RunError, match="no space left to write"):
        save_checkpoint(tmp_path, content(2.0))
    assert float(load_checkpoint(tmp_path)["tensor"][0]) == 1.0


def test_random_numbers_go_on(tmp_path):
    def draw():
        legacy = np.random.normal(size=3)  # noqa: NPY002 (the global state is what is saved)
        return [random.random(), random.gauss(0, 1), *legacy, *torch.randn(3).tolist()]

    draw()
    save_checkpoint(tmp_path, {"random": random_state(CPU)})
    first = draw()
    restore_random_state(load_checkpoint(tmp_path)["random"], CPU)
    assert draw() == first


def test_weights_travel_with_their_type(tmp_path):
    path = tmp_path / "w.safetensors"
    model = Toy()
    cast(model, torch.float64)
    model.shift += 1 / 3
    save_weights(path, model, 17, 0.25)
    other = Toy()
    info = load_weights(path, other)
    assert (info.step, info.value) == (17, 0.25)
    assert other.dtype == torch.float64
    assert all(map(torch.equal, other.state_dict().values(), model.state_dict().values()))


def test_wrong_weights_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, Toy(), 1, None)
    with pytest.raises(CheckpointError, match=r"hyperparameters.width is 8, this model's is 5"):
        load_weights(path, Toy(5))
    with pytest.raises(DataError, match="there is no weights file"):
        load_weights(tmp_path / "absent", Toy())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="is no readable weights file"):
        load_weights(path, Toy())
    torch.save({}, path)
    with pytest.raises(DataError, match="is no readable weights file"):
        load_weights(path, Toy())
    import safetensors.torch

    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"hambench\.load_published"):
        load_weights(path, Toy())
