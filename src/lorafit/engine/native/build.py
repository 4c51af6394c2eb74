"""Compiles the kernels: one small library per instruction set, beside this file.

    python src/lorafit/engine/native/build.py

Standard library only: the package's build hook runs this file before any dependency is
installed. Without a compiler nothing is written and the PyTorch twins of the kernels run
instead; `lorafit.engine.kernels.library` picks the best library the CPU can run.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Not -ffast-math: it lets the compiler assume there is no NaN, and a NaN weight has to
# come out as NaN. These are the parts of it that change no result but speed.
FLAGS = [
    *("-std=c++17", "-O3", "-fPIC", "-shared", "-fvisibility=hidden"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
]

AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"]
X86 = {
    "avx512bf16": (16, [*AVX512, "-mavx512bf16"]),
    "avx512": (16, AVX512),
    "avx2": (8, ["-mavx2", "-mfma"]),
    "base": (4, []),
}
OTHER: dict[str, tuple[int, list[str]]] = {"base": (4, [])}
"""On 64-bit ARM four floats are a NEON register, which every such CPU has."""


def instruction_sets() -> dict[str, tuple[int, list[str]]]:
    """Name to (floats a vector, compiler flags) for this machine's architecture."""
    return X86 if platform.machine().lower() in {"x86_64", "amd64"} else OTHER


def compiler() -> str | None:
    """``$CXX``, or the first compiler on the path; MSVC lacks the vector extensions used."""
    wanted = os.environ.get("CXX")
    for name in [wanted] if wanted else ["c++", "g++", "clang++"]:
        if found := shutil.which(name):
            return found
    return None


def library_path(name: str, folder: Path = HERE) -> Path:
    """Where the library of one instruction set lies."""
    return folder / f"kernels_{name}.so"


def build(folder: Path = HERE, extra_flags: list[str] | None = None) -> list[Path]:
    """Compiles every library and returns those that were written.

    Args:
        folder: Where they go.
        extra_flags: Appended to the flags, e.g. ``["-fsanitize=address"]``.

    Raises:
        RuntimeError: There is no compiler, or it failed; the message has its output.
    """
    cxx = compiler()
    if cxx is None:
        raise RuntimeError("no C++ compiler found: install g++ or clang++, or set CXX")
    built = []
    for name, (width, flags) in instruction_sets().items():
        target = library_path(name, folder)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            unfinished = Path(scratch) / target.name
            command = [cxx, *FLAGS, f"-DLORAFIT_WIDTH={width}", *flags, *(extra_flags or [])]
            command += [str(HERE / "kernels.cpp"), "-o", str(unfinished)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                raise RuntimeError(f"{' '.join(command)}\n{result.stderr}")
            unfinished.replace(target)  # whole or not at all, also for a process beside us
        built.append(target)
    return built


if __name__ == "__main__":
    try:
        for path in build():
            print(path)
    except RuntimeError as error:
        sys.exit(str(error))
