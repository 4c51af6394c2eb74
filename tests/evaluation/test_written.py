from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from lorafit.evaluation.written import intervals, measured, paired

REFERENCES = [
    ["The cat sat on the mat, near the door.", "A cat was sitting on the mat."],
    ["The Mill is a cheap pub by the river."],
    ["Two plus two is four, as everyone knows well."],
    ["Say nothing."],
]
BASE = ["The cat is on a mat.", "a pub, maybe", "2 + 2 = 5 is what no one knows", ""]
TUNED = [
    "A cat was  sitting on the mat.",
    "The Mill is a pub by the river.",
    "Two plus two is four, as everyone knows.",
    "Say nothing.",
]


def value(answers, name):
    return intervals(measured(answers, REFERENCES), 0.95)[name].value


@pytest.mark.parametrize("answers", [BASE, TUNED])
def test_the_numbers_are_those_of_rouge_score_and_sacrebleu(answers):
    width = max(map(len, REFERENCES))
    columns = [[row[i] if i < len(row) else None for row in REFERENCES] for i in range(width)]
    theirs = BLEU().corpus_score(answers, cast(Any, columns)).score
    assert value(answers, "bleu") == pytest.approx(theirs, abs=1e-9)
    rouge = RougeScorer(["rougeL"])
    f = [
        rouge.score_multi(right, answer)["rougeL"].fmeasure
        for right, answer in zip(REFERENCES, answers, strict=True)
    ]
    assert value(answers, "rouge_l") == pytest.approx(np.mean(f))


def test_exact_match_takes_any_reference_and_any_spaces():
    assert value(TUNED, "exact_match") == 0.5
    assert value(BASE, "exact_match") == 0


def test_words_beyond_english_count():
    numbers = measured(["das Wetter ist schön"], [["Das Wetter ist schön."]])
    assert numbers["rouge_l"].tolist() == [[1, 1]]
    other = measured(["погода хорошая"], [["погода плохая"]])
    assert other["rouge_l"].tolist() == [[0.5, 1]]


def test_intervals_hold_the_value_and_differences_are_paired():
    repeated = [row for row in REFERENCES for _ in range(8)]
    base, tuned = (
        measured([text for text in answers for _ in range(8)], repeated)
        for answers in (BASE, TUNED)
    )
    for found in intervals(tuned, 0.95).values():
        assert found.low <= found.value <= found.high
    same = paired(tuned, tuned, 0.95)
    assert all(set(found.ends) == {0.0} for found in same.values())
    gain = paired(base, tuned, 0.95)
    assert all(found.low > 0 for found in gain.values())
    before, after = intervals(base, 0.95), intervals(tuned, 0.95)
    for name, found in gain.items():
        assert found.difference == after[name].value - before[name].value
