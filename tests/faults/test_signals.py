"""The real program is stopped at any moment: one line, the exit code of shells, the way back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lorafit.run import Run
from tests import tiny_text

MOMENTS_S = (0.02, 0.05, 0.1, 0.2, 0.3, 0.6, 1.2, 2.5)
"""After the start: while Python, lorafit, torch and the model load."""


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    tiny_text.save_base(folder / "base", "bert")
    for split, rows in tiny_text.splits(24).items():
        rows.to_json(folder / "data" / f"{split}.jsonl")
    return folder


def begin(top: Path, runs: Path) -> subprocess.Popen[str]:
    """``lorafit train``, that would take for ever, as its console script starts it."""
    settings = {"max_steps": 10**6, "per_device_train_batch_size": 2, "bf16": "false"}
    given = [
        part for name, value in settings.items() for part in ("--set", f"train.{name}={value}")
    ]
    where = ["--set", f"run.dir={runs}", "--name", "it", "--strategy", "none"]
    return subprocess.Popen(
        [sys.executable, "-m", "lorafit", "train", "base", "data", *where, *given],
        cwd=top,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def ended(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """What it says after a signal."""
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    return said


def had_begun(said: str, code: int, number: signal.Signals) -> bool:
    """Whether lorafit had begun to run: what Python says before that is not ours to change."""
    untold = code == -number and not said
    return not untold and ("Traceback" not in said or ", in main\n" in said)


@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_a_signal_while_the_program_starts_is_one_line(
    number: signal.Signals, top: Path, tmp_path: Path
) -> None:
    by_name = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
    heard = 0
    for moment in MOMENTS_S:
        process = begin(top, tmp_path / f"{moment}")
        time.sleep(moment)
        said = ended(process, number)
        if not had_begun(said, process.returncode, number):
            continue
        heard += 1
        assert process.returncode == 128 + number, (moment, said)
        assert "Traceback" not in said, (moment, said)
        lines = [line for line in said.splitlines() if "nterrupted" in line]
        assert len(lines) == 1, (moment, said)
        assert f"stopped by {by_name[number]}" in lines[0]
    assert heard >= len(MOMENTS_S) // 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_training_says_how_to_go_on(
    number: signal.Signals, top: Path, tmp_path: Path
) -> None:
    process = begin(top, tmp_path / "runs")
    deadline = time.monotonic() + 120
    while not (tmp_path / "runs" / "it" / "metrics.jsonl").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    said = ended(process, number)
    assert process.returncode == 128 + number, said
    assert "Traceback" not in said, said
    run = tmp_path / "runs" / "it"
    assert f"lorafit train --resume {run}" in " ".join(said.split()), said
    assert Run.open(run).summary.status == "interrupted"
