"""The classic script runs offline, ends well, and is the script that others have."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification

SCRIPT = Path(__file__).parents[2] / "examples" / "06_walkthrough.py"


def run(script: Path, folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), "--offline", "--out", "out", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(folder / "cache"),
        },
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def number(pattern: str, output: str) -> float:
    found = re.search(pattern, output)
    assert found is not None, pattern
    return float(found[1])


# peft asks for an attribute that transformers deprecates.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_the_walkthrough_learns_saves_loads_and_merges(tmp_path: Path) -> None:
    output = run(SCRIPT, tmp_path, "--epochs", "6", "--learning-rate", "5e-3")
    assert "trainable params: 10,434 || all params: " in output
    before, after = (number(rf"{w}: (\S+)", output) for w in ("before", "after"))
    assert before < 0.7
    assert after > 0.9
    assert "loaded: differs by 0.0e+00 at most" in output
    assert number(r"merged: differs by (\S+)", output) < 1e-5

    adapter = tmp_path / "out" / "adapter"
    shape = DistilBertConfig(
        vocab_size=24, dim=64, n_layers=3, n_heads=4, hidden_dim=128, max_position_embeddings=64
    )
    loaded = peft.PeftModel.from_pretrained(DistilBertForSequenceClassification(shape), adapter)
    assert torch.isfinite(loaded(input_ids=torch.tensor([[2, 5, 6, 3]])).logits).all()


SWAPS = {
    "from lorafit import Trainer": "from transformers import Trainer",
    "from peft import": "from lorafit.peft import",
}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("ours", SWAPS)
def test_only_import_lines_differ_from_other_scripts(ours: str, tmp_path: Path) -> None:
    source = SCRIPT.read_text(encoding="utf-8")
    assert source.count(ours) == 1
    other = tmp_path / "other.py"
    other.write_text(source.replace(ours, SWAPS[ours]), encoding="utf-8")
    output = run(other, tmp_path, "--epochs", "1")
    assert "trainable params: 10,434 || all params: " in output
    assert "loaded: differs by" in output


def test_its_steps_run_on_the_fast_engine(tmp_path: Path) -> None:
    source = SCRIPT.read_text(encoding="utf-8")
    logged = "import logging\n\nlogging.basicConfig(level=logging.INFO, stream=sys.stdout)\n"
    script = tmp_path / "logged.py"
    script.write_text(
        source.replace("import argparse\n", f"import argparse\nimport sys\n{logged}", 1),
        encoding="utf-8",
    )
    output = run(script, tmp_path, "--epochs", "0.2")
    assert "engine: fast (packed DistilBertForSequenceClassification, " in output
    assert "lorafit.trainer" not in output
