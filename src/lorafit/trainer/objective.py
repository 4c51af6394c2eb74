"""What a model learns when a Trainer calls it with ``labels``: the loss of its own ``forward``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.auto import modeling_auto

from lorafit.data.batches import Example
from lorafit.engine.lm_loss import IGNORED
from lorafit.engine.support import Unsupported
from lorafit.tasks.base import Supervision

Kind = Literal["classes", "several", "number", "tokens", "next_token"]

_FAMILIES: dict[str, tuple[Any, ...]] = {
    "next_token": (modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,),
    "sequence": (modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,),
    "tokens": (
        modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    ),
}


def _names(mappings: tuple[Any, ...]) -> set[str]:
    values = [value for mapping in mappings for value in mapping.values()]
    return {name for value in values for name in ((value,) if isinstance(value, str) else value)}


_HEADS = {family: _names(mappings) for family, mappings in _FAMILIES.items()}


def head_of(model: nn.Module) -> str:
    """Which of the heads a model has: ``sequence``, ``tokens`` or ``next_token``.

    Raises:
        Unsupported: None of them.
    """
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise Unsupported(f"{type(model).__name__} is an encoder-decoder")
    for base in type(model).__mro__:
        for family, names in _HEADS.items():
            if base.__name__ in names:
                return family
    raise Unsupported(f"{type(model).__name__} has no head for sequences, tokens or the next token")


class Objective:
    """What the engines call of a task, for a model's own loss.

    Losses are those of transformers' ``ForSequenceClassificationLoss``, ``ForTokenClassification``,
    ``ForMaskedLMLoss`` and ``ForCausalLMLoss`` (loss/loss_utils.py), as sums over examples.

    Args:
        model: The base model.
        head: From `head_of`.
    """

    def __init__(self, model: nn.Module, head: str) -> None:
        self.config: Any = getattr(model, "config", None)
        self.head = head
        pad = getattr(self.config, "pad_token_id", None)
        self.pad_token_id = pad if isinstance(pad, int) else 0
        self.task_type = "CAUSAL_LM" if head == "next_token" else "SEQ_CLS"
        learned: dict[str, Supervision] = {"next_token": "next_token", "tokens": "token"}
        self.supervision = learned.get(head, "example")

    def kind(self, labels: Tensor) -> Kind:
        """The loss for such labels, as the model chooses it."""
        if self.head == "next_token":
            return "next_token"
        if self.head == "tokens":
            return "tokens"
        kinds: dict[str, Kind] = {
            "regression": "number",
            "single_label_classification": "classes",
            "multi_label_classification": "several",
        }
        known = kinds.get(getattr(self.config, "problem_type", None) or "")
        if known is not None:
            return known
        if self.config.num_labels == 1:
            return "number"
        return "several" if labels.is_floating_point() else "classes"

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Summed loss of each example in nats, float32: ``(n, ...)`` to ``(n,)``."""
        logits = logits.float()
        match self.kind(labels):
            case "number":
                found = F.mse_loss(
                    logits.flatten(1), labels.float().view(len(logits), -1), reduction="none"
                )
                return found.mean(dim=1)
            case "several":
                found = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
                return found.mean(dim=1)
            case "classes":
                return F.cross_entropy(
                    logits, labels.view(-1), reduction="none", ignore_index=IGNORED
                )
            case "next_token":
                logits, labels = logits[:, :-1], labels[:, 1:]
        found = F.cross_entropy(
            logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED
        )
        return found.sum(dim=1)

    def units(self, labels: Tensor) -> Tensor:
        """How many losses each sum has, ``(n,)`` int64."""
        match self.kind(labels):
            case "number" | "several":
                return torch.ones(len(labels), dtype=torch.int64)
            case "next_token":
                labels = labels[:, 1:]
        return (labels != IGNORED).view(len(labels), -1).sum(dim=1)

    def count(self, examples: Sequence[Example]) -> int:
        """How many losses encoded examples have."""
        return sum(
            int(self.units(torch.as_tensor(example["labels"])[None]).sum()) for example in examples
        )

    def collate(self, examples: Sequence[Example], _tokenizer: object) -> dict[str, Tensor]:
        """Pads examples on the right into the model's arguments and ``labels``."""
        rows = {
            name: [torch.as_tensor(example[name]) for example in examples] for name in examples[0]
        }
        fills = {"input_ids": self.pad_token_id, "token_type_ids": 0, "labels": IGNORED}
        batch = {
            name: torch.stack(values)
            if values[0].dim() == 0 or (name == "labels" and self.head == "sequence")
            else nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=fills[name])
            for name, values in rows.items()
        }
        ones = [torch.ones_like(row) for row in rows["input_ids"]]
        batch["attention_mask"] = nn.utils.rnn.pad_sequence(ones, batch_first=True)
        return batch

    def keep(self, logits: Tensor, _labels: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Nothing but the losses is wanted of `Engine.answers` here."""
        return np.zeros(len(logits)), np.zeros(len(logits))

    def keep_tokens(
        self, _losses: Tensor, _right: Tensor, counts: Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        """Likewise."""
        return np.zeros(len(counts)), np.zeros(len(counts))

    def token_sums(self, losses: Tensor, counts: Tensor) -> Tensor:
        """Sums losses of labelled tokens by example, ``(n,)``."""
        owner = torch.repeat_interleave(counts)
        return losses.new_zeros(len(counts)).index_add(0, owner, losses)
