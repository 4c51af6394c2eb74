from __future__ import annotations

import numpy as np
import pytest

from lorafit.comparison.outcome import crossing, front, recommend
from lorafit.evidence import Arm, Interval
from lorafit.evidence.comparison import Recommendation
from tests.comparison.helpers import scores_of, task


def row(metric: float, parameters: int, family: str = "additive") -> Arm:
    return Arm(
        family=family,
        learning_rate=1e-3,
        rate_at_edge=False,
        trainable_parameters=parameters,
        share=parameters / 1000,
        metric=Interval(metric),
        time_s=1.0,
        cpu_s=1.0,
        peak_memory_bytes=1e9,
        saved_bytes=4 * parameters,
        train_loss=0.5,
        gap=0.1,
        forgetting=0.1,
        forgetting_kind="representation",
    )


def test_a_front_has_what_nothing_else_dominates() -> None:
    rows = {
        "big": row(0.9, 1000),
        "good": row(0.9, 100),
        "small": row(0.8, 10),
        "useless": row(0.7, 50),
    }
    assert front(rows, "trainable_parameters", task()) == ["small", "good"]


def test_forgetting_at_equal_quality_is_interpolated() -> None:
    path = [
        {"c": 0.25, "loss": 0.6, "forgetting": 0.1},
        {"c": 0.5, "loss": 0.4, "forgetting": 0.3},
        {"c": 1.0, "loss": 0.5, "forgetting": 0.9},
    ]
    assert crossing(path, 0.5) == pytest.approx(0.2)
    assert crossing(path, 0.7) == pytest.approx(0.1)
    assert crossing(path, 0.4) == pytest.approx(0.3)
    assert crossing(path, 0.3) is None


class Settings:
    class run:
        confidence = 0.95

    seed = 0


class Asked:
    settings = Settings()


def recommended(right: dict[str, np.ndarray], rows: dict[str, Arm]) -> Recommendation:
    runs = {name: [scores_of(mask)] for name, mask in right.items()}
    return recommend(rows, runs, Asked(), task(), 0.01)  # type: ignore[arg-type]


def test_the_smallest_method_that_is_as_good_as_the_best_is_recommended() -> None:
    n = np.arange(1000)
    right = {"full": n % 10 != 0, "lora": n % 10 != 0, "ia3": n % 5 != 0, "head": n % 2 == 0}
    right["lora"] = right["lora"] & (n != 1)  # one example worse
    rows = {
        "full": row(0.9, 900, "yardstick"),
        "lora": row(0.899, 90),
        "ia3": row(0.8, 9),
        "head": row(0.5, 1, "yardstick"),
    }
    found = recommended(right, rows)
    assert found.method == "lora"
    assert found.best == "full"
    assert found.sentence.startswith("Take lora: accuracy 0.899, -0.001 beside the best (full;")


def test_a_yardstick_is_recommended_where_nothing_else_is_as_good() -> None:
    n = np.arange(1000)
    rows = {"full": row(0.9, 900, "yardstick"), "ia3": row(0.8, 9)}
    found = recommended({"full": n % 10 != 0, "ia3": n % 5 != 0}, rows)
    assert found.method == "full"
    assert "the best of all" in found.sentence
