"""``python -m benchmarks``: the side-by-side benchmarks, one after the other."""

from __future__ import annotations

import subprocess
import sys

for name in ("speed", "quality"):
    print(f"== {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
