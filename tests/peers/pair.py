"""The same adapter in lorafit and in peft, on two equal tiny bases."""

from __future__ import annotations

from typing import Any, TypeVar

import peft
import torch
from torch import nn

import lorafit.peft as ours_api
from tests import tiny

TARGETS = {
    "bert": ["query", "value", "intermediate.dense"],
    "distilbert": ["q_lin", "v_lin", "lin1"],
    "gpt2": ["c_attn", "mlp.c_fc"],
    "llama": ["q_proj", "v_proj", "down_proj"],
    "qwen2": ["q_proj", "v_proj", "down_proj"],
    "qwen3": ["q_proj", "v_proj", "down_proj"],
    "roberta": ["query", "value", "intermediate.dense"],
    "t5": ["q", "v", "wo"],
}
EMBEDDINGS = {
    "bert": "word_embeddings",
    "distilbert": "word_embeddings",
    "gpt2": "wte",
    "llama": "embed_tokens",
    "qwen2": "embed_tokens",
    "qwen3": "embed_tokens",
    "roberta": "word_embeddings",
    "t5": "shared",
}
LM_TASK = {"t5": "SEQ_2_SEQ_LM"}
M = TypeVar("M", bound=nn.Module)


def base(family: str, task: str | None) -> nn.Module:
    """Always the same weights for the same arguments."""
    return tiny.language_model(family) if task and "LM" in task else tiny.classifier(family)


def settings(family: str, **changes: Any) -> dict[str, Any]:
    """Settings that both configuration classes take."""
    plain = {
        "r": 4,
        "lora_alpha": 6,
        "target_modules": list(TARGETS[family]),
        "task_type": "SEQ_CLS",
        "fan_in_fan_out": family == "gpt2",
    }
    return plain | changes


def ours(family: str, **changes: Any) -> ours_api.PeftModel:
    values = settings(family, **changes)
    model = ours_api.get_peft_model(
        base(family, values["task_type"]), ours_api.LoraConfig(**values)
    )
    return randomised(model)


def theirs(family: str, **changes: Any) -> peft.PeftModel:
    values = settings(family, **changes)
    model = peft.get_peft_model(base(family, values["task_type"]), peft.LoraConfig(**values))
    return randomised(model)


def randomised(model: M) -> M:
    """Random adapters, and a random change of what else trains; the same in both libraries."""
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.requires_grad:
                g = torch.Generator().manual_seed(sum(map(ord, name)))
                change = torch.randn(parameter.shape, generator=g)
                if "magnitude" in name:
                    parameter.mul_(1.0 + 0.1 * change)
                elif "lora_" in name:
                    parameter.copy_(0.3 * change)
                else:
                    parameter.add_(0.1 * change)
    return model


def assert_close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Equal up to ``tolerance`` relative to the largest value."""
    assert a.shape == b.shape
    difference = (a - b).abs().max().item()
    assert difference <= tolerance * b.abs().max().item(), difference


def assert_tuned(model: nn.Module, family: str, task: str | None) -> None:
    """Negative control: the adapter changes the outputs."""
    plain = logits(base(family, task), family, task)
    assert not torch.allclose(logits(model, family, task), plain, atol=1e-3)


@torch.no_grad()
def logits(model: nn.Module, family: str, task: str | None = "SEQ_CLS") -> torch.Tensor:
    """Logits in evaluation mode."""
    batch = tiny.inputs(family)
    if task == "SEQ_2_SEQ_LM":
        batch["decoder_input_ids"] = batch["input_ids"]
    found: torch.Tensor = model.eval()(**batch).logits
    return found
