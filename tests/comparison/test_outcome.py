from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from datasets import Dataset

from lorafit.comparison import yardsticks
from lorafit.comparison.outcome import crossing, front
from lorafit.comparison.recommendation import recommend
from lorafit.comparison.yardsticks import Beside, Yardstick
from lorafit.evaluation.seeds import Measure
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

    class train:
        per_device_train_batch_size = 32
        gradient_accumulation_steps = 1
        max_steps: int | None = None

    seed = 0


class Asked:
    settings = Settings()
    steps = 30
    data: ClassVar[dict[str, Any]] = {"train": {"rows": 320}}


def beside(right: np.ndarray) -> Beside:
    scores = scores_of(right)
    constant = task().constant(Dataset.from_dict({"labels": scores.labels}))
    assert constant is not None
    simple = [Yardstick(constant.by, constant.yardstick)]
    found = yardsticks.beside([scores], simple, Measure(task(), "accuracy"))
    assert found is not None
    return found


def recommended(right: dict[str, np.ndarray], rows: dict[str, Arm]) -> Recommendation:
    runs = {name: [scores_of(mask)] for name, mask in right.items()}
    found = {name: beside(mask) for name, mask in right.items()}
    judged = {
        name: row.model_copy(
            update={
                "beside_constant": found[name].difference,
                "yardstick": found[name].way,
                "learned": found[name].learned,
            }
        )
        for name, row in rows.items()
    }
    return recommend(judged, runs, Asked(), task(), 0.01)  # type: ignore[arg-type]


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
    assert "Learned nothing, and not ranked: head; train longer (--num-train-epochs 10)" in (
        found.sentence
    )


def test_a_yardstick_is_recommended_where_nothing_else_is_as_good() -> None:
    n = np.arange(1000)
    rows = {"full": row(0.9, 900, "yardstick"), "ia3": row(0.8, 9)}
    found = recommended({"full": n % 10 != 0, "ia3": n % 5 != 0}, rows)
    assert found.method == "full"
    assert "the best of all" in found.sentence


def test_of_equally_good_methods_the_smallest_is_recommended_however_few_examples() -> None:
    n = np.arange(24)
    right = {"lora": n % 12 != 0, "bitfit": (n + 1) % 12 != 0, "full": n % 6 != 0}
    rows = {
        "lora": row(22 / 24, 90),
        "bitfit": row(22 / 24, 9),
        "full": row(20 / 24, 900, "yardstick"),
    }
    found = recommended(right, rows)
    assert (found.method, found.best) == ("bitfit", "bitfit")


def test_what_cannot_be_told_apart_is_not_recommended() -> None:
    """Fifty examples cannot tell a method that is six points worse from the best."""
    n = np.arange(50)
    best, small = n % 10 != 0, (n % 10 != 0) & ~np.isin(n, (1, 12, 33))
    rows = {"lora": row(0.9, 90), "ia3": row(0.84, 9)}
    found = recommended({"lora": best, "ia3": small}, rows)
    assert found.method == "lora"
    assert "may be as good as lora or worse: ia3" in found.sentence


def test_methods_that_learned_nothing_are_not_ranked_and_more_steps_are_advised() -> None:
    """All give one answer only: the smallest of them is no better than the largest."""
    n = np.arange(1000)
    one = n % 2 == 0
    rows = {"lora": row(0.5, 90), "bitfit": row(0.5, 20), "ia3": row(0.5, 9)}
    found = recommended(dict.fromkeys(rows, one), rows)
    assert (found.method, found.best) == (None, None)
    assert found.sentence == (
        'No method is ranked: on 1,000 examples none is better than always answering "neg" '
        "(accuracy 0.500) after 30 steps. Train longer: --num-train-epochs 10."
    )


def test_whether_a_method_learned_something_is_a_paired_interval() -> None:
    n = np.arange(1000)
    luck = (n % 2 == 0) & (n % 50 != 0) | (n % 50 == 1)  # moves both ways, gains nothing
    real = (n % 2 == 0) | (n % 10 == 1)
    assert [beside(mask).learned for mask in (n % 2 == 0, luck, real)] == [False, False, True]
    assert beside(real).difference.value == pytest.approx(0.1)
