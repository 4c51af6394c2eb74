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

MOMENTS_S = (0.0, 0.01, 0.03, 0.1, 0.3, 0.6, 1.2, 2.5)
"""After lorafit's first line: while its commands, torch and the model load."""


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


def listens(process: subprocess.Popen[str]) -> bool:
    """Whether a process has set what it does at SIGTERM, the last of the signals it sets."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    [caught] = [line for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_signals_are_heard_before_anything_is_loaded() -> None:
    """What Python does before the first line of the program is not ours to change."""
    code = """
import sys
import lorafit.__main__ as program  # as the console script does
before = {name for name in sys.modules if name.startswith("lorafit")}
assert before == {"lorafit", "lorafit.__main__"}, before
assert "typing" not in sys.modules
import lorafit.cli, signal
heard = []
lorafit.cli.main = lambda: heard.extend(map(signal.getsignal, (2, 15)))
program.main()
assert heard == [program._leave] * 2, heard
"""
    where = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    bare = [sys.executable, "-S", "-c", code]  # -S: packages that load others at every start
    done = subprocess.run(bare, check=False, env=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_a_destructor_met_is_not_lost(number: signal.Signals) -> None:
    code = f"""
import signal, sys, time
from lorafit.machine import signals
signals.of_program()
class Meets:
    def __del__(self):
        signal.raise_signal({int(number)})
try:
    Meets()
    time.sleep(60)
except KeyboardInterrupt as stop:
    sys.exit((signals.stopped(stop)).exit_code)
"""
    where = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    found = subprocess.run(
        [sys.executable, "-c", code], check=False, env=where, capture_output=True, text=True
    )
    assert (found.returncode, found.stderr) == (128 + number, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_program_starts_is_one_line(
    number: signal.Signals, top: Path, tmp_path: Path
) -> None:
    by_name = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
    for moment in MOMENTS_S:
        process = begin(top, tmp_path / f"{moment}")
        while not listens(process):
            assert process.poll() is None
        time.sleep(moment)
        said = ended(process, number)
        assert process.returncode == 128 + number, (moment, said)
        assert "Traceback" not in said, (moment, said)
        lines = [line for line in said.splitlines() if "nterrupted" in line]
        assert len(lines) == 1, (moment, said)
        assert f"stopped by {by_name[number]}" in lines[0]


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
