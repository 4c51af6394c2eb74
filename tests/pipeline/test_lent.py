"""A model that is passed as an object comes back as it came, whatever the call and its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import lorafit
from lorafit.pipeline import handoff
from lorafit.training import loop
from tests import tiny_text

GIVEN: dict[str, Any] = {
    "max_steps": 2, "batch_size": 8, "bf16": False, "strategy": "none", "progress": False,
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Any:
    base = tiny_text.save_base(tmp_path / "base", "bert")
    found = hf.AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    found.bert.embeddings.requires_grad_(False)
    return found.train()


def state(model: Any) -> dict[str, Any]:
    """Everything that a caller could see of a model."""
    return {
        "tensors": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "flags": {name: p.requires_grad for name, p in model.named_parameters()},
        "gradients": [name for name, p in model.named_parameters() if p.grad is not None],
        "modules": {name: id(module) for name, module in model.named_modules()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "hooks": sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()),
        "config": model.config.to_dict(),
    }


def assert_same(found: dict[str, Any], before: dict[str, Any]) -> None:
    tensors, expected = found.pop("tensors"), before.pop("tensors")
    assert found == before
    assert list(tensors) == list(expected)
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def tokenizer(tmp_path: Path) -> Any:
    return hf.AutoTokenizer.from_pretrained(tmp_path / "base")


@pytest.mark.parametrize("method", ["lora", "bitfit", "prompt"])
@pytest.mark.parametrize("call", [lorafit.plan, lorafit.preview])
def test_looking_leaves_nothing_behind(
    model: Any, tmp_path: Path, call: Callable[..., Any], method: str
) -> None:
    before = state(model)
    rows, own = tiny_text.rows(24), tokenizer(tmp_path)
    call(model, rows, tokenizer=own, method=method, **GIVEN)
    assert_same(state(model), before)


def stopping(*args: Any, **more: Any) -> Any:
    raise KeyboardInterrupt


def failing(*args: Any, **more: Any) -> Any:
    raise ValueError("of another kind")


@pytest.mark.parametrize(
    ("place", "name", "instead", "error"),
    [
        (loop, "Stepper", stopping, KeyboardInterrupt),
        (handoff, "check_handoff", failing, ValueError),
        (handoff, "sampled_logits", failing, ValueError),
        (None, "", None, None),
    ],
)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_leaves_nothing_behind_however_it_ends(
    model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: Any,
    name: str,
    instead: Any,
    error: Any,
    method: str,
) -> None:
    before, own = state(model), tokenizer(tmp_path)
    given = GIVEN | {"method": method, "run.dir": str(tmp_path / "runs")}
    if place is None:
        lorafit.train(model, tiny_text.rows(24), tokenizer=own, **given)
    else:
        monkeypatch.setattr(place, name, instead)
        with pytest.raises(error):
            lorafit.train(model, tiny_text.rows(24), tokenizer=own, **given)
    assert_same(state(model), before)


def test_a_shrunk_adapter_leaves_the_model_alone(model: Any, tmp_path: Path) -> None:
    own, rows = tokenizer(tmp_path), tiny_text.rows(24)
    given = GIVEN | {"run.dir": str(tmp_path / "runs"), "r": 4}
    run = lorafit.train(model, rows, tokenizer=own, **given)
    before = state(model)
    lorafit.shrink(
        run, 2, rows, tmp_path / "small", model=model, tokenizer=own, retrain_steps=1,
        progress=False, batch_size=8, bf16=False,
    )  # fmt: skip
    assert_same(state(model), before)
