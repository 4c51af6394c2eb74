from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from lorafit.machine import cgroup, processor
from lorafit.machine.processor import Processor, parse

X86 = """\
processor\t: 0
model name\t: Some CPU
flags\t\t: fpu fma avx2 avx512f avx512bf16 avx512_bf16 amx_bf16
physical id\t: 0
core id\t\t: 0

processor\t: 1
model name\t: Some CPU
flags\t\t: fpu fma
physical id\t: 0
core id\t\t: 0

processor\t: 2
model name\t: Some CPU
physical id\t: 1
core id\t\t: 0
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\nCPU part\t: 0xd40\n"
ASK = "import torch; print(torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())"
TELL = (
    "import sys; from lorafit.machine.processor import expected_threads, vector_units\n"
    "print(expected_threads(), vector_units()); assert 'torch' not in sys.modules"
)


def test_name_instructions_and_cores_are_read_from_cpuinfo() -> None:
    found = parse(X86)
    assert found.name == "Some CPU"
    assert found.bf16 == ["amx_bf16", "avx512_bf16"]
    assert found.cores == {0: ("0", "0"), 1: ("0", "0"), 2: ("1", "0")}
    assert parse(ARM).bf16 == ["bf16"]
    assert parse(ARM).cores == {}
    assert parse("") == Processor(cores={})


def test_two_threads_of_a_core_are_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "processor", lambda: parse(X86))
    monkeypatch.setattr(processor, "allowed_processors", lambda: {0, 1, 2})
    assert processor.physical_cores() == 2
    monkeypatch.setattr(processor, "allowed_processors", lambda: {0, 1})
    assert processor.physical_cores() == 1
    monkeypatch.setattr(processor, "processor", lambda: parse(ARM))
    assert processor.physical_cores() == 2  # not known: logical ones


@pytest.mark.parametrize(("quota", "cores"), [(None, 4), (1.5, 2), (0.2, 1), (64.0, 4)])
def test_a_containers_share_limits_the_cores(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(processor, "allowed_processors", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(cgroup, "cpu_quota", lambda: quota)
    assert processor.usable_cores() == cores


def test_the_cores_of_this_process_are_known() -> None:
    assert 1 <= processor.physical_cores() <= (os.cpu_count() or 1)
    assert 1 <= processor.usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"OMP_NUM_THREADS": "1"},
        {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "1"},
        {"OMP_NUM_THREADS": "99"},
        {"ATEN_CPU_CAPABILITY": "avx2"},
    ],
)
def test_threads_and_vector_units_are_those_torch_uses(settings: dict[str, str]) -> None:
    own = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ATEN_CPU_CAPABILITY")
    environment = {k: v for k, v in os.environ.items() if k not in own} | settings
    torch_says, we_say = (
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment | {"PYTHONPATH": "src"},
        ).stdout
        for code in (ASK, TELL)
    )
    assert we_say == torch_says


def test_the_processor_of_this_machine_is_the_one_torch_computes_with() -> None:
    reported = processor.vector_units()
    assert reported in (None, torch.backends.cpu.get_cpu_capability())
    fast, why = processor.fast_bf16(torch.device("cpu"))
    assert fast is bool(processor.bf16_flags())
    assert ("only emulates" in why) is not fast
