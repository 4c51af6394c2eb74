import json
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMES = {"time_s", "tokens_per_s", "peak_memory_bytes"}


def test_killed_and_resumed_run_ends_bit_for_bit_as_an_uninterrupted_one(tmp_path):
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed.py")), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    whole = report.pop("whole")
    assert whole["exits"] == [0]

    def without_times(metrics):
        return [{k: v for k, v in line.items() if k not in TIMES} for line in metrics]

    assert len(report) >= 6
    for scenario, found in report.items():
        assert found["exits"] == [-signal.SIGKILL] * (len(found["exits"]) - 1) + [0], scenario
        assert found["final"] == whole["final"], scenario
        assert without_times(found["metrics"]) == without_times(whole["metrics"]), scenario
        assert found["checkpoints"] == whole["checkpoints"], scenario
