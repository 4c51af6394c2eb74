import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("two_processes.py")),
            str(tmp_path_factory.mktemp("runs")),
        ],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [len(found[name]["weights"]) for name in ("one", "two", "whole", "killed")] == [
        1, 2, 2, 2,
    ], done.stderr  # fmt: skip
    return found


def test_two_processes_train_as_one_with_twice_the_batch(report):
    (one,), (two, _) = report["one"]["weights"], report["two"]["weights"]
    for name in one:
        torch.testing.assert_close(torch.tensor(two[name]), torch.tensor(one[name]))
    for ours, theirs in zip(report["two"]["metrics"], report["one"]["metrics"], strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)
        assert ours["step"] == theirs["step"]


def test_processes_stay_alike_and_resume_exactly(report):
    whole, other = report["whole"]["weights"]
    assert whole == other
    assert report["killed"]["weights"] == [whole, whole]
