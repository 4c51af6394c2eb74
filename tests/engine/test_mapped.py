"""Giving back the pages of weights that a file still has."""

import re
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import BertForSequenceClassification

from lorafit.engine.frozen import FrozenLinear
from lorafit.engine.mapped import release
from tests import tiny

MEGABYTE = 1 << 20


def resident(path: Path) -> int:
    """Bytes of a file that this process has in memory."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def mapped(tmp_path: Path) -> tuple[Path, torch.Tensor]:
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.randn(1024, 2048)}, path)
    with safe_open(path, "pt") as file:
        return path, file.get_tensor("weight")


def test_pages_of_a_file_are_given_back_and_read_again(tmp_path):
    if sys.platform != "linux":
        return
    path, weight = mapped(tmp_path)
    before = weight.clone()
    assert resident(path) > 7 * MEGABYTE
    assert release([weight]) > 7 * MEGABYTE
    assert resident(path) < MEGABYTE
    assert torch.equal(weight, before)


def test_what_was_written_is_kept(tmp_path):
    _, weight = mapped(tmp_path)
    weight[::7] = 3.0
    weight.mul_(2)
    before = weight.clone()
    release([weight])
    assert torch.equal(weight, before)


def test_memory_that_is_no_files_is_left_alone():
    weight = torch.randn(1024, 1024)
    before = weight.clone()
    assert release([weight, weight[:0], torch.empty(0)]) == 0
    assert torch.equal(weight, before)


def test_a_layer_gives_its_weight_back_once_both_directions_are_laid_out(tmp_path):
    path, weight = mapped(tmp_path)
    layer = torch.nn.Linear(2048, 1024, bias=False).requires_grad_(False)
    layer.weight.data = weight
    frozen = FrozenLinear([layer], torch.bfloat16)
    x = torch.randn(3, 2048).bfloat16()
    with torch.no_grad():
        y = frozen.forward(x)
        frozen.backward(y)
    if sys.platform == "linux":
        assert resident(path) < MEGABYTE
    reference = x.float() @ weight.t()
    assert ((y.float() - reference).norm() / reference.norm()) < 1e-2


def test_a_loaded_models_weights_are_mapped(tmp_path):
    """What all of this stands on: transformers reads a safetensors file by mapping it."""
    tiny.classifier("bert").save_pretrained(tmp_path)
    model: Any = BertForSequenceClassification.from_pretrained(tmp_path)
    maps = Path("/proc/self/maps").read_text() if sys.platform == "linux" else ""
    ranges = [
        [int(x, 16) for x in line.split()[0].split("-")]
        for line in maps.splitlines()
        if line.endswith(str(tmp_path / "model.safetensors"))
    ]
    address = model.bert.encoder.layer[0].output.dense.weight.data_ptr()
    assert sys.platform != "linux" or any(low <= address < high for low, high in ranges)
