"""Arms end with the process that started them, and no two work in one folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lorafit
from lorafit.comparison.process import BUSY
from lorafit.comparison.request import arm_folder
from lorafit.run import locks
from tests import tiny_text

TOP = Path(lorafit.__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(TOP)}

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
child.wait()
"""
CHILD = """
import os, sys, time
sys.platform = {platform!r}
from lorafit.machine.parent import end_with_parent
end_with_parent(0)
print(os.getpid(), flush=True)
while True:
    {work}
"""


def alive(pid: int) -> bool:
    """Whether a process runs (one that has ended and is not waited for does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone(pid: int, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


@pytest.mark.parametrize("platform", ["linux", "another"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_with_its_parent_whatever_ends_that(
    platform: str, number: signal.Signals
) -> None:
    code = CHILD.format(platform=platform, work="time.sleep(60)")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, code], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.send_signal(number)
        assert gone(child)


def test_an_arm_does_not_work_in_a_folder_where_another_does(tmp_path: Path) -> None:
    own = arm_folder(tmp_path, "lora")
    own.mkdir(parents=True)
    code = (
        "import sys; from lorafit.comparison import process; process.PATIENCE = 0.1; "
        "sys.exit(process.main(sys.argv[1], 'lora'))"
    )
    with (
        locks.held(own, "training"),
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,  # open until the arm has ended
            stderr=subprocess.PIPE,
            text=True,
        ) as arm,
    ):
        assert arm.stderr is not None
        said = arm.stderr.read()
        assert arm.wait() == BUSY
    assert f'another process ({os.getpid()}) is training in "{own}"' in said
    assert {path.name for path in own.iterdir()} == {locks.LOCK, locks.HOLDER}


def started(folder: Path) -> subprocess.Popen[str]:
    """The command ``lorafit compare``."""
    settings = {"train.max_steps": 40, "train.bf16": "false", "run.dir": folder / "runs"}
    sets = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    command = ["compare", str(folder / "base"), str(folder / "data"), "--methods", "lora,bitfit"]
    return subprocess.Popen(
        [sys.executable, "-m", "lorafit", *command, "--seeds", "1", *sets],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )


def arm_of(folder: Path, other_than: int | None = None) -> int:
    """The process of the arm that works now."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for file in folder.glob("runs/*/arms/*/" + locks.HOLDER):
            pid = int(file.read_text() or 0)
            if pid != other_than and alive(pid):
                return pid
        time.sleep(0.02)
    raise AssertionError("no arm began")


def test_a_comparison_takes_its_arm_along_and_says_how_to_go_on(tmp_path: Path) -> None:
    tiny_text.save_base(tmp_path / "base", "bert")
    for split, rows in tiny_text.splits(24).items():
        rows.to_json(tmp_path / "data" / f"{split}.jsonl")
    with started(tmp_path) as killed:
        first = arm_of(tmp_path)
        killed.kill()
        assert gone(first)
    with started(tmp_path) as stopped:
        second = arm_of(tmp_path, first)
        stopped.send_signal(signal.SIGTERM)
        said = stopped.communicate(timeout=60)[1]
        assert gone(second)
    assert stopped.returncode == 128 + signal.SIGTERM
    assert "Interrupted: stopped. The same command goes on after the last finished run." in said
    assert "Traceback" not in said
    assert len(list((tmp_path / "runs").glob("*/request.json"))) == 1
