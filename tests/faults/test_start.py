"""The program that is stopped while it still loads says so in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lorafit

CODE = """
import os, sys
seen = 0
def hook(event, args):
    global seen
    if event == "import":
        seen += 1
        if seen == {at}:
            os.kill(os.getpid(), {number})
sys.argv = ["lorafit", "runs", "--json"]
from lorafit.__main__ import main
sys.addaudithook(hook)
main()
"""


@pytest.mark.parametrize("at", [1, 2, 20, 60, 120, 160])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_any_import_is_one_line(tmp_path: Path, number: int, at: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CODE.format(at=at, number=int(number))],
        env=os.environ | {"PYTHONPATH": str(Path(lorafit.__file__).parents[1])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert ended.stderr == f"Interrupted: stopped by {name}.\n"
    assert ended.returncode == 128 + number
