"""Learning-rate schedules against their formulas and against torch."""

from __future__ import annotations

import math

import pytest
import torch

from hambench.learn.recipe import Constant, Cosine, Linear, Plateau, Polynomial
from hambench.learn.schedule import Schedule

LR, TOTAL, WARM = 2e-3, 100, 10


def factors(options, lr=LR):
    schedule = Schedule(options, lr)
    return [schedule.factor(step, step / TOTAL) for step in range(TOTAL + 1)]


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        (Constant(name="constant", warmup_steps=WARM), lambda left: 1.0),
        (
            Cosine(name="cosine", warmup_steps=WARM, end_lr=1e-4),
            lambda left: 0.05 + 0.95 * (0.5 - 0.5 * math.cos(math.pi * left)),
        ),
        (Linear(name="linear", warmup_steps=WARM, end_lr=1e-4), lambda left: 0.05 + 0.95 * left),
        (
            Polynomial(name="polynomial", warmup_steps=WARM, end_lr=1e-4, power=3),
            lambda left: 0.05 + 0.95 * left**3,
        ),
    ],
)
def test_values(options, shape):
    got = factors(options)
    assert got[:WARM] == [(k + 1) / WARM for k in range(WARM)]
    for step in range(WARM, TOTAL + 1):
        left = (TOTAL - step) / (TOTAL - WARM)
        assert got[step] == pytest.approx(shape(left), rel=1e-12, abs=1e-15)
    assert got[WARM] == 1.0


def test_cosine_is_torchs():
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=LR)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TOTAL, eta_min=1e-5)
    for ours in factors(Cosine(name="cosine", end_lr=1e-5)):
        assert ours * LR == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()


def test_time_that_jumps_ahead_brings_the_rate_to_its_end():
    schedule = Schedule(Linear(name="linear"), LR)
    assert [schedule.factor(k, p) for k, p in enumerate([0.0, 0.25, 0.9, 1.0, 1.3])] == [
        pytest.approx(f) for f in (1.0, 0.75, 0.1, 0.0, 0.0)
    ]


def test_plateau_is_torchs(rng):
    options = Plateau(name="plateau", factor=0.3, patience=2, threshold=0.05, min_lr=1e-5)
    ours = Schedule(options, LR)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.3, patience=2, threshold=0.05, min_lr=1e-5, eps=0
    )
    values = 1 / (1 + 0.05 * torch.arange(60)) + torch.from_numpy(rng.normal(scale=0.05, size=60))
    seen = set()
    for step, value in enumerate(values.tolist()):
        ours.validated(value, -value)
        theirs.step(value)
        rate = optimizer.param_groups[0]["lr"]
        assert ours.factor(step, 0.0) * LR == pytest.approx(rate, rel=1e-12)
        seen.add(rate)
    assert len(seen) >= 4
    assert min(seen) == 1e-5


def test_plateau_exhausts_and_its_state_travels():
    options = Plateau(name="plateau", patience=0, stop_lr=LR / 3)
    schedule = Schedule(options, LR)
    for value in (1.0, 1.0):
        schedule.validated(value, 0.0)
    copy = Schedule(options, LR)
    copy.load_state_dict(schedule.state_dict())
    assert not copy.exhausted
    copy.validated(1.0, 0.0)
    assert copy.exhausted
    assert copy.factor(5, 0.0) == 0.25


def test_plateau_follows_what_it_monitors():
    for monitor, expected in (("metric", 0.5), ("loss", 1.0)):
        schedule = Schedule(Plateau(name="plateau", monitor=monitor, patience=0), LR)
        for loss in (3.0, 2.0):
            schedule.validated(1.0, loss)
        assert schedule.factor(1, 0.0) == expected
