"""Text that a model writes, greedily or with beams."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from lorafit.config import GenerateConfig
from lorafit.engine.halving import Halving
from lorafit.methods.base import CallLayer
from lorafit.model.limits import table_positions
from lorafit.model.modes import evaluating
from lorafit.tasks.parts.generative import Prompt

log = logging.getLogger(__name__)


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    settings: GenerateConfig,
    batch_size: int,
) -> list[str]:
    """Writes an answer to each prompt, without sampling: the same model writes the same.

    A batch that does not fit into memory is written in halves.

    Where a model's table of positions ends before the longest answer, the answer ends there, and
    that is said.

    Args:
        model: Adapted or not.
        tokenizer: Its tokenizer, with a padding token.
        prompts: Of any length; like lengths share a batch.
        settings: Beams and the longest answer.
        batch_size: Prompts at a time, where they fit.

    Returns:
        The texts in the order of the prompts, without special tokens and outer spaces.

    Raises:
        TrainingError: There is not even memory for one prompt.
    """
    # A soft prompt stands before the whole input at each call.
    use_cache = not any(isinstance(module, CallLayer) for module in model.modules())
    config = _settings(model, tokenizer, settings, use_cache)
    ends = set(config.eos_token_id or ())
    answers, cut, halving = [""] * len(prompts), 0, Halving()

    def write(chosen: list[int]) -> Any:
        inputs = _padded([prompts[i].input_ids for i in chosen], tokenizer, model)
        # The model's own settings (temperature, ...) stay out: they are for sampling.
        own, model.generation_config = model.generation_config, config
        try:
            written: Any = model.generate(**inputs)  # type: ignore[operator]
        finally:
            model.generation_config = own
        return written if reads else written[:, inputs["input_ids"].shape[1] :]

    reads = model.config.is_encoder_decoder
    with evaluating(model):
        for batch, room in _batches(model, prompts, settings.max_new_tokens, batch_size):
            config.max_new_tokens = room
            for chosen, written in halving.of(batch, write):
                if room < settings.max_new_tokens:
                    cut += sum(ends.isdisjoint(row) for row in written.tolist())
                texts = tokenizer.batch_decode(written, skip_special_tokens=True)
                for index, text in zip(chosen, texts, strict=True):
                    answers[index] = text.strip()
    if cut:
        log.warning(
            "%s of %s answers end early, where the positions of the model end (%s in all)",
            *(f"{cut:,}", f"{len(prompts):,}", f"{table_positions(model):,}"),
        )
    return answers


def _batches(
    model: PreTrainedModel, prompts: Sequence[Prompt], longest: int, batch_size: int
) -> Iterator[tuple[list[int], int]]:
    """Prompts of like lengths, by their places, with the most tokens that their answers may have.

    A prompt has the same room whatever others are asked with it.
    """
    positions = table_positions(model)
    taken = sum(m.positions for m in model.modules() if isinstance(m, CallLayer))

    def room(index: int) -> int:
        if positions is None:
            return longest
        # The last token is written, not read; an encoder-decoder reads what it writes apart.
        reads = model.config.is_encoder_decoder
        before = taken if reads else taken + len(prompts[index].input_ids) - 1
        return max(1, min(longest, positions - before))

    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i].input_ids))
    for most, group in itertools.groupby(order, key=room):
        alike = list(group)
        for at in range(0, len(alike), batch_size):
            yield alike[at : at + batch_size], most


def _settings(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: GenerateConfig,
    use_cache: bool,
) -> GenerationConfig:
    own = model.generation_config
    ends: set[Any] = set()
    for found in (getattr(own, "eos_token_id", None), tokenizer.eos_token_id):
        ends |= set(found if isinstance(found, list) else [found]) - {None}
    kept = ("bos_token_id", "decoder_start_token_id", "forced_bos_token_id")
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=settings.max_new_tokens,
        num_beams=settings.num_beams,
        do_sample=False,
        use_cache=use_cache,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=sorted(ends) or None,
        **{name: value for name in kept if (value := getattr(own, name, None)) is not None},
    )


def _padded(
    rows: Sequence[list[int]], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> dict[str, torch.Tensor]:
    """Prompts end where the answer begins; what an encoder reads begins where it did in training.

    BART's encoder counts positions from the left, padding or not.
    """
    width = max(map(len, rows))
    fill: Any = tokenizer.pad_token_id
    ids, mask = [], []
    for row in rows:
        gap = width - len(row)
        before, after = (0, gap) if model.config.is_encoder_decoder else (gap, 0)
        ids.append([*[fill] * before, *row, *[fill] * after])
        mask.append([*[0] * before, *[1] * len(row), *[0] * after])
    return {
        "input_ids": torch.tensor(ids, device=model.device),
        "attention_mask": torch.tensor(mask, device=model.device),
    }
