import pytest
from datasets import Dataset

from lorafit.data.findings import Findings
from lorafit.errors import DataError
from lorafit.inspection.truth import MASKED, Lesson, inspect

END = 2


def examples(labels, truncated=None, ids=None):
    rows = {
        "input_ids": ids or [list(range(5, 5 + len(row))) for row in labels],
        "labels": labels,
        "truncated": truncated or [False] * len(labels),
    }
    return Dataset.from_dict(rows)


def answered(n, masked=0, cut=0, end=END):
    """``n`` prompts with an answer, the first ones all masked, the last ones cut off."""
    good = [[MASKED, MASKED, 7, end]] * (n - masked - cut)
    labels = [[MASKED] * 4] * masked + good + [[MASKED, MASKED, 7, 8]] * cut
    return examples(labels, [False] * (n - cut) + [True] * cut)


def written(train, batches=(), **options):
    lesson = Lesson("next_token", ends={END}, **options)
    return inspect({"train": train, "validation": answered(2)}, lesson, batches)


def classes(labels, names=("a", "b"), **options):
    data = Dataset.from_dict({"input_ids": [[5, 6]] * len(labels), "labels": labels})
    return inspect({"train": data}, Lesson("example", label_names=names, **options))


def test_what_is_learned_is_counted():
    found = written(answered(100, masked=1, cut=3)).splits["train"]
    assert (found.examples, found.tokens, found.longest) == (100, 400, 4)
    assert (found.trained, found.untrained, found.ends) == (198, 1, 96)
    assert (found.truncated, found.answers_cut) == (3, 3)


def test_good_examples_have_no_problems():
    truth = written(answered(100, masked=1, cut=5), batches=[[0, 1], [2, 3]])
    assert truth.problems == ()
    truth.enforce(Findings())


@pytest.mark.parametrize(
    ("train", "options", "message"),
    [
        (answered(0), {}, "train split is empty"),
        (answered(100, masked=2), {}, r"nothing is learned from 2 of 100 \(2.0%\) train examples"),
        (answered(100, masked=1), {"batches": [[0], [1, 2]]}, "1 of the batches.*example 0"),
        (answered(100, cut=6), {}, r"cut off in 6 of 100 \(6.0%\)"),
        (answered(100, cut=1), {"max_truncated": 0.0}, "allows 0.0%"),
        (answered(100, end=9), {}, r"the end of a text is never learned.*\(2\)"),
    ],
)
def test_what_cannot_be_learned_stops_before_the_first_step(train, options, message):
    with pytest.raises(DataError, match=message):
        written(train, **options).enforce(Findings())


def test_all_problems_are_said_at_once():
    with pytest.raises(DataError) as caught:
        written(answered(10, masked=5, end=9)).enforce(Findings())
    assert len(str(caught.value).splitlines()) == 2


def test_plain_text_may_be_cut_anywhere():
    whole = examples([[5, 6, 7, END]] * 10 + [[5, 6, 7, 8]] * 10, [False] * 10 + [True] * 10)
    assert written(whole).problems == ()


def test_a_target_that_is_cut_has_no_end():
    cut = examples([[7, END]] * 9 + [[7, 8]], [False] * 9 + [True])
    truth = inspect({"train": cut}, Lesson("target", ends={END}))
    assert "cut off in 1 of 10" in truth.problems[0]


def test_a_class_without_training_examples_is_a_problem():
    truth = classes([0, 0, 1, 0], names=("a", "b", "c"))
    assert "'c' never occurs in the training examples" in truth.problems[0]


def test_imbalance_is_said(caplog):
    truth = classes([0] * 40 + [1] * 4)
    findings = Findings()
    truth.enforce(findings)
    assert findings.warnings == list(truth.warnings)
    assert '"a" occurs 40 times in train, "b" 4 times' in caplog.text
    assert classes([0] * 39 + [1] * 4).warnings == ()


def test_each_kind_of_label_is_counted():
    assert classes([1, 0, 1]).splits["train"].labels == {"b": 2, "a": 1}
    assert classes([[1, 0], [1, 1]]).splits["train"].labels == {"a": 2, "b": 1}
    assert classes([0.5, 1.5], names=()).splits["train"].labels == {}
    tags = inspect(
        {"train": examples([[MASKED, 0, 1, MASKED], [MASKED, 0, MASKED, 0]])},
        Lesson("token", label_names=("O", "B-X")),
    )
    assert tags.splits["train"].labels == {"O": 3, "B-X": 1}
    assert tags.problems == ()


def test_tokens_that_the_tokenizer_does_not_know_are_said():
    data = Dataset.from_dict({"input_ids": [[5, 1, 6], [1, 1, 7]], "labels": [0, 1]})
    truth = inspect({"train": data}, Lesson("example", ("a", "b"), unknown_token=1))
    assert "3 of 6 (50.0%) tokens of the train split are unknown" in truth.warnings[0]
