"""Merged model folders: plain, verified, and the live model untouched."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from lorafit.adapt import Adapters
from lorafit.errors import AdapterError, HandoffError
from lorafit.export import merged
from lorafit.methods.lora import LoraConfig
from tests import tiny, tiny_text


def trained(model: nn.Module, **settings: Any) -> Adapters:
    adapters = Adapters(model)
    values: dict[str, Any] = {"r": 4, "target_modules": "all-linear"} | settings
    adapters.add(LoraConfig(**values))
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in adapters.trainable().values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return adapters


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_folder_computes_what_the_live_model_computes(tmp_path: Path, family: str) -> None:
    adapters = trained(tiny.classifier(family))
    expected = tiny.logits(adapters.model, family)
    difference = merged.save(adapters, tmp_path / "m", inputs=tiny.inputs(family))
    assert difference < 1e-5
    again = hf.AutoModelForSequenceClassification.from_pretrained(tmp_path / "m")
    assert (tiny.logits(again, family) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert not torch.allclose(tiny.logits(tiny.classifier(family), family), expected, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"init_lora_weights": "pissa"},
        {"modules_to_save": ["classifier"], "target_modules": {"q_lin"}},
    ],
)
def test_variants_and_heads_are_merged(tmp_path: Path, settings: dict[str, Any]) -> None:
    adapters = trained(tiny.classifier("distilbert"), **settings)
    assert merged.save(adapters, tmp_path / "m") < 1e-5


def test_the_live_model_stays_bit_for_bit(tmp_path: Path) -> None:
    adapters = trained(tiny.classifier("bert"))
    adapters.model.train()
    before = {name: value.clone() for name, value in adapters.model.state_dict().items()}
    merged.save(adapters, tmp_path / "m")
    after = adapters.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert adapters.model.training
    assert adapters.trainable()
    assert not adapters.merged


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_stay_half_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    half: Any = tiny.language_model("llama")
    adapters = trained(half.to(dtype))
    merged.save(adapters, tmp_path / "m")
    again = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert again.dtype == dtype


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_tied_embeddings_that_part_are_saved_apart(tmp_path: Path, family: str) -> None:
    target = {"gpt2": "wte", "qwen2": "embed_tokens"}[family]
    model = tiny.language_model(family)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    adapters = trained(model, target_modules={target})
    expected = tiny.logits(adapters.model, family)
    merged.save(adapters, tmp_path / "m")
    again = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert torch.allclose(tiny.logits(again, family), expected, rtol=1e-5, atol=1e-5)
    assert model.config.tie_word_embeddings


def test_the_tokenizer_comes_along(tmp_path: Path) -> None:
    tokenizer = tiny_text.bert_tokenizer(tmp_path / "vocab")
    merged.save(trained(tiny.classifier("bert")), tmp_path / "m", tokenizer=tokenizer)
    again = hf.AutoTokenizer.from_pretrained(tmp_path / "m")
    assert again("a great film")["input_ids"] == tokenizer("a great film")["input_ids"]


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    adapters = trained(tiny.classifier("bert"))
    (tmp_path / "m").mkdir()
    merged.save(adapters, tmp_path / "m")
    with pytest.raises(AdapterError, match="is not empty"):
        merged.save(adapters, tmp_path / "m")
    (tmp_path / "file").touch()
    with pytest.raises(AdapterError, match="is a file"):
        merged.save(adapters, tmp_path / "file")


def test_a_full_disk_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    adapters = trained(tiny.classifier("bert"))
    monkeypatch.setattr(type(adapters.model), "save_pretrained", fail)
    with pytest.raises(AdapterError, match="No space left"):
        merged.save(adapters, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_computes_something_else_does_not_appear(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    adapters = trained(tiny.classifier("bert"))
    other = tiny.classifier("bert", seed=5)
    monkeypatch.setattr(type(adapters.model), "from_pretrained", lambda *a, **k: other)
    with pytest.raises(HandoffError, match="differs by"):
        merged.save(adapters, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_plain_modules_are_refused(tmp_path: Path) -> None:
    adapters = trained(nn.Sequential(nn.Linear(3, 3)), target_modules={"0"})
    with pytest.raises(AdapterError, match="only transformers models"):
        merged.save(adapters, tmp_path / "m")
