"""The examples run, offline, and say what their texts promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny_text

ROOT = Path(__file__).parents[2]
FEW = ("--max-train-samples", "64", "--max-eval-samples", "32")


def example(name: str, folder: Path, *args: str) -> str:
    """Runs one example in a folder and returns what it prints; warnings are errors."""
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *args],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_one_call_compares_predicts_and_leaves_an_adapter(tmp_path: Path) -> None:
    out = example("01_one_call.py", tmp_path, *FEW)
    assert "base " in out
    assert "tuned" in out
    assert out.count("'label'") == 2
    folder = Path(out.splitlines()[-1].rpartition(": ")[2])
    assert (tmp_path / folder / "adapter_model.safetensors").is_file()


def test_the_parts_make_an_adapter_that_peft_reads(tmp_path: Path) -> None:
    from peft import PeftConfig

    out = example("02_the_parts.py", tmp_path, *FEW, "--out", "adapter")
    assert "12 layers: " in out
    assert "tuned - base" in out
    config = PeftConfig.from_pretrained(str(tmp_path / "adapter"))
    assert config.target_modules == {"query", "value"}


def test_the_bare_loop_learns_and_gives_the_base_back(tmp_path: Path) -> None:
    lines = example("03_bare_loop.py", tmp_path).splitlines()
    losses = [float(line.split()[-1]) for line in lines if line.startswith("step")]
    assert losses[-1] < losses[0] / 10
    assert lines[-1] == "the base is back, bit for bit: True"


def test_the_language_model_answers_before_and_after(tmp_path: Path) -> None:
    model = tiny_text.save_language_model(tmp_path / "model")
    lines = example("04_language_model.py", tmp_path, "--model", str(model), "--epochs", "1")
    out = lines.splitlines()
    assert [line.split()[0] for line in out[-8:-1]] == [
        *("perplexity", "token_accuracy", "rouge_l"),
        *("prompt", "base", "tuned", "new"),
    ]
    assert (tmp_path / out[-1].rpartition(": ")[2] / "adapter_model.safetensors").is_file()


def test_the_new_method_trains_and_keeps_the_promises(tmp_path: Path) -> None:
    lines = example("05_new_method.py", tmp_path, *FEW).splitlines()
    # 16 x 16 numbers in each of the packaged model's 37 linear layers.
    assert lines[-2] == "9,472 parameters beside the head"
    folder = tmp_path / lines[-1].rpartition(": ")[2]
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    assert config["peft_type"] == "LORAFIT_LORA_XS"


def test_the_new_task_trains_and_answers(tmp_path: Path) -> None:
    lines = example("07_new_task.py", tmp_path, *FEW).splitlines()
    assert [line.split()[0] for line in lines[-5:-1]] == ["base", "tuned", "peace", "murder"]
    folder = tmp_path / lines[-1].rpartition(": ")[2]
    facts = json.loads((folder / "lorafit.json").read_text("utf-8"))
    assert facts["task"]["grades"] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("name", ["05_new_method.py", "07_new_task.py"])
def test_what_is_new_passes_its_own_tests(name: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pytest", str(ROOT / "examples" / name), "-q"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert result.returncode == 0, result.stdout
    assert " passed" in result.stdout
