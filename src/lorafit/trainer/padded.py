"""A padded batch, as a data collator makes it, taken apart into its examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lorafit.data.batches import Example
from lorafit.engine.lm_loss import IGNORED
from lorafit.engine.support import Unsupported

_INPUTS = {"input_ids", "attention_mask", "token_type_ids", "labels"}


@dataclass(frozen=True)
class Padded:
    """One batch.

    Attributes:
        examples: Without padding: ``input_ids``, perhaps ``token_type_ids``, and ``labels``.
        mask: Which positions are real, ``(n, length)`` bool.
        labels: As they came; ``None``: the batch has none.
    """

    examples: list[Example]
    mask: Tensor
    labels: Tensor | None

    def scattered(self, logits: Tensor) -> Tensor:
        """Logits of every token, ``(n, longest, ...)``, at the places of the padded batch.

        What stands at padding is zero; the model's own numbers there mean nothing.
        """
        places = torch.zeros(*self.mask.shape, *logits.shape[2:], dtype=logits.dtype)
        lengths = self.mask.sum(dim=1)
        real = torch.arange(logits.shape[1])[None] < lengths[:, None]
        places[self.mask] = logits[real]
        return places


def take_apart(
    inputs: Mapping[str, Any], head: str, pad: int | None, *, padded_left: bool
) -> Padded:
    """The examples of a batch.

    Args:
        inputs: The model's arguments.
        head: From `lorafit.trainer.objective.head_of`.
        pad: The model's padding token, ``None``: it has none.
        padded_left: Whether padding on the left leaves what the model computes as it is.

    Raises:
        Unsupported: The model would compute something else of the examples alone.
    """
    given = {name: value for name, value in inputs.items() if value is not None}
    if extra := sorted(given.keys() - _INPUTS):
        raise Unsupported(f"the batch has {', '.join(extra)}")
    if not all(isinstance(value, Tensor) for value in given.values()) or "input_ids" not in given:
        raise Unsupported("the batch is not made of input_ids and other tensors")
    ids = given["input_ids"]
    mask = given.get("attention_mask", torch.ones_like(ids))
    if ids.dim() != 2 or mask.shape != ids.shape:
        raise Unsupported("input_ids or attention_mask are not (examples, tokens)")
    real = mask.bool()
    _check_padding(ids, mask, real, pad, padded_left)
    labels = given.get("labels")
    if labels is not None:
        _check_labels(labels, real, head)
    types = given.get("token_type_ids")
    examples: list[Example] = []
    for row, keep in enumerate(real):
        example: dict[str, object] = {"input_ids": ids[row][keep].tolist()}
        if types is not None:
            example["token_type_ids"] = types[row][keep].tolist()
        if head == "sequence":
            example["labels"] = 0 if labels is None else labels[row].tolist()
        elif labels is None:
            example["labels"] = [IGNORED] * len(example["input_ids"])  # type: ignore[arg-type]
        else:
            example["labels"] = labels[row][keep].tolist()
        examples.append(example)
    return Padded(examples, real, labels)


def _check_padding(
    ids: Tensor, mask: Tensor, real: Tensor, pad: int | None, padded_left: bool
) -> None:
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise Unsupported("attention_mask has other values than 0 and 1")
    if not bool(real.any(dim=1).all()):
        raise Unsupported("an example of the batch is empty")
    if bool(real.all()):
        return
    if bool((~real[:, :-1] & real[:, 1:]).any()):
        # A token after padding: all padding has to be before all tokens then.
        if bool((real[:, :-1] & ~real[:, 1:]).any()):
            raise Unsupported("the batch is padded between tokens, or on both sides")
        if not padded_left:
            raise Unsupported("the batch is padded on the left")
    # Some models know padding by its token, and not by the mask.
    if pad is not None and not bool((ids[~real] == pad).all()):
        raise Unsupported("the batch is not padded with the model's padding token")


def _check_labels(labels: Tensor, real: Tensor, head: str) -> None:
    if head == "sequence":
        if len(labels) != len(real):
            raise Unsupported("there are more or fewer labels than examples")
        return
    if labels.shape != real.shape:
        raise Unsupported("the labels are not (examples, tokens)")
    counted = labels != IGNORED
    # A causal model predicts the first token from the padding before it.
    first = real & ~torch.nn.functional.pad(real[:, :-1], (1, 0), value=False)
    first[:, 0] = False
    if bool((counted & ~real).any()) or (head == "next_token" and bool((counted & first).any())):
        raise Unsupported("padding has labels")
