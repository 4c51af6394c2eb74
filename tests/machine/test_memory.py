import os
import subprocess
import sys

from lorafit.machine.memory import peak_memory_bytes, peak_rss_bytes, reset_peak

FRESH = """
import numpy as np
from lorafit.machine.memory import peak_rss_bytes, reset_peak

reset_peak()
before = peak_rss_bytes()
block = np.ones(200_000_000, dtype=np.uint8)
grown = peak_rss_bytes()
del block
print(before, grown, peak_rss_bytes())
"""


def test_peak_grows_with_what_is_used_and_never_falls():
    # In a process of its own: in this one, memory that other tests freed would be used again.
    done = subprocess.run(
        [sys.executable, "-c", FRESH],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": "src"},
    )
    before, grown, after = map(int, done.stdout.split())
    assert before > 10**7
    assert grown >= before + 150_000_000
    # Linux counts pages per processor and adds them up in batches: exact to about 1 MB.
    assert after >= grown - 2**20


def test_the_peak_of_this_process_is_known():
    reset_peak()
    assert peak_memory_bytes() > 10**7
    assert peak_rss_bytes() > 10**7
