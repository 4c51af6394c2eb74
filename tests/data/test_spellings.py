from __future__ import annotations

import logging
from typing import Any

import pytest
from datasets import Dataset

from lorafit.config import DataConfig
from lorafit.data.read.source import load_splits
from lorafit.data.spellings import spelled_as

LABELS = ["Login", "login ", "Login", "other", " Other", "other"]


def cleaned(rows: Any, **config: Any) -> dict[str, list[Any]]:
    settings = DataConfig(path="", clean_labels=True, **config)
    return {name: split["label"][:] for name, split in load_splits(rows, settings).items()}


def rows(labels: list[Any]) -> list[dict[str, Any]]:
    return [{"text": f"a text about {n}", "label": label} for n, label in enumerate(labels)]


def test_labels_take_the_most_frequent_spelling_of_train(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "lorafit"):
        found = cleaned({"train": rows(LABELS), "test": rows(["LOGIN", "New ", None])})
    assert found == {
        "train": ["Login", "Login", "Login", "other", "other", "other"],
        "test": ["Login", "New", None],
    }
    assert """column "label": 'login ', 'LOGIN' counted as 'Login'""" in caplog.text


def test_a_label_that_only_loses_its_spaces_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lorafit"):
        found = cleaned(rows(["yes ", "no", "yes "]))
    assert found == {"train": ["yes", "no", "yes"]}
    assert """column "label": 'yes ' counted as 'yes'""" in caplog.text


def test_lists_of_labels_and_numbers() -> None:
    sets = [["Rude", "rude "], ["rude ", "rude "], []]
    assert cleaned(rows(sets)) == {"train": [["rude", "rude"], ["rude", "rude"], []]}
    assert cleaned(rows([1, 2, 1])) == {"train": [1, 2, 1]}


def test_without_the_setting_labels_stay_as_they_are() -> None:
    found = load_splits(rows(LABELS), DataConfig(path=""))["train"]["label"][:]
    assert found == LABELS


def test_other_data_take_the_spelling_that_a_task_knows() -> None:
    data = Dataset.from_list(rows(["login", "LOGIN", "odd"]))
    assert spelled_as(data, ["label"], ["Login", "other"])["label"][:] == ["Login", "Login", "odd"]
