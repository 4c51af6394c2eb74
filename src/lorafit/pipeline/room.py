"""Whether a training step has room in the machine's memory, asked before the run begins.

Linux promises more memory than there is and kills the process that takes it at its word, so that a
step that is too large cannot be tried. Instead steps of one, two, four ... examples, the longest
ones, are taken as long as the next has room by what the last ones took. A GPU says itself when its
memory is full (`lorafit.training.parts`).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lorafit.config import TrainConfig
from lorafit.data.batches import fetch, lengths
from lorafit.engine.halving import is_out_of_memory
from lorafit.errors import TrainingError
from lorafit.machine import memory
from lorafit.pipeline.subject import Subject
from lorafit.units import count, size

log = logging.getLogger(__name__)

RESERVE = 0.1
"""Share of the free memory that is left free: for the data, the allocator's gaps and others."""
AMPLE = 0.5
"""Where a bound on a step needs no more than this share of the free memory, nothing is tried."""
NUMBERS_A_LAYER = 64
"""Bound on what a layer keeps of a token, in its width. Korthikanti et al. 2022 (section 4.1) count
34 bytes in half precision, so 17 numbers; the rest is for masks, gated layers and adapters."""
MOMENTS = 2
"""Numbers that AdamW keeps for each trained one."""
SHORT = 1_024
"""Tokens up to which one example is tried without a shorter one before it."""


@dataclass(frozen=True)
class Room:
    """What a step takes, by the steps that were tried.

    Attributes:
        needed: Bytes on top of what the process has already, for whole micro batches.
        free: Bytes there are for it.
        parts: How many a micro batch has to be computed in to have room.
    """

    needed: int
    free: int
    parts: int


def make_room(subject: Subject, config: TrainConfig) -> None:
    """Sees to it that a training step has room: micro batches in parts, where they need it.

    Args:
        subject: Says from here on in how many parts it computes.
        config: Has the size of the batches.

    Raises:
        TrainingError: Not even a single example has room; the message says what would fit.
    """
    if subject.parts > 1:
        return
    found = measured_room(subject, config.per_device_train_batch_size)
    if found is not None and found.parts > 1:
        subject.parts = found.parts
        batch = min(config.per_device_train_batch_size, len(subject.encoded["train"]))
        log.warning(
            "a step of %d examples would take about %s of memory, and %s is free: micro batches of "
            "%d examples, %d for each one asked for; the effective batch stays the same",
            batch,
            size(found.needed),
            size(found.free),
            math.ceil(batch / found.parts),
            found.parts,
        )


def measured_room(subject: Subject, batch_size: int) -> Room | None:
    """What a step of the longest examples takes; ``None``: a device's own memory, or ample room.

    Weights and generators stay as they are.

    Raises:
        TrainingError: Not even a single example has room.
    """
    parameters = list(subject.adapters.trainable().values())
    if any(p.device.type != "cpu" for p in parameters):
        return None
    sizes = np.array(lengths(subject.encoded["train"]))
    order = np.argsort(sizes, kind="stable")
    batch = min(batch_size, len(order))
    optimizer = MOMENTS * sum(p.numel() * p.element_size() for p in parameters)
    free = max(0, int((1 - RESERVE) * memory.memory().available) - optimizer)
    longest = int(sizes.max())
    bound = _bound(subject.model, batch, longest)
    if bound is not None and bound <= AMPLE * free:
        return None
    ladder = [(1, order[:1])] if longest > SHORT and sizes.min() < longest else []
    ladder += [(n, order[-n:]) for n in _doubling(batch)]
    with torch.random.fork_rng(devices=[]):
        try:
            return _climbed(subject, ladder, sizes, free)
        finally:
            for parameter in parameters:
                parameter.grad = None


def _climbed(
    subject: Subject, ladder: list[tuple[int, np.ndarray]], sizes: np.ndarray, free: int
) -> Room:
    """Takes larger and larger steps, as long as the next one has room."""
    batch, before = ladder[-1][0], memory.rss_bytes()
    took: list[tuple[int, int]] = []
    fits = 0
    for n, chosen in ladder:
        tokens = n * int(sizes[chosen].max())
        if took and _expected(took, tokens) > free:
            break
        peak = _peak(subject, chosen.tolist())
        if peak is None:
            break
        # From where the first began: what it freed is still the process's.
        took.append((tokens, max(0, peak - before)))
        fits = n if int(sizes[chosen].max()) == int(sizes.max()) else 0
    longest = int(sizes.max())
    if fits:
        needed = _expected(took, batch * longest)
        return Room(needed, free, _parts(batch, fits))
    if took:
        needed = _expected(took, longest)
        room = max(1, free * longest // max(needed, 1))
        taking, fitting = f"about {size(needed)}", f" (about {count(room)} would fit)"
    else:
        taking, fitting = "more", ""
    raise TrainingError(
        f"{size(free)} of memory is free for training, and a step of one example of "
        f"{count(longest)} tokens takes {taking}. Close other programs, or use a shorter "
        f"--max-length{fitting}, a smaller model or fewer target modules."
    )


def _parts(batch: int, fits: int) -> int:
    """The smallest power of two by which a micro batch has so many examples or fewer."""
    parts = 1
    while math.ceil(batch / parts) > fits:
        parts *= 2
    return parts


def _doubling(batch: int) -> list[int]:
    """1, 2, 4, ... and the batch itself."""
    return [2**k for k in range((batch - 1).bit_length())] + [batch]


def _expected(took: list[tuple[int, int]], tokens: int) -> int:
    """Bytes of a step of so many tokens, on the line through the two largest steps so far."""
    (x, y), (more_x, more_y) = took[-2] if len(took) > 1 else (0, 0), took[-1]
    if tokens <= more_x:
        return more_y
    slope = max(0.0, (more_y - y) / max(more_x - x, 1))
    return int(more_y + slope * (tokens - more_x))


def _peak(subject: Subject, indices: list[int]) -> int | None:
    """Resident bytes of the process at the peak of one step; ``None``: there was no room."""
    examples = fetch(subject.encoded["train"], indices)
    engine: Any = subject.engine

    def step() -> None:
        engine.forward_backward(engine.collate(examples), 1.0 / len(examples))

    subject.model.train()
    try:
        return memory.peak_rss_during(step)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        subject.model.train(False)


def _bound(model: Any, batch: int, longest: int) -> int | None:
    """Bytes that a step takes at most, by the shape of the model; ``None``: it does not say.

    Of each token what the layers keep for the way back, the attention of each head, and twice the
    logits of a language model, all in float32.
    """
    config = model.config.get_text_config()
    shape = [
        getattr(config, name, None)
        for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")
    ]
    width, layers, heads = (value if isinstance(value, int) else 0 for value in shape)
    if not width * layers * heads:
        return None
    words = int(getattr(config, "vocab_size", 0)) if model.can_generate() else 0
    a_token = layers * (NUMBERS_A_LAYER * width + 4 * heads * longest) + 2 * words
    return 4 * batch * longest * a_token
