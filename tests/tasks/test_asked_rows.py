"""What is no text never reaches the model, or another library."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from lorafit.config import DataConfig
from lorafit.errors import DataError
from lorafit.tasks import tasks

DATA = DatasetDict(
    {
        "train": Dataset.from_dict(
            {"text": ["a film", "a plot"], "label": ["good", "bad"], "score": [0.5, 1.5]}
        )
    }
)
WORDS = {"tokens": [["a", "film"], ["a", "plot"]], "ner_tags": [["O", "B-X"], ["O", "B-X"]]}
TAGGED = DatasetDict({"train": Dataset.from_dict(WORDS)})


@pytest.mark.parametrize("wrong", [{"a": 1}, 5, ["a"], b"a", [{"a": 1}]])
@pytest.mark.parametrize("name", ["sequence_classification", "regression", "token_classification"])
def test_only_texts_become_rows(name: str, wrong: Any) -> None:
    data = TAGGED if name == "token_classification" else DATA
    label = "score" if name == "regression" else None
    task = tasks[name].from_data(data, DataConfig(path="x", label=label))
    assert len(task.rows(["a film"])) == 1
    with pytest.raises(DataError, match=r"text 2 of 2 has \w+ .* where a text should stand"):
        task.rows(["a film", [wrong]])
