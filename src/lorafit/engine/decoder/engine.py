"""`FastDecoder`: an `Engine` that computes Llama-like models without padding or autograd.

Only what the head looks at runs through autograd: the last normalization and the head, on
the positions that have a label (language models, where the loss comes in chunks) or on the
last token of each example (classification).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from lorafit.data.batches import Example
from lorafit.engine.autograd import apply
from lorafit.engine.base import (
    Answers,
    Batch,
    StepResult,
    answers_from_logits,
    answers_from_tokens,
    check_training,
)
from lorafit.engine.batch import pack_examples
from lorafit.engine.decoder.block import Block, Positions, Saved, Stream
from lorafit.engine.decoder.layout import DecoderLayout, storage
from lorafit.engine.frozen import FrozenLinear
from lorafit.engine.kernels.counter import Seeds
from lorafit.engine.lm_loss import CHUNK_NUMBERS, IGNORED, HeadLoss, token_losses
from lorafit.model.modes import evaluating
from lorafit.tasks.base import Task


class FastDecoder:
    """Computes one model; its adapters keep their gradients where the model has them.

    Args:
        model: The adapted model, on the CPU.
        layout: Its parts, from `lorafit.engine.decoder.layout.find_layout`.
        task: Collates labels, and defines the loss of a classifier.
        tokenizer: For the padding token.
        dtype: Storage type of activations and frozen weights: float32 or bfloat16.
        training: Whether it also trains; otherwise it only answers, with the adapters merged into
            its own copy of the weights.
    """

    name = "fast"

    def __init__(
        self,
        model: nn.Module,
        layout: DecoderLayout,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        *,
        dtype: torch.dtype,
        training: bool = True,
    ) -> None:
        self.model = model
        self.layout = layout
        self.task = task
        self.tokenizer = tokenizer
        self.dtype = dtype
        self.reason = ""
        self.training = training
        self.blocks = [Block(block, dtype, merged=not training) for block in layout.blocks]
        self._head = FrozenLinear([layout.head], dtype)

    # --- batches -------------------------------------------------------------------------

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Lays the examples' tokens end to end.

        Raises:
            DataError: There is no example, an empty one, or one longer than the model takes.
        """
        layout = self.layout
        pad = layout.pad if layout.pad is not None else self.tokenizer.pad_token_id
        # A list may be all there is of it (several end-of-sequence tokens).
        batch = pack_examples(
            examples, pad if isinstance(pad, int) else 0, layout.positions, self.dtype
        )
        if not layout.causal_lm:
            labels = torch.tensor([example["labels"] for example in examples])
            return {**batch, "labels": labels, "rows": self._last_rows(examples)}
        padded = nn.utils.rnn.pad_sequence(
            [torch.tensor(example["labels"]) for example in examples],
            batch_first=True,
            padding_value=IGNORED,
        )
        # The label of a token is predicted one row before it.
        labels = torch.cat([torch.tensor(example["labels"]) for example in examples])
        labels[batch["packing"].starts[: batch["count"]].long()] = IGNORED
        rows = (labels != IGNORED).nonzero().squeeze(1)
        return {**batch, "labels": padded, "rows": rows - 1, "targets": labels[rows]}

    def _last_rows(self, examples: Sequence[Example]) -> Tensor:
        """The row a classifier looks at: transformers' rule, the last that is not padding."""
        rows, start = [], 0
        for example in examples:
            ids = example["input_ids"]
            real = [i for i, token in enumerate(ids) if token != self.layout.pad]
            last = len(ids) - 1 if self.layout.pad is None else real[-1] if real else 0
            rows.append(start + last)
            start += len(ids)
        return torch.tensor(rows)

    def units(self, examples: Sequence[Example]) -> int:
        """Label tokens of a language model, otherwise examples."""
        if not self.layout.causal_lm:
            return len(examples)
        return sum(label != IGNORED for row in examples for label in row["labels"][1:])

    # --- passes --------------------------------------------------------------------------

    def forward_backward(self, batch: Batch, scale: float) -> StepResult:
        """Adds ``scale`` times the gradient of the summed loss to every trainable ``.grad``."""
        check_training(self)
        lowest = [block.lowest_trained() for block in self.blocks]
        trained = [i for i, stage in enumerate(lowest) if stage is not None]
        bottom = trained[0] if trained else len(self.blocks)
        stream, saved, positions = self._forward(batch, Seeds.from_torch(), keep_from=bottom)
        rows = batch["rows"]
        states = stream.value().index_select(0, rows).requires_grad_(bottom < len(self.blocks))
        if self.layout.causal_lm:
            hidden = self.layout.norm(states.to(storage(self.model)))
            loss_sum = apply(HeadLoss, hidden, self._head, batch["targets"], CHUNK_NUMBERS)
            units = len(rows)
        else:
            losses = self.task.losses(self._logits(states), batch["labels"])
            loss_sum, units = losses.sum(), len(losses)
        torch.autograd.backward(loss_sum * scale)
        if states.grad is not None:
            d = torch.zeros_like(stream.x).index_add_(0, rows, states.grad)
            del stream
            self._backward(d, saved, positions, bottom, lowest[bottom])
        return StepResult(loss_sum.detach().float(), units, batch["tokens"])

    def logits(self, batch: Batch) -> Tensor:
        """Logits in evaluation mode without gradients, in the order of the examples."""
        with evaluating(self.model):
            stream, _, _ = self._forward(batch, Seeds(0), keep_from=len(self.blocks))
            states = stream.value()
            if not self.layout.causal_lm:
                return self._logits(states.index_select(0, batch["rows"]))
            lengths = list(batch["packing"].lengths[: batch["count"]])
            rows = torch.split(self._logits(states[: batch["tokens"]]), lengths)
            return nn.utils.rnn.pad_sequence(list(rows), batch_first=True)

    def answers(self, batch: Batch) -> Answers:
        """Losses and what the metrics need; of a language model from labelled positions only."""
        if not self.layout.causal_lm:
            return answers_from_logits(self.task, self.logits(batch), batch["labels"])
        with evaluating(self.model):
            stream, _, _ = self._forward(batch, Seeds(0), keep_from=len(self.blocks))
            states = stream.value().index_select(0, batch["rows"])
            hidden = self.layout.norm(states.to(storage(self.model)))
            losses, right = token_losses(hidden, self._head, batch["targets"])
        return answers_from_tokens(self.task, losses, right, self.task.units(batch["labels"]))

    def _logits(self, states: Tensor) -> Tensor:
        logits: Tensor = self.layout.head(self.layout.norm(states.to(storage(self.model))))
        return logits.float()

    @torch.no_grad()
    def _forward(
        self, batch: Batch, seeds: Seeds, keep_from: int
    ) -> tuple[Stream, list[Saved | None], Positions]:
        table: Any = self.layout.embeddings.weight
        stream = Stream(F.embedding(batch["input_ids"], table).float(), None)
        cosine, sine = self.layout.rotary(stream.x, batch["positions"][None])
        half = cosine.shape[-1] // 2
        positions = Positions(
            batch["packing"],
            cosine[0, :, :half].contiguous(),
            sine[0, :, :half].contiguous(),
        )
        saved: list[Saved | None] = []
        for i, block in enumerate(self.blocks):
            stream, kept = block.forward(stream, positions, seeds, keep=i >= keep_from)
            saved.append(kept)
        return stream, saved, positions

    @torch.no_grad()
    def _backward(
        self,
        d: Tensor,
        saved: list[Saved | None],
        positions: Positions,
        bottom: int,
        stage: int | None,
    ) -> None:
        dy: Tensor | None = d.to(self.dtype, copy=True)
        for i in range(len(self.blocks) - 1, bottom - 1, -1):
            kept = saved[i]
            saved[i] = None  # its memory is free for the blocks below
            assert dy is not None
            assert kept is not None
            stop = stage if i == bottom else None
            dy = self.blocks[i].backward(d, dy, kept, positions, stop)
