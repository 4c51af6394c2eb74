"""Folders of runs that came from elsewhere: what is in them is bounded, and is files."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lorafit
from lorafit import regular
from lorafit.errors import RunError
from lorafit.report.refresh import refresh
from lorafit.run.listing import list_runs
from tests.faults import finished
from tests.faults.finished import copied, outcome

LONGEST_S = 60
"""What waits for a pipe waits for ever."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return copied(made, tmp_path / "runs" / "first")


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    def late(*_: Any) -> None:
        pytest.fail("it waits for something that never comes")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def bomb(file: Path) -> None:
    """Predictions of 120 kB whose texts are more than a gigabyte."""
    texts = pa.DictionaryArray.from_arrays(np.zeros(1_100_000, np.int32), ["x" * 1_000])
    pq.write_table(pa.table({"text": texts}), file)


def test_predictions_that_fill_the_memory_are_a_problem_of_the_page(run: Path) -> None:
    file = run / "predictions.parquet"
    assert len(lorafit.Run(run).predictions)
    bomb(file)
    assert file.stat().st_size < 10**6
    with pytest.raises(RunError, match="it unpacks to more than"):
        _ = lorafit.Run(run).predictions
    refresh(run)
    page = (run / "report.html").read_text("utf-8")
    assert "predictions.parquet is damaged: it unpacks to more than" in page


NAMES = (
    *("config.yaml", "status.json", "choices.json", "data.json", "environment.json", "eval.json"),
    *("metrics.jsonl", "trials.jsonl", "predictions.parquet", "report.html", ".lock.pid"),
    *("adapter/README.md", "adapter/adapter_config.json", "adapter/lorafit.json"),
    "adapter/adapter_model.safetensors",
)
PLACED: dict[str, Callable[[Path], None]] = {
    "a pipe": lambda file: os.mkfifo(file),
    "a link to a device": lambda file: file.symlink_to("/dev/zero"),
}
CALLS: dict[str, Callable[[Path], Any]] = {
    "report": refresh,
    "runs": lambda run: list_runs(run.parent),
    "load": lorafit.load,
}


@pytest.mark.parametrize("kind", PLACED)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_file_is_not_read(name: str, kind: str, run: Path) -> None:
    (run / name).unlink(missing_ok=True)
    PLACED[kind](run / name)
    for call in CALLS.values():
        error = outcome(lambda call=call: call(run))  # type: ignore[misc]
        assert error is None or len(str(error).splitlines()) == 1


def test_a_regular_file_is_one_or_a_link_to_one(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("a film", encoding="utf-8")
    link.symlink_to(file)
    assert regular.read_text(file) == regular.read_text(link) == "a film"
    with pytest.raises(OSError, match="not a regular file"):
        regular.read_text(tmp_path)
    with pytest.raises(FileNotFoundError):
        regular.check(tmp_path / "none")
