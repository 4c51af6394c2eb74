"""How a new head begins."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import lorafit
from lorafit.config import Config, DataConfig, ModelConfig, TrainConfig
from lorafit.data.batches import fetch
from lorafit.errors import ConfigError
from lorafit.testing.subject import beginners, saved, tokenizer_for
from lorafit.training import head
from lorafit.training.learner import Learner
from tests.conformance.test_tasks import TestSequenceClassification as Classes

CHECKS = Classes()
PLAIN: dict[str, Any] = {
    "strategy": "none",
    "max_steps": 6,
    "per_device_train_batch_size": 8,
    "progress": False,
}


def configured(**settings: Any) -> Config:
    model = ModelConfig(name_or_path="memory", **settings)
    train = TrainConfig(num_train_epochs=3, per_device_eval_batch_size=8)
    return Config(model=model, data=DataConfig(path="memory"), train=train)


def beginner(family: str = "bert") -> tuple[Learner, list[str]]:
    learners = beginners(CHECKS.made(), family, CHECKS.tokenizer(family), CHECKS.rows)
    _, learner, new = next(iter(learners))
    return learner, new


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("base")
    return Path(saved(CHECKS.made(), "bert", tokenizer_for("bert"), folder))


def test_it_is_what_scikit_learn_solves_for() -> None:
    """The same weights held back as strongly have the same validation loss."""
    learner, new = beginner()
    found = head.begin(learner, configured(), new)
    inputs: list[np.ndarray] = []
    layer: Any = next(
        module
        for path, module in learner.model.named_modules()
        if path.startswith("classifier")
        and type(module) is torch.nn.Linear
        and module.weight.requires_grad
    )
    handle = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].numpy()))
    for split in (learner.train, learner.validation):
        learner.engine.logits(learner.engine.collate(fetch(split, list(range(len(split))))))
    handle.remove()
    x, held = inputs
    labels, right = (np.asarray(s["labels"]) for s in (learner.train, learner.validation))
    mean, spread = x.mean(axis=0), np.sqrt((x**2).mean(axis=0))
    losses = []
    start = -np.log(np.bincount(labels) / len(labels))[labels].mean()
    # What dropout comes to: 1/9, by the mean of p (1 - p) at equal classes.
    weakest = 0.25 / 9
    for held_back in (*head.HELD_BACK[: head.HELD_BACK.index(1 / 16) + 1], weakest / np.log(2)):
        # Its weights of two classes are one vector, of which both rows here have half.
        decay = held_back * np.log(2) / 2
        theirs = LogisticRegression(C=1 / (decay * len(x)), max_iter=2000, tol=1e-8)
        theirs.fit((x - mean) / spread, labels)
        said = theirs.predict_log_proba((held - mean) / spread)
        losses.append(-said[np.arange(len(right)), right].mean())
    assert start > min(losses), "nothing to learn here"
    assert found.loss == pytest.approx(min(losses), rel=0.02)


def test_a_random_head_is_left_as_it_was_drawn() -> None:
    learner, new = beginner()
    assert not head.wanted(learner, configured(head_init="random"), new)
    assert head.tokens_read(learner, configured(head_init="random"), new) == 0


def test_a_head_that_is_not_new_is_left_alone() -> None:
    learner, _ = beginner()
    assert not head.wanted(learner, configured(), [])


def test_what_reading_costs_is_known_before() -> None:
    learner, new = beginner()
    assert head.begin(learner, configured(), new).tokens == head.tokens_read(
        learner, configured(), new
    )


def test_the_reason_names_both_losses_with_equally_many_digits() -> None:
    learner, new = beginner()
    found = head.begin(learner, configured(), new)
    assert found.choice.value == "probe"
    assert found.reason.startswith("the best linear layer on the base model's features of ")
    assert found.reason.endswith(
        f": validation loss {found.loss:.4f} before any training, {found.loss_before:.4f} if random"
    )


def test_more_answers_than_examples_are_not_solved_for() -> None:
    learner, new = beginner()
    few = replace(learner, train=learner.train.select(range(3)))
    found = head.begin(few, configured(), new)
    assert not found.weights
    assert "3 examples are too few" in found.reason
    assert found.choice.value == "random"


def test_it_is_among_the_choices_and_in_every_kind_of_run(base: Path, tmp_path: Path) -> None:
    given = {**PLAIN, "runs_dir": str(tmp_path)}
    plain = lorafit.train(base, CHECKS.splits(), **given)
    drawn = lorafit.train(base, CHECKS.splits(), head_init="random", **given)
    assert plain.choices["head_init"].value == "probe"
    evidence = plain.choices["head_init"].evidence
    assert evidence["loss"] < evidence["loss_before"]
    assert "head_init" not in drawn.choices
    first, other = (run.evaluation.tuned["nll"].value for run in (plain, drawn))
    assert first < other
    searched = lorafit.train(
        base,
        CHECKS.splits(),
        num_train_epochs=5,
        per_device_train_batch_size=8,
        runs_dir=str(tmp_path),
        progress=False,
    )
    assert searched.choices["head_init"].value == "probe"
    assert searched.choosing_cost["phases"]["head"]["evaluated_tokens"] > 0


def test_a_word_that_is_none_is_refused(base: Path, tmp_path: Path) -> None:
    wrong: Any = "zero"
    with pytest.raises(ConfigError, match=r"head_init.*probe.*random"):
        lorafit.train(base, CHECKS.splits(), head_init=wrong, runs_dir=str(tmp_path))
    assert not any(tmp_path.iterdir())
