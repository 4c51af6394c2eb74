from __future__ import annotations

import json
import os
from collections import namedtuple
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from typer.testing import CliRunner

from lorafit.cli import app
from lorafit.machine import doctor, memory, processor
from lorafit.machine.doctor import Finding, examine


def only(findings: Iterator[Finding], what: str) -> Finding:
    [found] = [finding for finding in findings if finding.what == what]
    return found


def test_every_check_finds_something(tmp_path: Path) -> None:
    found = {finding.what for finding in examine(tmp_path)}
    assert found >= {"python", "processor", "bfloat16", "threads", "GPU", "memory", "disk", "hub"}


def test_a_check_that_fails_becomes_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[Finding]:
        raise ImportError("libtorch.so: no such file")
        yield

    monkeypatch.setattr(doctor, "processor", broken)
    finding = only(iter(examine()), "processor")
    assert finding.warning == "processor: ImportError: libtorch.so: no such file"


def test_a_package_outside_the_range_is_a_warning_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "1.9")
    finding = doctor.package(Requirement("torch>=2.6"), "2.13.0")
    assert finding.found == "1.9 (tested with 2.13.0)"
    assert finding.warning == "torch 1.9 is outside what lorafit works with, >=2.6."
    assert finding.fix == 'Install another: pip install "torch>=2.6"'


def test_a_newer_major_version_than_tested_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "3.0+cpu")
    finding = doctor.package(Requirement("torch>=2.6"), "2.13.0")
    assert finding.warning is not None
    assert "newer major version" in finding.warning


def test_a_missing_package_is_a_warning() -> None:
    finding = doctor.package(Requirement("no-such-package>=1"), None)
    assert finding.fix == 'Install it: pip install "no-such-package>=1"'


def test_the_tested_versions_are_known() -> None:
    tested = doctor.tested_versions()
    assert tested["torch"].startswith("2.")
    assert "transformers" in tested


@pytest.mark.parametrize(("cores", "used", "warns"), [(2, 8, True), (4, 1, True), (2, 2, False)])
def test_threads_are_held_against_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, used: int, warns: bool
) -> None:
    monkeypatch.setattr(processor, "usable_cores", lambda: cores)
    monkeypatch.setattr(processor, "expected_threads", lambda: used)
    finding = only(doctor.threads(), "threads")
    assert (finding.warning is not None) is warns
    assert finding.found.startswith(f"{used} on {cores} usable cores")


def test_torch_is_asked_where_something_hints_at_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nvidia0").touch()
    devices = [str(tmp_path / "nvidia0")]
    said = {"version": "2.13.0+cpu", "gpus": [], "mps": False}
    monkeypatch.setattr(doctor, "ask_torch", lambda: said)
    finding = only(doctor.accelerator(devices=devices), "GPU")
    assert finding.warning == "there is an NVIDIA GPU, but torch 2.13.0+cpu cannot use it."
    said["gpus"] = [("H100", 80 * 2**30)]
    assert only(doctor.accelerator(devices=devices), "GPU 0").found == "H100, 80.0 GiB"


def test_torch_in_a_process_of_its_own_says_what_it_says_here() -> None:
    said = doctor.ask_torch()
    assert said["version"] == torch.__version__
    assert said["capability"] == torch.backends.cpu.get_cpu_capability()
    assert len(said["gpus"]) == torch.cuda.device_count()
    found = only(doctor.imports(load=True), "imports").found
    assert found == f"torch and transformers work; {said['threads']} threads, {said['capability']}"


def test_a_broken_torch_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so: no such file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    doctor.ask_torch.cache_clear()
    try:
        finding = only(iter(examine(load=True)), "imports")
    finally:
        doctor.ask_torch.cache_clear()
    assert finding.warning is not None
    assert "cannot be imported: ImportError: libtorch.so: no such file" in finding.warning


def test_other_programs_on_the_cores_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (999.0, 0.0, 0.0))
    assert only(doctor.threads(), "load").warning is not None


def test_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "memory", lambda: memory.Memory(total=2**34, available=2**29))
    finding = only(doctor.memory(), "memory")
    assert finding.found == "512.0 MiB free of 16.0 GiB"
    assert finding.warning == "only 512.0 MiB of memory is free."


def test_little_disk_space_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1, 1, 2**20))
    assert "only 1.0 MiB" in (only(doctor.disk(tmp_path / "a" / "b"), "disk").warning or "")


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = only(doctor.disk(tmp_path / "file" / "runs"), "disk")
    assert "cannot be written" in (finding.warning or "")


def test_nothing_is_sent_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert only(doctor.hub(online=False), "hub").found == "not asked (--online asks)"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert only(doctor.hub(online=False), "hub").warning is None
    assert only(doctor.hub(online=True), "hub").fix == "Unset it."


def test_a_hub_that_does_not_answer_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    finding = only(doctor.hub(online=True), "hub")
    assert "does not answer" in (finding.warning or "")


def test_warnings_leave_the_exit_code_at_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "usable_cores", lambda: 1000)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "warning: torch uses" in result.stdout
    assert "Set OMP_NUM_THREADS" in result.stdout or "OMP_NUM_THREADS, or set it" in result.stdout


def test_json_has_every_finding() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert {"what", "found", "warning", "fix", "kind"} == set(json.loads(result.stdout)[0])
