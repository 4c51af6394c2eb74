"""The kernels on another architecture, compared with this one's.

    python tests/engine/native/cross.py [--cxx aarch64-linux-gnu-g++] [--run qemu-aarch64]

Compiles `driver.cpp` for this machine and for the other one, both with the vectors of the
portable library (16 bytes: SSE2 or NEON), runs both and compares every number. On this machine
the test suite holds the portable library against float64, so what agrees with it is right.
Needs a cross compiler and an emulator (Debian: g++-aarch64-linux-gnu, qemu-user), and is
therefore not part of the test suite. Standard library only.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "src"))

from lorafit.engine.native.build import FLAGS, OTHER  # noqa: E402
from lorafit.engine.native.build import HERE as SOURCES  # noqa: E402

TOLERANCE = {"float32": 2e-6, "bfloat16": 2e-3}
"""Relative, Euclidean norm: order of sums, and the roundings that fall the other way for it."""


def results(cxx: str, run: list[str], folder: Path) -> list[tuple[str, str, list[float]]]:
    """Every line the driver prints: name, storage type, numbers."""
    program = folder / Path(cxx).name
    width, flags = OTHER["base"]
    skip = {"-shared", "-fvisibility=hidden"}
    command = [cxx, *(flag for flag in FLAGS if flag not in skip), "-static", *flags]
    command += [f"-DLORAFIT_WIDTH={width}", f"-I{SOURCES}", str(HERE / "driver.cpp")]
    subprocess.run([*command, "-o", str(program)], check=True)
    text = subprocess.run([*run, str(program)], check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in text.splitlines()]
    return [(name, dtype, [float(x) for x in numbers]) for name, dtype, *numbers in lines]


def main() -> None:
    """Prints the largest difference of each kernel; exits with 1 when one is too large."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cxx", default="aarch64-linux-gnu-g++", help="compiler of the other")
    parser.add_argument("--run", default="qemu-aarch64", help='what runs its programs; "" for none')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here = results("c++", [], Path(folder))
        there = results(arguments.cxx, arguments.run.split(), Path(folder))
    worst: dict[tuple[str, str], float] = {}
    for (name, dtype, mine), (other_name, _, others) in zip(here, there, strict=True):
        if name != other_name or len(mine) != len(others):
            sys.exit(f"{name} and {other_name} are not the same lines")
        size = math.sqrt(sum(x * x for x in mine))
        error = math.dist(mine, others) / size
        if not error <= worst.get((name, dtype), -1.0):  # NaN is the worst
            worst[name, dtype] = error
    for (name, dtype), error in worst.items():
        print(f"{name:32} {dtype:9} {error:.1e}")
    failed = [name for (name, dtype), error in worst.items() if not error < TOLERANCE[dtype]]
    if failed:
        sys.exit(f"these differ: {', '.join(failed)}")


if __name__ == "__main__":
    main()
