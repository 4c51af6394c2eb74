"""`GenericEngine`: any transformers model on the CPU, through its own forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from lorafit.data.batches import Example
from lorafit.engine.base import (
    Answers,
    Batch,
    StepResult,
    answers_from_logits,
    answers_from_tokens,
    check_training,
)
from lorafit.engine.batch import check_examples
from lorafit.engine.generic.intercept import SMALLEST, Interception, Parts
from lorafit.engine.generic.lm import LanguageHead, label_count
from lorafit.engine.generic.split import split_by_length
from lorafit.engine.kernels.counter import Seeds
from lorafit.engine.own_head import OwnHead
from lorafit.machine.allocator import keep_freed_memory
from lorafit.model.modes import evaluating
from lorafit.tasks.base import Task


class GenericEngine:
    """Runs the model's own modules with faster frozen layers, adapters and dropout.

    Args:
        model: The adapted model, on the CPU.
        task: Collates, and defines the loss.
        tokenizer: For padding.
        dtype: bfloat16: as under torch's autocast, frozen weights laid out once; float32.
        smallest: Weights of fewer numbers are left to torch.
        training: Whether it also trains; otherwise it only answers, with the adapters merged into
            its own copy of the weights.
    """

    name = "generic"

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        *,
        dtype: torch.dtype,
        smallest: int = SMALLEST,
        training: bool = True,
    ) -> None:
        keep_freed_memory()
        self.model = model
        self.task = task
        self.tokenizer = tokenizer
        self.dtype = dtype
        self.reason = ""
        self.training = training
        self._parts = Parts(model, dtype, smallest, training)
        causal_lm = getattr(task, "task_type", None) == "CAUSAL_LM"
        self.language = LanguageHead(model, dtype) if causal_lm else None
        # Where the logits are more than a frozen product.
        plain = self.language is not None and self.language.head is not None
        self._own = None if plain else OwnHead.of(model, task)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Pads the examples in groups of like length.

        Raises:
            DataError: There is no example, or an empty one.
        """
        groups = split_by_length(check_examples(examples))
        whole = self.task.collate(examples, self.tokenizer)
        if len(groups) == 1:
            return {"parts": [whole], "order": range(len(examples)), "labels": whole["labels"]}
        chosen = [[examples[i] for i in group] for group in groups]
        parts = [self.task.collate(group, self.tokenizer) for group in chosen]
        order = [index for group in groups for index in group]
        return {"parts": parts, "order": order, "labels": whole["labels"]}

    def units(self, examples: Sequence[Example]) -> int:
        """Label tokens of a language model; otherwise as the task counts."""
        if self.language is not None:
            return sum(label_count(example["labels"]) for example in examples)
        return self.task.count(examples)

    @contextmanager
    def _faster(self, seeds: Seeds) -> Iterator[None]:
        interception = Interception(self._parts, seeds)
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16)
        with autocast, interception.fused_adapters(), interception:
            yield

    def _logits(self, part: dict[str, Tensor], seeds: Seeds) -> Tensor:
        with self._faster(seeds):
            logits: Tensor = self.model(**_inputs(part)).logits
        return logits.float()

    def _in_parts(self, part: dict[str, Tensor]) -> OwnHead | None:
        """What computes the logits in parts, where they are too many at once."""
        own = self._own
        return own if own is not None and own.wanted(_inputs(part), part["labels"]) else None

    def _loss(self, part: dict[str, Tensor], seeds: Seeds) -> tuple[Tensor, int]:
        if (own := self._in_parts(part)) is not None:
            with self._faster(seeds):
                return own.loss(_inputs(part), part["labels"])
        if self.language is None:
            losses = self.task.losses(self._logits(part, seeds), part["labels"])
            return losses.sum(), int(self.task.units(part["labels"]).sum())
        with self._faster(seeds):
            return self.language.loss(_inputs(part), part["labels"])

    def forward_backward(self, batch: Batch, scale: float) -> StepResult:
        """Adds ``scale`` times the gradient of the summed loss to every trainable ``.grad``."""
        check_training(self)
        seeds = Seeds.from_torch()
        total, units, tokens = torch.zeros(()), 0, 0
        for part in batch["parts"]:
            loss_sum, count = self._loss(part, seeds)
            torch.autograd.backward(loss_sum * scale)
            total += loss_sum.detach().float()
            units += count
            mask = part.get("attention_mask")
            tokens += int(part["input_ids"].numel() if mask is None else mask.sum())
        return StepResult(total, units, tokens)

    def logits(self, batch: Batch) -> Tensor:
        """Logits in evaluation mode without gradients, in the order of the examples."""
        with evaluating(self.model):
            parts = [self._logits(part, Seeds(0)) for part in batch["parts"]]
        if len(parts) == 1:
            return parts[0]
        # Logits of every token have the length of their group.
        rows = [row for part in parts for row in part]
        found = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        result = torch.empty_like(found)
        result[batch["order"]] = found
        return result

    def answers(self, batch: Batch) -> Answers:
        """Losses and what the metrics need; of a language model from labelled positions only."""
        with evaluating(self.model):
            parts = [self._answers(part) for part in batch["parts"]]
        return Answers.joined(parts, np.argsort(batch["order"]))

    def _answers(self, part: dict[str, Tensor]) -> Answers:
        labels, found = part["labels"], None
        head = self._in_parts(part) or self.language
        if head is not None:
            with self._faster(Seeds(0)):
                found = head.token_losses(_inputs(part), labels)
        if found is None:
            return answers_from_logits(self.task, self._logits(part, Seeds(0)), labels)
        return answers_from_tokens(self.task, *found, self.task.units(labels))


def _inputs(part: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's arguments."""
    return {name: value for name, value in part.items() if name != "labels"}
