import pytest
import torch

from lorafit.config import TrainConfig
from lorafit.training.schedule import linear, make_factor, make_schedule, warmup_stable_decay


def test_warmup_stable_decay_rises_stays_and_falls():
    factor = warmup_stable_decay(total_steps=10, warmup_steps=2, decay_steps=4)
    assert [factor(step) for step in range(10)] == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert factor(10) == factor(11) == 0.0


def test_linear_rises_then_falls_to_zero():
    factor = linear(total_steps=6, warmup_steps=2)
    assert [factor(step) for step in range(7)] == [0.5, 1, 1, 0.75, 0.5, 0.25, 0]


@pytest.mark.parametrize("name", ["warmup_stable_decay", "linear"])
@pytest.mark.parametrize("total", [1, 2, 3, 17, 1000])
@pytest.mark.parametrize("warmup", [0.0, 0.06, 0.9])
def test_every_step_has_a_rate_above_zero_and_at_most_one(name, total, warmup):
    settings = TrainConfig(lr_scheduler_type=name, warmup_ratio=warmup)
    factors = [make_factor(settings, total)(step) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)


def test_decay_ratio_is_the_share_of_falling_steps():
    wsd = TrainConfig(lr_scheduler_type="warmup_stable_decay", warmup_ratio=0.0)
    settings = wsd.model_copy(update={"decay_ratio": 0.25})
    factor = make_factor(settings, 100)
    assert factor(75) == 1.0
    assert factor(76) == 0.96
    assert make_factor(wsd.model_copy(update={"decay_ratio": 0.0}), 100)(99) == 1.0


def rates(start, stop, factor):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    schedule = make_schedule(optimizer, factor, start)
    found = []
    for _ in range(start, stop):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_resumed_schedule_goes_on_with_the_same_rates():
    factor = warmup_stable_decay(10, 3, 5)
    whole = rates(0, 10, factor)
    assert whole == [0.2 * factor(step) for step in range(10)]
    assert rates(0, 4, factor) + rates(4, 10, factor) == whole
