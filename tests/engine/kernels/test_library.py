import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lorafit.engine.kernels import checked as kernels
from lorafit.engine.kernels import library
from lorafit.engine.native import build

SOURCE = Path(build.HERE).parents[2]


def printed(code: str, paths: str) -> str:
    """What a program prints in a process of its own that imports from these folders."""
    program = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": paths}
    done = subprocess.run(program, check=True, env=environment, capture_output=True, text=True)
    return done.stdout.strip()


def test_kernels_run_on_torchs_threads():
    loaded = library.library()
    assert loaded is not None
    assert loaded.shares_threads
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert loaded.calls.lorafit_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_torchs_runtime_is_chosen_among_several(tmp_path):
    """scikit-learn brings a libgomp of its own, here before torch and by a symbolic link."""
    link = tmp_path / "packages"
    link.symlink_to(Path(torch.__file__).parents[1].resolve())
    code = (
        "import sklearn.metrics, torch\n"
        "from lorafit.engine.kernels.library import library\n"
        "torch.set_num_threads(3)\n"
        "print(library().calls.lorafit_threads())\n"
    )
    assert printed(code, f"{link}:{SOURCE}") == "3"


def test_no_second_openmp_runtime_is_loaded():
    code = (
        "import re, torch\n"
        "torch.ones(2)\n"
        "find = lambda: set(re.findall(r'/\\S*lib(?:gomp|iomp5|omp)\\S*', "
        "open('/proc/self/maps').read()))\n"
        "before = find()\n"
        "from lorafit.engine.kernels.library import library\n"
        "print(library() is not None, sorted(find() - before))\n"
    )
    assert printed(code, str(SOURCE)) == "True []"


def test_library_does_not_link_torch_or_openmp():
    if sys.platform != "linux":
        return
    loaded = library.library()
    assert loaded is not None
    listing = subprocess.run(
        ["readelf", "-d", str(build.library_path(loaded.name))],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "torch" not in listing
    assert "omp" not in listing


def test_library_of_another_interface_is_refused():
    loaded = library.library()
    assert loaded is not None
    with pytest.raises(OSError, match="interface"):
        library.load(build.library_path(loaded.name), abi=library.ABI + 1)


def test_without_libraries_the_twins_run(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "library_path", lambda name: build.library_path(name, tmp_path))
    assert library.library.__wrapped__() is None
    with kernels.using(None):
        assert kernels.active() is None


def test_build_without_a_compiler_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match="no C\\+\\+ compiler"):
        build.build(tmp_path)
    assert not list(tmp_path.iterdir())


def test_failed_build_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError, match="no-such-flag"):
        build.build(tmp_path, ["-fno-such-flag"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("capability", "flags", "expected"),
    [
        ("AVX512", ["avx512_bf16"], ["avx512bf16", "avx512", "avx2", "base"]),
        ("AVX512", [], ["avx512", "avx2", "base"]),
        ("AVX2", ["avx512_bf16"], ["avx2", "base"]),
        ("DEFAULT", ["bf16"], ["base"]),
    ],
)
def test_best_instruction_set_of_the_cpu_comes_first(monkeypatch, capability, flags, expected):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(library, "bf16_flags", lambda: flags)
    assert library.candidates() == expected
    assert set(expected) <= set(build.X86)


def test_next_best_library_is_loaded_when_one_is_missing(monkeypatch):
    best = library.candidates()[0]
    monkeypatch.setattr(library, "candidates", lambda: ["missing", best])
    loaded = library.library.__wrapped__()
    assert loaded is not None
    assert loaded.name == best
