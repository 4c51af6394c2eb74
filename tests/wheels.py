"""Builds the wheel twice, in two folders, and says whether the two are the same byte for byte.

    python tests/wheels.py FOLDER [--pure]

FOLDER takes the wheel: with the compiled kernels, or with ``--pure`` without. Times in it are
``SOURCE_DATE_EPOCH``, or else that of the last commit. The exit code is 1 where the two differ.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = (
    *("src", "pyproject.toml", "hatch_build.py", "constraints.txt", "README.md", "LICENSE"),
    *("requirements-demo.txt", "requirements-test.txt"),
)
"""What the wheel is built of."""


def epoch() -> str:
    """Seconds since 1970 that every file of the wheel is said to be from."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return given
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def build(folder: Path, pure: bool) -> Path:
    """Builds a wheel from a copy of the sources in a folder, and returns it."""
    source = folder / "source"
    source.mkdir(parents=True)
    for name in SOURCES:
        if (ROOT / name).is_dir():
            unwanted = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(ROOT / name, source / name, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-cache-dir"]
    how = {"SOURCE_DATE_EPOCH": epoch(), "LORAFIT_BUILD": "skip" if pure else "require"}
    out = folder / "out"
    subprocess.run(
        [*command, "--wheel-dir", str(out), str(source)], env=os.environ | how, check=True
    )
    [wheel] = out.glob("*.whl")
    return wheel


def differences(one: Path, other: Path) -> list[str]:
    """The files of two wheels that differ; the whole, if only its order or times do."""
    if one.read_bytes() == other.read_bytes():
        return []
    with zipfile.ZipFile(one) as a, zipfile.ZipFile(other) as b:
        names = sorted({*a.namelist(), *b.namelist()})
        both = set(a.namelist()) & set(b.namelist())
        found = [n for n in names if n not in both or a.read(n) != b.read(n)]
    return found or ["the archive itself"]


def main() -> int:
    """Builds, compares, and keeps the first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pure", action="store_true", help="without compiled kernels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        # Names of unlike lengths: a path that gets into the wheel shows.
        first = build(Path(scratch) / "a", options.pure)
        second = build(Path(scratch) / "another-name", options.pure)
        if wrong := differences(first, second):
            print(f"two builds differ: {', '.join(wrong)}", file=sys.stderr)
            return 1
        options.folder.mkdir(parents=True, exist_ok=True)
        kept = Path(shutil.copy(first, options.folder))
    print(f"{hashlib.sha256(kept.read_bytes()).hexdigest()}  {kept}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
