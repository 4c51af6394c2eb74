import numpy as np
import psutil

from lorafit.training.memory import peak_memory_bytes, peak_rss_bytes, reset_peak


def test_peak_grows_with_what_is_used_and_never_falls():
    reset_peak()
    before = peak_rss_bytes()
    free = before - psutil.Process().memory_info().rss
    block = np.ones(free + 50_000_000, dtype=np.uint8)
    grown = peak_rss_bytes()
    del block
    assert grown > before > 10**7
    assert peak_rss_bytes() >= grown
    assert peak_memory_bytes() > 0
