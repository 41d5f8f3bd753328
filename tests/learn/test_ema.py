"""The moving average of parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hambench.learn.ema import ExponentialAverage


@pytest.mark.parametrize("ramp", [True, False])
def test_average_is_the_recursion_and_only_swapped_in_for_a_while(ramp):
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    average = ExponentialAverage(model, 0.9, ramp=ramp)
    expected = [p.detach().clone() for p in model.parameters()]
    for n in range(1, 30):
        with torch.no_grad():
            for p in model.parameters():
                p += torch.randn_like(p)
        average.update()
        d = min(0.9, (1 + n) / (10 + n)) if ramp else 0.9
        expected = [
            d * e + (1 - d) * p.detach() for e, p in zip(expected, model.parameters(), strict=True)
        ]
    current = [p.detach().clone() for p in model.parameters()]
    with average.applied():
        for p, e in zip(model.parameters(), expected, strict=True):
            assert torch.allclose(p, e, atol=1e-12)
    assert all(map(torch.equal, model.parameters(), current))


def test_parameters_come_back_after_an_error_and_state_travels():
    model = nn.Linear(3, 2)
    average = ExponentialAverage(model, 0.99)
    start = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        model.weight += 1
    average.update()
    now = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(KeyError), average.applied():
        raise KeyError
    assert all(map(torch.equal, model.parameters(), now))
    assert not torch.equal(now[0], start[0])
    other = ExponentialAverage(model, 0.99)
    other.load_state_dict(average.state_dict())
    assert other.updates == 1
    assert all(map(torch.equal, other.average, average.average))
    other.update(1.0)
    assert all(map(torch.equal, other.average, now))
    assert not torch.equal(average.average[0], now[0])
