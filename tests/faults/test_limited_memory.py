"""A training under a real limit on its memory (``RLIMIT_AS``), in a process of its own."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lorafit.pipeline.room import _doubling, _expected, _parts

ROOT = Path(__file__).parents[2]


def limited(folder: Path, mib: int) -> dict[str, Any]:
    """What became of a training with so much memory beside what the imports took."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.limited", str(folder), str(mib)],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_step_without_room_is_computed_in_parts_from_the_start(tmp_path: Path) -> None:
    found = limited(tmp_path, 600)
    assert found["parts"] > 1
    (said,) = found["said"]
    assert said.startswith("a step of 64 examples would take about ")
    assert "the effective batch stays the same" in said


def test_with_hardly_any_memory_a_run_is_refused_or_ends_in_parts(tmp_path: Path) -> None:
    """Before anything is begun or in the first step: memory that the allocator kept from an earlier
    training of the process makes a step that is tried look smaller than it is. Never in an error
    of torch."""
    found = limited(tmp_path, 40)
    if "error" not in found:
        assert found["parts"] > 1
        return
    refused = "of memory is free for training, and a step of one example" in found["error"]
    assert refused or "out of memory" in found["error"]
    assert found["error"].startswith("TrainingError: ")
    assert refused != found["begun"]


@pytest.mark.parametrize("batch", [1, 2, 3, 8, 24, 33])
@pytest.mark.parametrize("fits", [1, 2, 5, 8])
def test_parts_are_a_power_of_two_and_as_few_as_fit(batch: int, fits: int) -> None:
    parts = _parts(batch, fits)
    assert parts.bit_count() == 1
    assert -(-batch // parts) <= fits
    assert parts == 1 or -(-batch // (parts // 2)) > fits


@pytest.mark.parametrize("batch", [1, 2, 3, 8, 24])
def test_steps_that_are_tried_double_up_to_the_batch(batch: int) -> None:
    ladder = _doubling(batch)
    assert ladder[0] == 1
    assert ladder[-1] == batch
    assert all(a < b <= 2 * a for a, b in itertools.pairwise(ladder))


def test_what_a_step_takes_is_expected_on_the_line_through_the_last_two() -> None:
    assert _expected([(10, 500)], 20) == 1_000
    assert _expected([(10, 500), (20, 700)], 40) == 1_100
    assert _expected([(10, 500), (20, 700)], 15) == 700
