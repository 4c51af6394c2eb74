"""The engine for any transformers model: plain torch, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from lorafit.data.batches import Example
from lorafit.engine.base import (
    Answers,
    Batch,
    StepResult,
    answers_from_logits,
    answers_from_tokens,
)
from lorafit.engine.batch import check_examples
from lorafit.engine.own_head import OwnHead
from lorafit.machine.placement import find_device
from lorafit.model.modes import evaluating
from lorafit.tasks.base import Task


class EagerEngine:
    """Runs the model as it is.

    Args:
        model: Any transformers model; moved to the device, in place.
        task: Collates, and defines the loss.
        tokenizer: For padding.
        device: Where it computes; ``None``: what accelerate picks for this process (CUDA, MPS or
            CPU).
        autocast: Compute in bfloat16 where torch holds it safe; weights stay as they are.
    """

    name = "eager"
    logits_at_once = 1 << 27
    """Logits that are evaluated at a time (512 MB in float32) where only the whole model has them:
    those of others come in parts (`lorafit.engine.own_head`)."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        device: torch.device | None = None,
        *,
        autocast: bool = False,
    ) -> None:
        self.device = device or find_device()
        # Not Accelerator.prepare: its mixed precision is fixed once a process and replaces the
        # model's forward, which later code (merge, export, another run) would inherit.
        self.model = model.to(self.device)
        self.task = task
        self.tokenizer = tokenizer
        self.autocast = autocast
        self.reason = "plain torch runs every model"
        self._head = OwnHead.of(model, task)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Pads examples into the model's arguments and ``labels``, on the device.

        Raises:
            DataError: There is no example, or an empty one.
        """
        check_examples(examples)
        batch = self.task.collate(examples, self.tokenizer)
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def units(self, examples: Sequence[Example]) -> int:
        """As the task counts them: one an example, or one a labelled token."""
        return self.task.count(examples)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    def _forward(self, batch: Batch) -> torch.Tensor:
        with self._autocast():
            logits: torch.Tensor = self.model(**_inputs(batch)).logits
        return logits

    def _in_parts(self, batch: Batch) -> OwnHead | None:
        """What computes the logits in parts, where they are too many at once."""
        head = self._head
        return head if head is not None and head.wanted(_inputs(batch), batch["labels"]) else None

    def forward_backward(self, batch: Batch, scale: float) -> StepResult:
        """Adds ``scale`` times the gradient of the summed loss to every trainable ``.grad``."""
        if (head := self._in_parts(batch)) is not None:
            with self._autocast():
                loss_sum, _ = head.loss(_inputs(batch), batch["labels"])
        else:
            loss_sum = self.task.losses(self._forward(batch), batch["labels"]).sum()
        torch.autograd.backward(loss_sum * scale)
        return StepResult(
            loss_sum=loss_sum.detach().float(),
            units=int(self.task.units(batch["labels"]).sum()),
            tokens=_tokens(batch),
        )

    def logits(self, batch: Batch) -> torch.Tensor:
        """Logits in evaluation mode without gradients, in the order of the examples."""
        with evaluating(self.model):
            return self._forward(batch)

    def answers(self, batch: Batch) -> Answers:
        """Losses and what the metrics need, of as many examples at a time as fit the memory."""
        if (head := self._in_parts(batch)) is not None:
            with evaluating(self.model), self._autocast():
                found = head.token_losses(_inputs(batch), batch["labels"])
            return answers_from_tokens(self.task, *found, self.task.units(batch["labels"]))
        rows = self._rows_at_once(batch["labels"])
        slices = [slice(at, at + rows) for at in range(0, len(batch["labels"]), rows)]
        parts = [{name: tensor[chosen] for name, tensor in batch.items()} for chosen in slices]
        return Answers.joined(
            [answers_from_logits(self.task, self.logits(part), part["labels"]) for part in parts]
        )

    def _rows_at_once(self, labels: torch.Tensor) -> int:
        """Examples whose logits of every token and word are few enough."""
        if self.task.supervision not in ("next_token", "target"):
            return len(labels)
        config: Any = self.model.config
        words = int(config.get_text_config(decoder=True).vocab_size)
        return max(1, self.logits_at_once // (words * labels.shape[1]))


def _inputs(batch: Batch) -> dict[str, torch.Tensor]:
    """The model's arguments."""
    return {name: value for name, value in batch.items() if name != "labels"}


def _tokens(batch: Batch) -> int:
    """Real tokens: the ones in ``attention_mask``, or all of ``input_ids`` without a mask."""
    mask = batch.get("attention_mask")
    return int(batch["input_ids"].numel() if mask is None else mask.sum())
