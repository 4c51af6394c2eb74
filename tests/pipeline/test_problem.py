"""What is to be learned, also with tasks of other packages."""

from __future__ import annotations

import logging

import pytest
from datasets import DatasetDict

from lorafit import pipeline
from lorafit.config import Config, DataConfig, ModelConfig
from lorafit.tasks.sequence_classification import SequenceClassification
from tests import tiny_text

theirs = logging.getLogger("theirs")


def _config(task: str) -> Config:
    data = DataConfig(path="memory", label="label")
    return Config(model=ModelConfig(name_or_path="m"), data=data, task=task)


class Logging(SequenceClassification):
    """A task that knows nothing of findings: it logs, as tasks have always done."""

    name = "logging"

    @classmethod
    def from_data(cls, splits: DatasetDict, config: DataConfig) -> Logging:
        theirs.warning("two classes, as ever")
        return cls(["text"], "label", ["neg", "pos"])


def test_a_task_of_another_package_that_only_logs_is_posed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pipeline.problem, "tasks", {"logging": Logging})
    config = _config(task="logging")
    problem = pipeline.pose(tiny_text.rows(24), config)
    assert isinstance(problem.task, Logging)
    assert "two classes, as ever" in caplog.messages
    assert problem.task.findings.facts[0] == "rows: train 24"
    assert problem.task.findings.facts[1].startswith("no validation split: ")
    assert problem.task.findings.warnings == []


def test_two_problems_keep_what_was_found_apart() -> None:
    asked = _config(task="sequence_classification")
    one, other = (pipeline.pose(tiny_text.rows(n), asked).task.findings for n in (24, 30))
    assert one.facts[0] == "rows: train 24"
    assert other.facts[0] == "rows: train 30"
    assert not set(one.facts[:1]) & set(other.facts)
