from typing import Any

import numpy as np
import pytest

from lorafit.errors import HandoffError
from lorafit.evaluation.handoff import TOLERANCE, check_handoff

LIVE = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


def test_equal_logits_pass_and_the_differences_are_returned():
    found = check_handoff(LIVE, reloaded=LIVE.copy(), merged=lambda: LIVE + 1e-6, base=LIVE * 0.5)
    assert found.reloaded == 0.0
    assert found.merged == pytest.approx(1e-6, rel=0.2)


def test_only_what_is_given_is_compared():
    assert check_handoff(LIVE, merged=LIVE).differences == {"merged": 0.0}


@pytest.mark.parametrize("which", ["reloaded", "merged"])
def test_a_difference_is_an_error_with_its_numbers(which):
    wrong = LIVE.copy()
    wrong[3, 1] += 0.5
    given: dict[str, Any] = {which: wrong}
    with pytest.raises(HandoffError, match=rf"{which} model differs by up to 5.00e-01 in 1 of 8"):
        check_handoff(LIVE, **given)


def test_both_differences_are_named():
    with pytest.raises(HandoffError, match=r"reloaded model differs.*and the merged model"):
        check_handoff(LIVE, reloaded=LIVE + 1, merged=LIVE + 1)


def test_the_tolerance_is_relative_to_the_largest_logit():
    check_handoff(LIVE * 1e4, merged=LIVE * 1e4 + 0.05)
    with pytest.raises(HandoffError):
        check_handoff(LIVE, merged=LIVE + 0.05)
    check_handoff(LIVE, merged=LIVE + 0.05, tolerance=TOLERANCE["bfloat16"])


def test_a_trained_model_that_equals_the_base_shows_nothing():
    with pytest.raises(HandoffError, match="exactly the base model's logits"):
        check_handoff(LIVE, reloaded=LIVE, merged=LIVE, base=LIVE)


@pytest.mark.parametrize(
    ("merged", "message"),
    [
        (LIVE[:, :2], "shape"),
        (np.full_like(LIVE, np.nan), "not finite"),
        (LIVE[:0], "no merged logits"),
    ],
)
def test_logits_that_cannot_be_compared_are_refused(merged, message):
    with pytest.raises(HandoffError, match=message):
        check_handoff(LIVE, merged=merged)
