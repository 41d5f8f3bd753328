"""Training on turned molecules: exact after an interruption, and of no effect on validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy_model import RECIPE, Toy, molecules, rows

from hambench.data import loader
from hambench.data.graph import GraphSpec
from hambench.learn import Interrupted, Recipe, fit


class Turning(Toy):
    """The toy, trained on turned molecules; ``stop_at``: the step before which it is stopped."""

    stop_at = 0

    @property
    def graph(self) -> GraphSpec:
        spec = super().graph
        return GraphSpec(spec.basis, spec.cutoff, spec.space, spec.dtype, rotate=True)

    def loss(self, *words: Any) -> Any:
        if self.training and self.calls + 1 == self.stop_at:
            raise KeyboardInterrupt
        return super().loss(*words)


def train(folder: Path, stop_at: int = 0) -> Turning:
    torch.manual_seed(0)
    model = Turning()
    model.stop_at = stop_at
    values = {**RECIPE, "max_steps": 12, "validate_every": 6}
    data = molecules(9), molecules(5, seed=1)
    fit(model, *data, Recipe.parse(values), folder, seed=3, device="cpu", progress=False)
    return model


def test_a_resumed_run_sees_the_same_rotations(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        train(tmp_path / "cut", stop_at=8)
    resumed = train(tmp_path / "cut")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")


def test_only_training_is_turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turned: list[str] = []
    real = loader.turned
    monkeypatch.setattr(loader, "turned", lambda m, *words: turned.append(m.id) or real(m, *words))
    seen: list[bool] = []
    made = loader.Loader.__init__

    def noted(self: loader.Loader, *words: Any, **options: Any) -> None:
        seen.append(options.get("rotate", False))
        made(self, *words, **options)

    monkeypatch.setattr(loader.Loader, "__init__", noted)
    train(tmp_path)
    assert seen == [True, False]
    assert len(turned) >= 12 * 4 - 9
