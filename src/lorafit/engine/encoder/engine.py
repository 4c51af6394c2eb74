"""`FastEncoder`: an `Engine` that computes BERT-like models without padding or autograd.

The tokens of a batch lie end to end. Only the head runs through autograd, on the states it
looks at; from there backward is written out, block by block, and stops below the lowest
layer that trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from lorafit.data.batches import Example
from lorafit.engine.base import (
    Answers,
    Batch,
    StepResult,
    answers_from_logits,
    check_training,
)
from lorafit.engine.batch import pack_examples
from lorafit.engine.encoder.block import Block, Gradient, Saved, Stream, dropout_p
from lorafit.engine.encoder.layout import EncoderLayout
from lorafit.engine.frozen import base_of
from lorafit.engine.kernels import checked as kernels
from lorafit.engine.kernels.counter import Seeds
from lorafit.engine.kernels.shapes import Residual
from lorafit.engine.packing import Packing
from lorafit.model.modes import evaluating
from lorafit.tasks.base import Task


class FastEncoder:
    """Computes one model; its adapters keep their gradients where the model has them.

    Args:
        model: The adapted model, on the CPU.
        layout: Its parts, from `lorafit.engine.encoder.support.find_layout`.
        task: Collates labels, and defines the loss.
        tokenizer: For the padding token, and for labels of every token.
        dtype: Storage type of activations and frozen weights: float32 or bfloat16.
        training: Whether it also trains; otherwise it only answers, with the adapters merged into
            its own copy of the weights.
    """

    name = "fast"

    def __init__(
        self,
        model: nn.Module,
        layout: EncoderLayout,
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
        last = len(layout.blocks) - 1
        self.blocks = [
            Block(block, dtype, layout.pools_first and i == last, merged=not training)
            for i, block in enumerate(layout.blocks)
        ]
        embeddings: Any = layout.embeddings
        self._positions = int(embeddings.position_embeddings.num_embeddings)

    # --- batches -------------------------------------------------------------------------

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Lays the examples' tokens end to end.

        Raises:
            DataError: There is no example, an empty one, or one longer than the model takes.
        """
        room = self._positions - self.layout.position_offset
        batch = pack_examples(examples, self.tokenizer.pad_token_id or 0, room, self.dtype)
        return {**batch, "labels": self._labels(examples)}

    def _labels(self, examples: Sequence[Example]) -> Tensor:
        if self.layout.pools_first:
            return torch.tensor([example["labels"] for example in examples])
        return self.task.collate(examples, self.tokenizer)["labels"]

    def units(self, examples: Sequence[Example]) -> int:
        """As the task counts them: one an example, or one a labelled token."""
        return self.task.count(examples)

    # --- passes --------------------------------------------------------------------------

    def forward_backward(self, batch: Batch, scale: float) -> StepResult:
        """Adds ``scale`` times the gradient of the summed loss to every trainable ``.grad``."""
        check_training(self)
        lowest = [block.lowest_trained() for block in self.blocks]
        trained = [i for i, stage in enumerate(lowest) if stage is not None]
        bottom = trained[0] if trained else len(self.blocks)
        states, saved = self._states(batch, Seeds.from_torch(), keep_from=bottom)
        states.requires_grad_(bottom < len(self.blocks))
        losses = self.task.losses(self._logits(states, batch), batch["labels"])
        loss_sum = losses.sum()
        torch.autograd.backward(loss_sum * scale)
        if states.grad is not None:
            with torch.no_grad():
                self._backward(
                    states.grad.contiguous(), saved, batch["packing"], bottom, lowest[bottom]
                )
        units = int(self.task.units(batch["labels"]).sum())
        return StepResult(loss_sum.detach().float(), units, batch["tokens"])

    def logits(self, batch: Batch) -> Tensor:
        """Logits in evaluation mode without gradients, in the order of the examples."""
        with evaluating(self.model):
            states, _ = self._states(batch, Seeds(0), keep_from=len(self.blocks))
            return self._logits(states, batch)

    def answers(self, batch: Batch) -> Answers:
        """Losses and what the metrics need."""
        return answers_from_logits(self.task, self.logits(batch), batch["labels"])

    @torch.no_grad()
    def _states(
        self, batch: Batch, seeds: Seeds, keep_from: int
    ) -> tuple[Tensor, list[Saved | None]]:
        """The last hidden states, float32, one row per packed token or (pooled) sequence."""
        stream = self._embed(batch, seeds)
        saved: list[Saved | None] = []
        for i, block in enumerate(self.blocks):
            stream, kept = block.forward(stream, batch["packing"], seeds, keep=i >= keep_from)
            saved.append(kept)
        return stream.residual.value(), saved

    def _embed(self, batch: Batch, seeds: Seeds) -> Stream:
        parts: Any = self.layout.embeddings
        x = F.embedding(batch["input_ids"], base_of(parts.word_embeddings).weight)  # type: ignore[arg-type]
        positions = batch["positions"] + self.layout.position_offset
        x = x + F.embedding(positions, parts.position_embeddings.weight)
        if hasattr(parts, "token_type_embeddings"):
            table = parts.token_type_embeddings.weight
            types = batch.get("token_type_ids")
            x = x + (table[0] if types is None else F.embedding(types, table))
        norm = parts.LayerNorm
        x = F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps).float()
        x = kernels.dropout(x, seeds.drop(dropout_p(parts.dropout)))
        if self.layout.projection is not None:
            x = self.layout.projection(x)
        return Stream(x.to(self.dtype), Residual(x))

    def _logits(self, states: Tensor, batch: Batch) -> Tensor:
        """The head on the real examples; labels of every token: padded like them."""
        dtype = next(self.model.parameters()).dtype
        if self.layout.pools_first:
            logits = self.layout.head(states[: batch["count"], None].to(dtype))
            return logits.float()
        per_token = self.layout.head(states[: batch["tokens"]].to(dtype)).float()
        lengths = list(batch["packing"].lengths[: batch["count"]])
        rows = torch.split(per_token, lengths)
        return nn.utils.rnn.pad_sequence(list(rows), batch_first=True)

    def _backward(
        self,
        grad: Tensor,
        saved: list[Saved | None],
        packing: Packing,
        bottom: int,
        stage: int | None,
    ) -> None:
        gradient: Gradient | None = Gradient(grad, None)
        for i in range(len(self.blocks) - 1, bottom - 1, -1):
            kept = saved[i]
            saved[i] = None  # its memory is free for the blocks below
            assert gradient is not None
            assert kept is not None
            stop = stage if i == bottom else None
            gradient = self.blocks[i].backward(gradient, kept, packing, stop)
