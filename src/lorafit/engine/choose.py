"""Chooses the engine for a model, says why, and checks the choice on a small batch."""

from __future__ import annotations

import logging
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedTokenizerBase

from lorafit.engine.base import Engine
from lorafit.engine.eager import EagerEngine, evaluating
from lorafit.engine.encoder.engine import FastEncoder
from lorafit.engine.encoder.layout import Unsupported
from lorafit.engine.encoder.support import find_layout
from lorafit.engine.frozen import compute_dtype
from lorafit.engine.library import library
from lorafit.errors import ConfigError
from lorafit.tasks.base import Task

log = logging.getLogger(__name__)

Setting = Literal["auto", "eager", "fast"]

AGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""How far hidden computations of the two engines may lie apart, relative to the logits' size."""


def choose_engine(
    setting: Setting,
    model: nn.Module,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator | None = None,
    *,
    autocast: bool = False,
    dtype: torch.dtype | None = None,
) -> Engine:
    """The engine that trains this model fastest at equal results.

    Args:
        setting: ``auto``: the fast engine where it can run, else the eager one; ``eager`` or
            ``fast``: that one.
        model: The adapted model.
        task: What is trained.
        tokenizer: Of the model.
        accelerator: For the eager engine.
        autocast: For the eager engine: compute in bfloat16.
        dtype: What the fast engine computes in; ``None``: bfloat16 where the CPU has it.

    Raises:
        ConfigError: The fast engine was asked for and cannot run.
    """
    if setting == "eager":
        return EagerEngine(model, task, tokenizer, accelerator, autocast=autocast, reason="asked")
    try:
        fast = _fast(model, task, tokenizer, accelerator, dtype or compute_dtype())
    except Unsupported as why:
        if setting == "fast":
            raise ConfigError(
                f"the fast engine cannot run this model: {why}. "
                'Set the engine to "auto" or "eager".'
            ) from None
        reason = f"not the fast engine: {why}"
        log.info("engine: eager (%s)", reason)
        return EagerEngine(model, task, tokenizer, accelerator, autocast=autocast, reason=reason)
    log.info("engine: fast (%s)", fast.reason)
    return fast


def _fast(
    model: nn.Module,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    accelerator: Accelerator | None,
    dtype: torch.dtype,
) -> FastEncoder:
    if accelerator is not None and accelerator.device.type != "cpu":
        raise Unsupported(f"it computes on the CPU, and there is {accelerator.device}")
    layout = find_layout(model)
    compiled = library()
    kernels = f"{compiled.name} kernels" if compiled else "kernels in PyTorch, no compiled ones"
    reason = f"packed {type(model).__name__} in {str(dtype).removeprefix('torch.')}, {kernels}"
    engine = FastEncoder(model, layout, task, tokenizer, dtype=dtype, reason=reason)
    check_agreement(engine)
    return engine


def check_agreement(engine: FastEncoder) -> None:
    """Compares the engine with the model itself on a small batch.

    A model that was changed in a way `find_layout` does not see is found here.

    Raises:
        Unsupported: They disagree.
    """
    model: Any = engine.model
    lengths = [7, 1, 12]
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = [
        torch.randint(vocabulary // 2, vocabulary, (n,), generator=generator).tolist()
        for n in lengths
    ]
    examples: list[dict[str, Any]] = [{"input_ids": row, "labels": 0} for row in ids]
    width = max(lengths)
    pad = engine.tokenizer.pad_token_id or 0
    padded = torch.tensor([row + [pad] * (width - len(row)) for row in ids])
    mask = torch.tensor([[1] * n + [0] * (width - n) for n in lengths])
    with evaluating(model):
        expected = model(input_ids=padded, attention_mask=mask).logits.float()
    if not engine.layout.pools_first:
        examples = [{"input_ids": row, "labels": [0] * len(row)} for row in ids]
        expected = expected * mask[..., None]
    found = engine.logits(engine.collate(examples))
    error = (found - expected).norm() / expected.norm().clamp_min(1e-6)
    if not error < AGREEMENT[engine.dtype] and bool(expected.isfinite().all()):
        raise Unsupported(
            f"on a small batch its logits differ from the model's by {float(error):.1%}"
        )
