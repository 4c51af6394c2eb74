"""A training that is killed, stopped or out of disk, at any of its file operations, goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lorafit

SOURCE = Path(lorafit.__file__).parents[1]
TESTS = Path(__file__).parents[2]


def faults(scenario: str, folder: Path) -> list[dict[str, Any]]:
    """What became of each training of a scenario."""
    path = os.pathsep.join([str(SOURCE), str(TESTS)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.program", scenario, str(folder)],
        env=os.environ | {"PYTHONPATH": path, "HF_HOME": str(folder / "cache")},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    assert found
    return found


def check_went_on(found: dict[str, Any]) -> None:
    """The run came to the same weights as one without a fault, and its folder is clean."""
    assert found["equal"], found
    assert found["report"], found
    assert found["leftover"] == [], found
    if found["then"] != "SystemExit: 0":
        # Nothing was missing any more.
        assert "is finished; there is nothing to resume" in found["then_said"], found
    assert found["status"] in (None, "interrupted", "failed", "done"), found


def test_a_run_that_is_killed_before_any_file_operation_goes_on(tmp_path: Path) -> None:
    for found in faults("killed", tmp_path):
        assert found["code"] == -9, found
        check_went_on(found)


def test_a_full_disk_is_named_first_with_what_to_do_and_the_run_goes_on(tmp_path: Path) -> None:
    wrong = {"checkpoints/": "the checkpoint", "tokenizer": "the tokenizer", "report": "the report"}
    for found in faults("full", tmp_path):
        assert found["exit"] in ("SystemExit: 2", "SystemExit: 0"), found
        if found["exit"] == "SystemExit: 2":
            assert found["said"].count("No space left on device") == 1, found
            assert "What to do: free some disk space" in found["said"], found
            for place, named in wrong.items():
                if found["operation"].startswith("open") and place in found["operation"]:
                    assert f"cannot write {named} " in found["said"], found
        check_went_on(found)


def test_a_stopped_run_says_how_to_go_on_in_one_line(tmp_path: Path) -> None:
    results = faults("signals", tmp_path)
    assert {found["exit"] for found in results} == {"SystemExit: 130", "SystemExit: 143"}
    for found in results:
        assert found["said"].count("Interrupted: ") == 1, found
        assert found["said"].count("lorafit train --resume ") == 1, found
        assert "Traceback" not in found["said"], found
        assert found["status"] == "interrupted", found
        check_went_on(found)
