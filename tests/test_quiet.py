from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import datasets
import pytest
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
from huggingface_hub.utils.tqdm import tqdm as hub_bar
from transformers import modeling_gguf_pytorch_utils as gguf
from transformers.utils import logging as transformers_logging

from lorafit import quiet
from lorafit.adapt import Adapters
from lorafit.export import merged
from lorafit.methods.lora import LoraConfig
from tests.tiny import classifier


def state() -> tuple[Any, ...]:
    """All that the silencers change."""
    return (
        transformers_logging.is_progress_bar_enabled(),
        transformers_logging.get_verbosity(),
        datasets.are_progress_bars_disabled(),
        datasets.utils.logging.get_verbosity(),
        are_progress_bars_disabled(),
        os.environ.get("DISABLE_SAFETENSORS_CONVERSION"),
        vars(gguf)["tqdm"],
        logging.getLogger("lorafit").level,
        logging.getLogger("lorafit.model").level,
    )


@pytest.fixture
def loud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every bar on, whatever the suite runs under."""
    # The suite's environment turns them off for good.
    client = sys.modules["huggingface_hub.utils.tqdm"]
    monkeypatch.setattr(client, "HF_HUB_DISABLE_PROGRESS_BARS", None)
    before = transformers_logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    transformers_logging.enable_progress_bar()
    datasets.enable_progress_bars()
    yield
    if not before[0]:
        transformers_logging.disable_progress_bar()
    if before[1]:
        disable_progress_bars()


@pytest.mark.parametrize(
    "silence",
    [
        quiet.bars,
        quiet.others,
        lambda: quiet.bars(downloads=True),
        lambda: quiet.others(downloads=True),
        quiet.saying_less,
        lambda: quiet.saying_less("lorafit"),
    ],
)
def test_everything_is_as_before_afterwards(
    loud: None, silence: Callable[[], AbstractContextManager[None]]
) -> None:
    before = state()
    with silence(), silence():
        assert state() != before
    assert state() == before
    with pytest.raises(ZeroDivisionError), silence():
        raise ZeroDivisionError
    assert state() == before


def test_bars_of_the_hub_that_were_off_stay_off(loud: None) -> None:
    disable_progress_bars()
    before = state()
    with quiet.others(downloads=True):
        assert are_progress_bars_disabled()
    assert state() == before


def test_bars_of_downloads_stay_where_they_are_wanted(loud: None) -> None:
    with quiet.others(downloads=True):
        assert not are_progress_bars_disabled()
        with quiet.others():
            assert are_progress_bars_disabled()
        assert not are_progress_bars_disabled()


def test_no_bar_is_drawn_inside(loud: None, capfd: pytest.CaptureFixture[str]) -> None:
    def draw() -> None:
        for bar in (transformers_logging.tqdm, vars(gguf)["tqdm"], hub_bar):
            list(bar(range(3), desc="bar"))

    with quiet.bars():
        draw()
    assert capfd.readouterr().err == ""
    draw()
    assert capfd.readouterr().err.count("bar: 100%") == 3


def test_messages_stay_unless_asked(loud: None) -> None:
    level = transformers_logging.get_verbosity()
    with quiet.bars():
        assert transformers_logging.get_verbosity() == level
    with quiet.others():
        assert transformers_logging.get_verbosity() == logging.ERROR


def test_a_merged_model_is_written_without_a_bar(
    loud: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    adapters = Adapters(classifier("distilbert"))
    adapters.add(LoraConfig(r=2, target_modules="all-linear"))
    merged.save(adapters, tmp_path / "merged")
    assert (tmp_path / "merged" / "config.json").is_file()
    assert capfd.readouterr().err == ""
