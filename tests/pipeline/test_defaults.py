"""Why a default is what it is: said for the kind of model that is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

import lorafit
from tests import tiny_text

BRIEF: dict[str, Any] = {"max_steps": 2, "tune.strategy": "none", "progress": False, "bf16": False}


def reason(base: Path, data: Dataset | DatasetDict, folder: Path) -> str:
    run = lorafit.train(base, data, **(BRIEF | {"run.dir": str(folder)}))
    return run.choices["learning_rate"].reason


def test_the_reason_of_the_rate_is_one_for_the_kind_of_model(tmp_path: Path) -> None:
    encoder = tiny_text.save_base(tmp_path / "encoder", "distilbert")
    writer = tiny_text.save_language_model(tmp_path / "writer")
    of_encoder = reason(encoder, tiny_text.splits(64), tmp_path)
    of_writer = reason(writer, tiny_text.prompts(), tmp_path)
    assert "on movie reviews with a small encoder" in of_encoder
    assert "encoder" not in of_writer
    assert "larger ones want less" in of_writer
    for found in (of_encoder, of_writer):
        assert found.startswith("default: LoRA wants about ten times")
