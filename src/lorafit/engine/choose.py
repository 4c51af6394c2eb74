"""Chooses the engine for a model, says why, and checks the choice on a small batch.

Three engines, fastest first: ``fast`` (packed, backward by hand; the families it knows),
``generic`` (the model's own forward pass with faster parts; every model on the CPU) and
``eager`` (plain torch, any device).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lorafit.data.batches import Example
from lorafit.engine.base import Batch, Engine
from lorafit.engine.decoder import layout as decoder_layout
from lorafit.engine.decoder.engine import FastDecoder
from lorafit.engine.eager import EagerEngine
from lorafit.engine.encoder import support as encoder_support
from lorafit.engine.encoder.engine import FastEncoder
from lorafit.engine.frozen import compute_dtype
from lorafit.engine.generic.engine import GenericEngine
from lorafit.engine.kernels.library import library
from lorafit.engine.support import Unsupported
from lorafit.errors import ConfigError
from lorafit.machine.allocator import keep_freed_memory
from lorafit.machine.placement import find_device
from lorafit.model.modes import evaluating
from lorafit.tasks.base import Task

log = logging.getLogger(__name__)

Setting = Literal["auto", "eager", "generic", "fast"]

AGREEMENT = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""How far the logits of two engines may lie apart, relative to their size."""

_MODEL_ERRORS = (RuntimeError, ValueError, IndexError, TypeError, AttributeError)

_PROBE = (7, 1, 12)
"""Lengths of the sequences that engines are compared on."""


@dataclass(frozen=True)
class Computing:
    """Where an engine computes, and in which numbers.

    Attributes:
        device: Where it computes; ``None``: what accelerate picks for this process.
        autocast: For the eager engine: compute in bfloat16.
        dtype: What the other engines compute in; ``None``: bfloat16 where the CPU has it.
        training: Whether the engine also trains. One that only answers merges the adapters into
            its own copy of the weights, and takes models of which any part may be trained.
    """

    device: torch.device | None = None
    autocast: bool = False
    dtype: torch.dtype | None = None
    training: bool = True

    @property
    def storage(self) -> torch.dtype:
        """What activations and frozen weights are kept in."""
        return self.dtype or compute_dtype()


def choose_engine(
    setting: Setting,
    model: nn.Module,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    computing: Computing,
) -> Engine:
    """The engine that trains this model fastest at equal results.

    Args:
        setting: ``auto``: the fastest that can run; otherwise exactly this one.
        model: The adapted model.
        task: What is trained.
        tokenizer: Of the model.
        computing: Where, and in which numbers.

    Raises:
        ConfigError: The engine that was asked for cannot run.
    """
    device = computing.device or find_device()
    reasons = []
    for name in ("fast", "generic") if setting == "auto" else (setting,):
        try:
            if name != "eager":
                _require_cpu(device)
            engine = _make(name, model, task, tokenizer, computing)
        except Unsupported as why:
            reasons.append(f"not {name}: {why}")
            continue
        if engine is not None:
            engine.reason = "; ".join([engine.reason, *reasons])
            log.info("engine: %s (%s)", engine.name, engine.reason)
            return engine
    if setting not in ("auto", "eager"):
        raise ConfigError(
            f"the {setting} engine cannot run this model ({'; '.join(reasons)}). "
            'Set the engine to "auto" or "eager".'
        )
    reason = "; ".join(reasons) or "it was asked for"
    log.info("engine: eager (%s)", reason)
    eager = EagerEngine(model, task, tokenizer, device, autocast=computing.autocast)
    eager.reason = reason
    return eager


def _require_cpu(device: torch.device) -> None:
    if device.type != "cpu":
        raise Unsupported(f"it computes on the CPU, and there is {device}")


def _make(
    name: str,
    model: nn.Module,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    computing: Computing,
) -> FastEncoder | FastDecoder | GenericEngine | None:
    if name == "eager":
        return None
    keep_freed_memory()
    dtype, training = computing.storage, computing.training
    number = str(dtype).removeprefix("torch.")
    compiled = library()
    kernels = f"{compiled.name} kernels" if compiled else "no compiled kernels: run in PyTorch"
    if name == "fast":
        fast: FastEncoder | FastDecoder
        if decoder_layout.knows(model):
            decoder = decoder_layout.find_layout(model, training)
            fast = FastDecoder(model, decoder, task, tokenizer, dtype=dtype, training=training)
            per_token = decoder.causal_lm
        else:
            encoder = encoder_support.find_layout(model, training)
            fast = FastEncoder(model, encoder, task, tokenizer, dtype=dtype, training=training)
            per_token = not encoder.pools_first
        fast.reason = f"packed {type(model).__name__}, {number}, {kernels}"
        _check_agreement(model, fast, fast.collate(_probe(model, per_token)), dtype)
        return fast
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        raise Unsupported("the model is not on the CPU")
    generic = GenericEngine(model, task, tokenizer, dtype=dtype, training=training)
    generic.reason = f"{type(model).__name__} with faster parts, {number}, {kernels}"
    batch = {"parts": [_padded(_probe(model, False), model)], "order": range(len(_PROBE))}
    _check_agreement(model, generic, batch, dtype)
    return generic


def _probe(model: Any, per_token: bool) -> list[Example]:
    """Examples of a few random tokens; ``per_token``: with labels of every token."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    low = vocabulary // 2  # special tokens have the low numbers
    ids = [torch.randint(low, vocabulary, (n,), generator=generator).tolist() for n in _PROBE]
    end = getattr(model.config, "eos_token_id", None)
    if getattr(model.config, "is_encoder_decoder", False) and isinstance(end, int):
        # The heads of T5 and BART look at the end of the sequence.
        ids = [[*row[:-1], end] for row in ids]
    return [{"input_ids": row, "labels": [0] * len(row) if per_token else 0} for row in ids]


def _padded(examples: list[Example], model: Any) -> dict[str, Tensor]:
    """The examples with padding by which the model knows it: classifiers on decoders look at it."""
    fill = getattr(model.config, "pad_token_id", None)
    rows = [torch.tensor(example["input_ids"]) for example in examples]
    ones = [torch.ones_like(row) for row in rows]
    pad = nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad(
            rows, batch_first=True, padding_value=fill if isinstance(fill, int) else 0
        ),
        "attention_mask": pad(ones, batch_first=True),
    }


def _check_agreement(model: Any, engine: Engine, batch: Batch, dtype: torch.dtype) -> None:
    """Compares an engine with the model itself on a small batch.

    A model that was changed in a way nothing else sees is found here.

    Raises:
        Unsupported: They disagree, or one of them fails.
    """
    inputs = _padded(_probe(model, False), model)
    random = torch.get_rng_state()
    try:
        with evaluating(model):
            expected = model(**inputs).logits.float()
    except _MODEL_ERRORS as failure:
        # Some heads want special tokens, which random ones are not.
        log.debug("engines not compared: the model refused random tokens: %s", failure)
        return
    finally:
        torch.set_rng_state(random)
    try:
        found = engine.logits(batch).float()
    except _MODEL_ERRORS as failure:
        raise Unsupported(f"on a small batch: {failure}") from failure
    if expected.dim() == 3:  # what padding gets is nobody's business
        mask = inputs["attention_mask"].bool()
        expected, found = expected[mask], found[mask]
    error = (found - expected).norm() / expected.norm().clamp_min(1e-6)
    if bool(expected.isfinite().all()) and not error < AGREEMENT[dtype]:
        raise Unsupported(
            f"on a small batch its logits differ from the model's by {float(error):.1%}"
        )
