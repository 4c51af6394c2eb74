"""The hand-off check: what was saved, and what was merged, compute what was trained.

It compares logits on real inputs, so whatever goes wrong on the way (a key, a scale, a head
left out) shows as a number.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from datasets import Dataset

from lorafit.engine.base import Engine
from lorafit.errors import HandoffError
from lorafit.evidence import HandOff
from lorafit.tasks.base import Task
from lorafit.tasks.parts.labels import UNKNOWN

Logits = np.ndarray | Callable[[], np.ndarray]
"""Logits ``(n, ...)``, or what computes them."""

_TOKEN_ROWS = 4
"""Examples at a time where there are logits of every token."""

TOLERANCE = {"float32": 1e-5, "bfloat16": 5e-2, "float16": 5e-3}
"""Largest allowed difference relative to the largest logit, by the format of the frozen
weights: merging rounds the sum to that format (float32 has 24 bits of precision, bfloat16 8
and float16 11)."""

MERGED = 5e-5
"""The least that is allowed of a merged model, in logits that are below 1, and of the largest where
they are above. Its weights are rounded once more, and a head that was solved for magnifies small
differences between features, and with them their rounding. A probability changes by a quarter of it
at most. What is reloaded has the very weights."""


def check_handoff(
    live: Logits,
    *,
    reloaded: Logits | None = None,
    merged: Logits | None = None,
    base: Logits | None = None,
    tolerance: float = TOLERANCE["float32"],
) -> HandOff:
    """Compares the live model with what was written, and returns the differences.

    Args:
        live: Logits of the trained model in memory.
        reloaded: Logits of a fresh base with the saved adapter.
        merged: Logits of the merged model.
        base: Logits of the base alone. After training they have to differ from ``live``:
            where they do not, agreement of the others shows nothing.
        tolerance: Largest allowed difference, relative to the largest live logit; of a merged
            model at least `MERGED`.

    Returns:
        The largest differences, of those given.

    Raises:
        HandoffError: A difference is above the tolerance, logits are not finite or of
            another shape, or the trained model equals the base.
    """
    expected = _compute(live, "live")
    scale = float(np.abs(expected).max())
    rounded = max(tolerance * scale, MERGED * max(scale, 1.0))
    limits = {"reloaded": tolerance * scale, "merged": rounded}
    result: dict[str, float] = {}
    failed: list[str] = []
    for name, logits in (("reloaded", reloaded), ("merged", merged)):
        if logits is None:
            continue
        found = _compute(logits, name)
        if found.shape != expected.shape:
            raise HandoffError(
                f"the {name} model gives logits of shape {found.shape}, the live model of "
                f"{expected.shape}. They are not the same model."
            )
        difference, allowed = max_abs_diff(expected, found), limits[name]
        result[name] = difference
        if difference > allowed:
            differing = int((np.abs(expected - found) > allowed).any(axis=-1).sum())
            failed.append(
                f"the {name} model differs by up to {difference:.2e} in {differing:,} of "
                f"{int(np.prod(expected.shape[:-1])):,} examples, {allowed:.2e} is allowed"
            )
    if failed:
        raise HandoffError(
            f"{' and '.join(failed)}; the largest logit is {scale:.3g}. The trained weights are "
            "safe in the run's checkpoints; do not use what was exported."
        )
    if base is not None and max_abs_diff(expected, _compute(base, "base")) == 0.0:
        raise HandoffError(
            "the trained model gives exactly the base model's logits: nothing was learned, or "
            "the adapter is not active. The check of the hand-off would show nothing."
        )
    return HandOff(**result, n=len(expected), tolerance=tolerance)


def sampled_logits(engine: Engine, task: Task, encoded: Dataset, batch_size: int) -> np.ndarray:
    """Logits ``(n, outputs)``: of each example, of each labelled token, or of its last one.

    The last is where the outputs are words: logits of every token and word of a few examples
    would fill the memory, and the last token of a decoder has seen all others.

    Args:
        engine: Computes the logits; its batches are padded.
        task: Says what is labelled.
        encoded: The examples.
        batch_size: Examples at a time.
    """
    found = []
    rows = batch_size if task.supervision == "example" else min(batch_size, _TOKEN_ROWS)
    for at in range(0, len(encoded), rows):
        batch = engine.collate(encoded.__getitems__(range(at, min(at + rows, len(encoded)))))
        logits = engine.logits(batch).detach().float().cpu()
        if task.supervision != "example":
            known = torch.as_tensor(batch["labels"]).cpu() != UNKNOWN
            if task.supervision == "token":
                found.append(logits[known].numpy())
                continue
            last = known.shape[1] - 1 - known.flip(1).long().argmax(dim=1)
            logits = logits[torch.arange(len(logits)), last]
        found.append(logits.numpy())
    return np.concatenate(found)


def max_abs_diff(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the largest absolute difference of two arrays of one shape."""
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())


def _compute(logits: Logits, name: str) -> np.ndarray:
    found = np.asarray(logits() if callable(logits) else logits, dtype=np.float64)
    if found.size == 0:
        raise HandoffError(f"there are no {name} logits to compare.")
    if not np.isfinite(found).all():
        raise HandoffError(f"the {name} model gives logits that are not finite.")
    return found
