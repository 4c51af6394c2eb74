"""A task from another package brings its own metrics: no file of ours knows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from scipy.special import softmax

from lorafit.config import Config, DataConfig, ModelConfig
from lorafit.console import show_evaluation
from lorafit.evidence import Evaluation, MetricInfo
from lorafit.export.card import Card, metadata, render
from lorafit.pipeline.measure import evaluation
from lorafit.run import RunWriter
from lorafit.tasks.parts.metrics import Metric
from lorafit.tasks.sequence_classification import SequenceClassification
from tests.evaluation.test_compare import better
from tests.evaluation.test_score import random_scores
from tests.report import folders
from tests.report.page import Page
from tests.report.test_html import page_of


def brier(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean squared distance of the probabilities from the truth."""
    truth = np.eye(logits.shape[1])[labels]
    return float(((softmax(logits, axis=-1) - truth) ** 2).sum(axis=-1).mean())


class MadeUp(SequenceClassification):
    """Not registered: the page is made where its package may be missing."""

    name = "made_up"
    metric = "brier"

    @property
    def metrics(self) -> dict[str, Metric]:
        about = "how far the probabilities are from the truth; lower is better"
        info = MetricInfo("Brier score", about, greater_is_better=False, low=0, high=2, hub="brier")
        return {
            "brier": Metric(brier, info),
            "plain_loss": brier,  # type: ignore[dict-item]  # as tasks had them before
        }


TASK = MadeUp(["text"], "label", ["a", "b", "c"])


@pytest.fixture(scope="module")
def found() -> Evaluation:
    config = Config(model=ModelConfig(name_or_path="m"), data=DataConfig(path="d"))
    base = random_scores(80)
    encoded = Dataset.from_dict({"labels": base.labels})
    return evaluation(base, better(base, by=3.0), TASK, encoded, config)


def page(found: Evaluation, folder: Path) -> Page:
    run = RunWriter(folders.finished(folder))
    run.write_evaluation(found)
    return page_of(run.path)


def test_the_page_knows_which_way_it_is_better(found: Evaluation, tmp_path: Path) -> None:
    said = page(found, tmp_path / "run").said
    assert "Better than the base model" in said
    assert "the tuned model reaches Brier score (lower is better)" in said
    assert "how far the probabilities are from the truth; lower is better" in said


def test_of_a_metric_without_a_description_nothing_is_claimed(
    found: Evaluation, tmp_path: Path
) -> None:
    assert found.info("plain_loss").greater_is_better is None
    said = page(found, tmp_path / "run").said
    assert "Plain loss" in said
    assert said.count("▲ better") == 2  # the Brier score and the loss


def test_its_interval_is_within_its_own_bounds(found: Evaluation) -> None:
    assert TASK.greater_is_better is False
    assert 0 <= found.tuned["brier"].low <= found.tuned["brier"].high <= 2
    assert found.paired["brier"].high < 0


def test_terminal_and_card_show_it(found: Evaluation, capsys: pytest.CaptureFixture[str]) -> None:
    show_evaluation(found)
    shown = capsys.readouterr().out
    assert shown.lstrip().splitlines()[1].startswith("brier")
    config = Config(model=ModelConfig(name_or_path="m"), data=DataConfig(path="d"))
    card = Card(config, TASK, "m", {"test": 80}, 40, {}, evaluation=found)
    assert "| Brier score |" in render(card)
    assert metadata(card).metrics == ["brier"]
