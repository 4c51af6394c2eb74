"""Of every registered task: who answers the same to everything has learned nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from lorafit.comparison import yardsticks
from lorafit.comparison.outcome import _margin
from lorafit.comparison.recommendation import recommend
from lorafit.evaluation.score import Scores
from lorafit.evaluation.seeds import Measure
from lorafit.evidence import Interval
from lorafit.tasks import tasks
from lorafit.tasks.base import Task
from lorafit.tasks.causal_lm import CausalLM
from lorafit.tasks.multi_label_classification import MultiLabelClassification
from lorafit.tasks.parts.generative import GenerativeTask
from lorafit.tasks.regression import Regression
from lorafit.tasks.seq2seq import Seq2Seq
from lorafit.tasks.sequence_classification import SequenceClassification
from lorafit.tasks.token_classification import TokenClassification
from tests.comparison.test_outcome import Asked, row

RANDOM = np.random.default_rng(0)


@dataclass
class Case:
    """Examples of a task, a model that knows all answers, and models that know no text."""

    task: Task
    encoded: Dataset
    labels: np.ndarray
    perfect: np.ndarray
    constant: dict[str, np.ndarray]

    def scores(self, kept: np.ndarray) -> Scores:
        return Scores(kept, self.labels, np.ones(len(kept), dtype=np.float32))

    def untuned(self) -> Scores:
        """A base that does the task half as well as can be."""
        return self.scores(halfway(self))


def halfway(case: Case) -> np.ndarray:
    kept = case.task.constant(case.encoded).kept.copy()  # type: ignore[union-attr]
    kept[::2] = case.perfect[::2]
    return kept


def classes(n: int) -> Case:
    labels = RANDOM.choice(3, n, p=[0.2, 0.5, 0.3])
    each = {
        f"{scale} for {k}": np.tile(scale * np.eye(3)[k], (n, 1))
        for k, scale in itertools.product(range(3), (1.0, 0.01, 50.0))
    }
    task = SequenceClassification(["text"], "label", ["a", "b", "c"])
    encoded = Dataset.from_dict({"labels": labels})
    return Case(task, encoded, labels, np.eye(3)[labels], each)


def several(n: int) -> Case:
    labels = (RANDOM.random((n, 3)) < [0.1, 0.4, 0.3]).astype(np.int64)
    each = {
        str(said): np.tile(np.array(said) * 2.0 - 1.0, (n, 1))
        for said in itertools.product((0, 1), repeat=3)
    }
    task = MultiLabelClassification(["text"], "labels", ["a", "b", "c"])
    return Case(task, Dataset.from_dict({"labels": labels}), labels, labels * 2.0 - 1.0, each)


def numbers(n: int) -> Case:
    labels = RANDOM.normal(3.0, 2.0, n).astype(np.float32)
    each = {str(k): np.full((n, 1), k) for k in (0.0, float(labels.mean()), 9.0)}
    encoded = Dataset.from_dict({"labels": labels})
    return Case(Regression(["text"], "score"), encoded, labels, labels[:, None], each)


def tags(names: list[str], p: list[float]) -> Callable[[int], Case]:
    def made(n: int) -> Case:
        task = TokenClassification(["words"], "tags", names)
        labels = RANDOM.choice(len(names), (n, 7), p=p)
        labels[:, 0] = -100  # a special token

        def kept(said: np.ndarray) -> np.ndarray:
            logits = torch.eye(len(names))[torch.from_numpy(np.maximum(said, 0))]
            return task.keep(logits, torch.from_numpy(labels))[0]

        words = np.full(n, 6)
        each = {name: kept(np.full_like(labels, k)) for k, name in enumerate(names)}
        encoded = Dataset.from_dict({"labels": labels})
        return Case(task, encoded, words, kept(labels), each)

    return made


def texts(task: GenerativeTask) -> Callable[[int], Case]:
    def made(n: int) -> Case:
        labels = RANDOM.choice(5, (n, 9), p=[0.4, 0.3, 0.1, 0.1, 0.1])
        labels[:, :3] = -100  # the prompt
        learned = labels[:, 3:]
        counts = np.full(n, learned.shape[1])

        def unigrams(p: np.ndarray) -> np.ndarray:
            right = (learned == p.argmax()).sum(axis=1)
            return np.stack([-np.log(p)[learned].sum(axis=1), right], axis=1)

        often = np.bincount(learned.ravel(), minlength=5) / learned.size
        each = {"frequencies": unigrams(often), "uniform": unigrams(np.full(5, 0.2))}
        each["between"] = unigrams(0.5 * often + 0.1)
        perfect = np.stack([np.full(n, 0.01), counts], axis=1)
        return Case(task, Dataset.from_dict({"labels": labels}), counts, perfect, each)

    return made


CASES: dict[str, Callable[[int], Case]] = {
    "sequence_classification": classes,
    "multi_label_classification": several,
    "regression": numbers,
    "token_classification": tags(["O", "B-PER", "I-PER", "B-LOC"], [0.6, 0.2, 0.1, 0.1]),
    "token_classification of single tags": tags(["NOUN", "VERB", "DET"], [0.5, 0.3, 0.2]),
    "token_classification mostly inside": tags(["O", "B-X", "I-X"], [0.1, 0.7, 0.2]),
    "causal_lm": texts(CausalLM(["prompt"], "completion")),
    "seq2seq": texts(Seq2Seq(["source"], "target")),
}


SIZES = [
    pytest.param(make, n, id=f"{name}, {n} examples")
    for (name, make), n in itertools.product(CASES.items(), (12, 100))
]


def test_every_registered_task_is_here() -> None:
    assert {name.split()[0] for name in CASES} >= set(tasks)


def found(case: Case, kept: np.ndarray, seeds: int = 1) -> yardsticks.Beside:
    simple = yardsticks.find(case.task, case.encoded, case.untuned)
    measure = Measure(case.task, case.task.metric)
    beside = yardsticks.beside([case.scores(kept)] * seeds, simple, measure)
    assert beside is not None
    return beside


@pytest.mark.parametrize(("make", "n"), SIZES)
def test_a_constant_answer_is_never_ranked_and_a_perfect_one_is(
    make: Callable[[int], Case], n: int
) -> None:
    case = make(n)
    seeds = 3 if n == 12 else 1
    for name, kept in case.constant.items():
        assert not found(case, kept, seeds).learned, name
    assert found(case, case.perfect, seeds).learned


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_what_a_task_calls_its_constant_answer_is_one(make: Callable[[int], Case]) -> None:
    """It is among all constant answers, and none of them is better by the headline metric."""
    case = make(100)
    constant, metric = case.task.constant(case.encoded), case.task.metrics[case.task.metric]
    assert constant is not None
    sign = 1 if case.task.greater_is_better else -1
    values = [sign * metric(kept, case.labels) for kept in case.constant.values()]
    assert sign * metric(constant.yardstick, case.labels) == pytest.approx(max(values))
    assert sign * metric(constant.kept, case.labels) <= max(values) + 1e-5


@pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
def test_nobody_is_recommended_where_all_answer_the_same(make: Callable[[int], Case]) -> None:
    case = make(60)
    simple = yardsticks.find(case.task, case.encoded, case.untuned)
    kept = {f"m{at}": one for at, one in enumerate(case.constant.values())}
    measure = Measure(case.task, case.task.metric)
    metric = case.task.metrics[case.task.metric]
    arms, runs = {}, {}
    for at, (name, one) in enumerate(kept.items()):
        runs[name] = [case.scores(one)]
        beside = yardsticks.beside(runs[name], simple, measure)
        assert beside is not None
        arms[name] = row(metric(one, case.labels), 10 - at).model_copy(
            update={
                "beside_constant": beside.difference,
                "yardstick": beside.way,
                "learned": beside.learned,
            }
        )
    none = recommend(arms, runs, Asked(), case.task, 0.01)  # type: ignore[arg-type]
    assert none.method is None
    assert f"none is better than {arms['m0'].yardstick} (" in none.sentence
    assert "Train longer: --num-train-epochs" in none.sentence
    runs["best"] = [case.scores(case.perfect)]
    arms["best"] = row(metric(case.perfect, case.labels), 100)
    best = recommend(arms, runs, Asked(), case.task, 0.01)  # type: ignore[arg-type]
    assert best.method == "best"
    assert "Learned nothing, and not ranked: m0" in best.sentence
    assert "train longer" in best.sentence


@pytest.mark.parametrize("name", ["causal_lm", "seq2seq"])
def test_of_written_text_the_base_model_is_a_yardstick_too(name: str) -> None:
    """Who only writes as the base does has learned nothing, however far from unigrams that is."""
    case = CASES[name](200)
    base = found(case, case.untuned().logits)
    assert (base.way, base.learned) == (yardsticks.UNTUNED, False)
    worse = case.untuned().logits.copy()
    worse[:, 0] += RANDOM.random(len(worse))
    assert not found(case, worse).learned
    better = case.untuned().logits.copy()
    better[:, 0] *= 0.8
    assert found(case, better).learned


def test_the_yardsticks_of_an_arm_are_read_as_they_were_written(tmp_path: Path) -> None:
    case = CASES["causal_lm"](10)
    simple = yardsticks.find(case.task, case.encoded, case.untuned)
    assert yardsticks.read(tmp_path) == []
    yardsticks.write(tmp_path, simple)
    again = yardsticks.read(tmp_path)
    assert [one.way for one in again] == [one.way for one in simple]
    assert all(np.array_equal(a.kept, b.kept) for a, b in zip(again, simple, strict=True))


def test_a_task_without_a_constant_answer_holds_nothing_against_anyone() -> None:
    case = CASES["regression"](20)
    measure = Measure(case.task, "spearman")
    assert yardsticks.beside([case.scores(case.perfect)], [], measure) is None


def test_one_method_that_fails_does_not_widen_what_counts_as_equal() -> None:
    """Of a perplexity 1 % of the best method's, not of one that diverged."""
    arms = {"full": row(9e6, 100), "lora": row(8.0, 10)}
    assert _margin(arms, CASES["causal_lm"](5).task) == pytest.approx(0.08)
    assert _margin(arms, CASES["sequence_classification"](5).task) == 0.01


def test_the_difference_that_counts_is_to_the_best_yardstick() -> None:
    case = CASES["token_classification"](100)
    only_one = found(case, case.constant["B-PER"])
    assert isinstance(only_one.difference, Interval)
    assert only_one.difference.value <= 0
    assert case.task.metrics["f1"](case.constant["O"], case.labels) == 0.0
