"""A plain model folder with the adapters merged in: it needs neither lorafit nor PEFT."""

from __future__ import annotations

import copy
import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorafit import quiet
from lorafit.adapt import Adapters
from lorafit.errors import AdapterError, HandoffError
from lorafit.export.folder import check_free, staged

log = logging.getLogger(__name__)

# Largest difference of the reloaded model, relative to its largest output. In float32 it is
# rounding; a half-precision base rounds every merged weight once.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def save(
    adapters: Adapters,
    path: str | os.PathLike[str],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    inputs: dict[str, torch.Tensor] | None = None,
) -> float:
    """Writes the model with its active adapters merged, all or nothing.

    The merge happens on a copy, so the live model stays as it is and memory for a second
    model is needed. The folder is read back and compared before it appears.

    Args:
        adapters: The adapters of a transformers model.
        path: A folder that does not exist yet or is empty.
        tokenizer: Saved along, so that the folder can be used alone.
        inputs: Keyword arguments of the model on which live and saved are compared;
            ``None``: a sentence as the tokenizer encodes it, or a few made-up tokens.

    Returns:
        The largest absolute difference between the live model's and the reloaded
        folder's outputs.

    Raises:
        AdapterError: There is something in the folder, or it cannot be written.
        HandoffError: The reloaded model computes something else.
    """
    path = Path(path)
    check_free(path)
    model = adapters.model
    if not isinstance(model, PreTrainedModel):
        raise AdapterError(
            f"only transformers models can be saved as a folder, this is a {type(model).__name__}."
        )
    inputs = sample_inputs(model, tokenizer) if inputs is None else inputs
    inputs = {key: value.to(model.device) for key, value in inputs.items()}
    expected = outputs(model, inputs)
    plain = copy.deepcopy(adapters).unload(merge=True)
    assert isinstance(plain, PreTrainedModel)
    untie(plain)
    with quiet.others(), staged(path, last="config.json") as stage:
        plain.save_pretrained(stage)
        if tokenizer is not None:
            tokenizer.save_pretrained(stage)
        del plain
        reloaded: nn.Module = type(model).from_pretrained(stage, dtype=model.dtype)
        reloaded = reloaded.to(model.device)
        difference = compare(expected, outputs(reloaded, inputs), model.dtype)
        log.info("read back and compared: the largest difference is %.2g", difference)
    return difference


SAMPLE_LENGTH = 12
"""Tokens of the sentence that the merged model is compared on."""


def sample_inputs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None
) -> dict[str, torch.Tensor]:
    """Keyword arguments on which any model of transformers computes something."""
    if tokenizer is None:
        return dict(model.dummy_inputs)
    # Not made-up tokens: T5's classifier refuses what does not end as its texts end.
    # Short: virtual tokens may take most of a small model's positions.
    text = "The quick brown fox jumps over the lazy dog."
    encoded = tokenizer(text, truncation=True, max_length=SAMPLE_LENGTH, return_tensors="pt")
    inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    if model.config.is_encoder_decoder and model.can_generate():
        inputs["decoder_input_ids"] = inputs["input_ids"]
    return inputs


def untie(model: nn.Module) -> None:
    """Notes in the config that merging into one of two tied embeddings has parted them.

    Loading would otherwise tie them again and lose the difference.
    """
    config: Any = getattr(model, "config", None)
    if not getattr(config, "tie_word_embeddings", False):
        return
    try:
        pair = [model.get_input_embeddings(), model.get_output_embeddings()]  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return
    weights = [getattr(module, "weight", None) for module in pair]
    if None not in weights and weights[0] is not weights[1]:
        config.tie_word_embeddings = False
        log.info("Input and output embeddings differ now: tie_word_embeddings is set to False.")


@torch.no_grad()
def outputs(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The first output (logits, or hidden states) in evaluation mode, float32."""
    was_training = model.training
    model.eval()
    try:
        result = model(**inputs)
    finally:
        model.train(was_training)
    first = result.logits if "logits" in result else result[0]
    assert isinstance(first, torch.Tensor)
    return first.float()


def compare(expected: torch.Tensor, got: torch.Tensor, dtype: torch.dtype) -> float:
    """The largest absolute difference.

    Raises:
        HandoffError: It is more than rounding in ``dtype`` explains.
    """
    difference = float((expected - got).abs().max())
    scale = max(1.0, float(expected.abs().max()))
    tolerance = TOLERANCE.get(dtype, 1e-4)
    if not difference <= tolerance * scale:
        raise HandoffError(
            f"the merged model, read back from its folder, differs by {difference:.2g} from the "
            f"live one (allowed: {tolerance * scale:.2g}); nothing was written."
        )
    return difference
