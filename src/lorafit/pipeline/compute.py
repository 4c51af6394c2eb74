"""How a model computes: the engine and the number format."""

from __future__ import annotations

import logging

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorafit.config import Config
from lorafit.engine.base import Engine
from lorafit.engine.choose import Computing, choose_engine
from lorafit.machine.placement import find_device
from lorafit.machine.processor import fast_bf16
from lorafit.tasks.base import Task

log = logging.getLogger(__name__)


def make_engine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, config: Config
) -> Engine:
    """The engine that trains this model."""
    device = find_device(config.train.device)
    if config.train.device != "auto":  # the engines for the CPU take models that are there
        model.to(device)  # type: ignore[arg-type]  # transformers wraps torch's `to`
        log.info("computing on %s: it was asked for", device)
    bf16, why = uses_bf16(model, config, device)
    log.info("computing in %s: %s", "bfloat16" if bf16 else "float32", why)
    computing = Computing(device, bf16, torch.bfloat16 if bf16 else torch.float32)
    return choose_engine(config.train.engine, model, task, tokenizer, computing)


def uses_bf16(model: PreTrainedModel, config: Config, device: torch.device) -> tuple[bool, str]:
    """Whether the training computes in bfloat16, and why."""
    fast, why = fast_bf16(device)
    if model.dtype == torch.float16:  # the two half formats do not mix
        fast, why = False, "the model's weights are float16"
    return (fast if config.train.bf16 is None else config.train.bf16), why
