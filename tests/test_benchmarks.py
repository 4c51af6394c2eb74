"""What benchmarks compute of what they measure."""

from __future__ import annotations

import pytest
import torch
from benchmarks.tuning.noise import WINDOW, Windows


@pytest.mark.parametrize("batch", [8, 32])
def test_the_noise_scale_is_the_planted_one_whatever_the_batch(batch: int) -> None:
    """Gradients of ``batch`` examples with noise of a known variance around a known mean."""
    draw = torch.Generator().manual_seed(0)
    mean, deviation = 0.1 * torch.randn(200, generator=draw), 1.3
    windows = Windows()
    for step in range(200 * WINDOW):
        noise = deviation * torch.randn(200, generator=draw) / batch**0.5
        windows.add(mean + noise, step + 1)
    planted = 200 * deviation**2 / float(mean @ mean)
    assert windows.scale(batch, 0, 200 * WINDOW) == pytest.approx(planted, rel=0.05)


def test_gradients_without_a_mean_have_no_noise_scale() -> None:
    windows = Windows()
    for step in range(WINDOW):
        windows.add(torch.ones(3) * (-1) ** step, step + 1)
    assert windows.scale(8, 0, WINDOW) is None
    assert windows.scale(8, WINDOW, 2 * WINDOW) is None


def test_a_window_that_is_broken_off_does_not_count() -> None:
    windows = Windows()
    windows.add(torch.ones(3), 1)
    windows.forget()
    for step in range(WINDOW):
        windows.add(2 * torch.ones(3), step + 2)
    assert windows.ends == [WINDOW + 1]
    assert windows.big == windows.small == [12.0]
    assert windows.scale(8, 0, 100) == pytest.approx(0.0)
