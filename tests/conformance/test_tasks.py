"""The promises of every registered task, by `lorafit.testing`, in each of its forms.

An answer depends on its text alone: for every task, on every architecture with a head for it, in
every engine.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from lorafit.tasks import tasks
from lorafit.testing import TaskChecks, tiny
from lorafit.testing.subject import check_alone, heads, subject
from lorafit.testing.words import BAD, GOOD, ending_tokenizer

CLASSIFIERS = ("bert", *(name for name in tiny.ARCHITECTURES if name != "bert"))
DECODERS: tuple[str, ...] = ("llama", "gpt2", "gemma3", "mixtral", "phi3", "qwen2", "qwen3")
FAST: tuple[str, ...] = ("bert", "distilbert", "llama", "qwen2", "qwen3", "roberta")


def good(said: list[str]) -> int:
    return sum(word in GOOD for word in said) - sum(word in BAD for word in said)


def kinds(said: list[str]) -> list[str]:
    return [name for name, known in (("bad", BAD), ("good", GOOD)) if set(said) & set(known)]


class TestSequenceClassification(TaskChecks):
    task = "sequence_classification"
    families: ClassVar[tuple[str, ...]] = CLASSIFIERS
    fast: ClassVar[tuple[str, ...]] = FAST
    refused = {"unseen": ({"label": "neutral"}, '"neutral".*never occurs in train.*neg, pos')}

    def row(self, said: list[str]) -> dict[str, Any]:
        return {"text": " ".join(said), "label": "pos" if good(said) > 0 else "neg"}


class TestClassificationOfPairs(TestSequenceClassification):
    text: ClassVar[tuple[str, ...]] = ("premise", "hypothesis")

    def row(self, said: list[str]) -> dict[str, Any]:
        label = "yes" if good(said) > 0 else "no"
        half = len(said) // 2
        first, second = " ".join(said[:half]), " ".join(said[half:])
        return {"premise": first, "hypothesis": second, "label": label}

    refused = {"unseen": ({"label": "maybe"}, '"maybe".*never occurs in train.*no, yes')}


class TestRegression(TaskChecks):
    task = "regression"
    label = "score"
    families: ClassVar[tuple[str, ...]] = CLASSIFIERS
    fast: ClassVar[tuple[str, ...]] = FAST

    def row(self, said: list[str]) -> dict[str, Any]:
        return {"text": " ".join(said), "score": 0.25 + good(said) / 2}


class TestRegressionOfPairs(TestRegression):
    text: ClassVar[tuple[str, ...]] = ("sentence1", "sentence2")
    families = ("bert", "llama", "t5")
    fast = ("bert", "llama")

    def row(self, said: list[str]) -> dict[str, Any]:
        half = len(said) // 2
        first, second = " ".join(said[:half]), " ".join(said[half:])
        return {"sentence1": first, "sentence2": second, "score": 0.25 + good(said) / 2}


class TestMultiLabelClassification(TaskChecks):
    task = "multi_label_classification"
    label: ClassVar[str | list[str] | None] = "labels"
    families: ClassVar[tuple[str, ...]] = CLASSIFIERS
    fast: ClassVar[tuple[str, ...]] = FAST
    refused = {"unseen": ({"labels": ["good", "odd"]}, '"odd".*never occurs in train.*bad, good')}

    def row(self, said: list[str]) -> dict[str, Any]:
        return {"text": " ".join(said), "labels": kinds(said)}


class TestLabelsInColumns(TestMultiLabelClassification):
    """Of pairs, too."""

    text: ClassVar[tuple[str, ...]] = ("premise", "hypothesis")
    label = ["bad", "good"]
    families = ("bert", "llama", "t5")
    fast = ("bert", "llama")
    refused = {"two": ({"good": 2}, "'2' in row 3; several label columns have to hold 0 and 1")}

    def row(self, said: list[str]) -> dict[str, Any]:
        half = len(said) // 2
        first, second = " ".join(said[:half]), " ".join(said[half:])
        has = {name: int(name in kinds(said)) for name in ("bad", "good")}
        return {"premise": first, "hypothesis": second} | has


class TestSpans(TaskChecks):
    task = "token_classification"
    text = ("tokens",)
    label = "ner_tags"
    families: ClassVar[tuple[str, ...]] = (
        *("bert", "deberta-v2", "distilbert", "gpt2", "llama", "mixtral", "modernbert"),
        *("phi3", "qwen2", "qwen3", "roberta", "t5"),
    )
    fast: ClassVar[tuple[str, ...]] = ("bert", "distilbert", "roberta")
    refused = {
        "unseen": ({"tokens": ["a", "film"], "ner_tags": ["O", "B-ODD"]}, "tag B-ODD.*B-BAD"),
        "uneven": ({"tokens": ["a", "film"], "ner_tags": ["O"]}, "2 words.*1 tags"),
    }

    def row(self, said: list[str]) -> dict[str, Any]:
        tags = ["B-GOOD" if good([w]) > 0 else "B-BAD" if good([w]) else "O" for w in said]
        return {"tokens": said, "ner_tags": tags}


class TestTags(TestSpans):
    """Parts of speech: each tag stands alone."""

    label = "pos_tags"
    families = ("bert", "gpt2", "t5")
    fast = ("bert",)
    refused = {"unseen": ({"tokens": ["a"], "pos_tags": ["VERB"]}, "tag VERB.*ADJ, OTHER")}

    def row(self, said: list[str]) -> dict[str, Any]:
        return {"tokens": said, "pos_tags": ["ADJ" if good([w]) else "OTHER" for w in said]}


class TestPromptsWithCompletions(TaskChecks):
    task = "causal_lm"
    text = ("prompt",)
    label = "completion"
    families = DECODERS
    fast = ("llama", "qwen2", "qwen3")

    def row(self, said: list[str]) -> dict[str, Any]:
        return {"prompt": " ".join(said), "completion": "it is " + " ".join(reversed(said[:3]))}


class TestPlainText(TaskChecks):
    task = "causal_lm"
    label = None
    families = DECODERS
    fast = ("llama", "qwen2", "qwen3")

    def row(self, said: list[str]) -> dict[str, Any]:
        return {"text": f"the film is {' '.join(said)}"}


class TestChats(TaskChecks):
    task = "causal_lm"
    text = ("messages",)
    label = None
    families = DECODERS
    fast = ("llama", "qwen2", "qwen3")
    refused = {"nobody": ({"messages": [{"role": "nobody", "content": "a film"}]}, "nobody")}

    def row(self, said: list[str]) -> dict[str, Any]:
        answer = "it is " + " ".join(reversed(said[:3]))
        turns = (("user", " ".join(said)), ("assistant", answer))
        return {"messages": [{"role": role, "content": content} for role, content in turns]}

    def tokenizer(self, family: str) -> Any:
        tokenizer = super().tokenizer(family)
        tokenizer.chat_template = (
            "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} <|endoftext|> {% endfor %}"
            "{% if add_generation_prompt %}assistant {% endif %}"
        )
        return tokenizer


class TestSeq2Seq(TaskChecks):
    task = "seq2seq"
    text = ("source",)
    label = "target"
    families = ("t5", "bart")
    fast = ()

    def row(self, said: list[str]) -> dict[str, Any]:
        return {"source": " ".join(said), "target": "it is " + " ".join(reversed(said[:3]))}


CHECKED: list[type[TaskChecks]] = [
    value
    for value in list(globals().values())
    if isinstance(value, type) and issubclass(value, TaskChecks) and value is not TaskChecks
]


def test_every_task_is_checked_on_every_architecture_that_has_a_head_for_it() -> None:
    """One form of each; further forms of a task on one of each kind."""
    assert {checks.task for checks in CHECKED} == set(tasks)
    for name in tasks:
        forms = [checks for checks in CHECKED if checks.task == name]
        families = {family for checks in forms for family in checks.families}
        assert families == set(heads(forms[0]().made())), name


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_whose_texts_end_with_the_token_that_pads(family: str) -> None:
    checks = TestSequenceClassification()
    tokenizer = ending_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    found = subject(checks.made(), family, tokenizer)
    assert found.tuned.tokenizer.pad_token_id == found.tuned.tokenizer.eos_token_id
    found.tuned.tokenizer.padding_side = "left"
    check_alone(found, checks.rows(4, odd=True))
