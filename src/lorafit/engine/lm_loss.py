"""Cross-entropy of a language model without the ``(tokens, vocabulary)`` matrix.

    loss_i = logsumexp(W h_i) - W[y_i] h_i,     dh_i = W^T softmax(W h_i) - W[y_i]

Only positions with a label are computed, in chunks; a chunk's logits become its gradient at
once and are gone before the next chunk. The frozen head takes no gradient. With 50,000 words
and 1,000 tokens the matrix and its gradient would be 400 MB in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lorafit.engine.autograd import apply
from lorafit.engine.frozen import FrozenLinear, padded_rows
from lorafit.engine.kernels import checked as kernels

CHUNK_NUMBERS = 1 << 24
"""Logits alive at a time (32 MB in bfloat16). With 50,000 words the head takes 146 ms for 1,020
labels in chunks of half the size, 140 in these, 149 in larger ones: the weight, too large for
the cache, is read once a chunk."""

IGNORED = -100


class HeadLoss(torch.autograd.Function):
    """Summed loss of hidden states ``(n, width)`` with labels ``(n,)``, frozen head."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: FrozenLinear, labels: Tensor, at_once: int
    ) -> Tensor:
        """The sum, float32; the gradient is made on the way."""
        total = hidden.new_zeros((), dtype=torch.float32)
        grad = torch.empty_like(hidden)
        for chunk in _chunks(len(hidden), at_once // head.widths[0], head.dtype):
            n = len(hidden[chunk])
            logits = _logits(hidden[chunk], head)
            total += kernels.softmax_loss(logits[:n], labels[chunk]).sum()
            grad[chunk] = head.backward(logits)[:n].to(grad.dtype)
        ctx.save_for_backward(grad)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Scales the stored gradient."""
        (grad,) = ctx.saved_tensors
        return grad * grads[0].to(grad.dtype), None, None, None


def _chunks(n: int, room: int, dtype: torch.dtype) -> Iterator[slice]:
    """Even parts of about ``room``, at least one row each."""
    if n:
        count = -(-n // max(room, 1))
        rows = padded_rows(-(-n // count), dtype)
        yield from (slice(start, start + rows) for start in range(0, n, rows))


def head_loss(
    hidden: Tensor, head: FrozenLinear, labels: Tensor, at_once: int = CHUNK_NUMBERS
) -> tuple[Tensor, int]:
    """Summed next-token loss over the positions that have a label.

    Args:
        hidden: Last hidden states ``(batch, length, width)``.
        head: The frozen output embedding.
        labels: ``(batch, length)``, as transformers has them: the label at a position is
            predicted from the position before it; -100 is none.
        at_once: About how many logits are alive at a time.

    Returns:
        The sum in nats, and how many labels it has.
    """
    chosen, targets = labelled(hidden, labels)
    return apply(HeadLoss, chosen, head, targets, at_once), len(chosen)


def labelled(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The states that have a next token to predict ``(tokens, width)``, and these tokens."""
    wanted = labels[:, 1:] != IGNORED
    return hidden[:, :-1][wanted], labels[:, 1:][wanted]


@torch.no_grad()
def token_losses(hidden: Tensor, head: FrozenLinear, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of each token, and whether the likeliest one is right, without gradients.

    Args:
        hidden: Last hidden states ``(tokens, width)``.
        head: The output embedding.
        labels: ``(tokens,)``.

    Returns:
        ``(tokens,)`` in nats, float32, and ``(tokens,)`` bool.
    """
    losses = hidden.new_zeros(len(hidden), dtype=torch.float32)
    right = torch.zeros(len(hidden), dtype=torch.bool)
    for chunk in _chunks(len(hidden), CHUNK_NUMBERS // head.widths[0], head.dtype):
        logits = _logits(hidden[chunk], head)[: len(labels[chunk])]
        right[chunk] = logits.argmax(dim=-1) == labels[chunk]
        losses[chunk] = kernels.softmax_loss(logits, labels[chunk])
    return losses, right


def _logits(hidden: Tensor, head: FrozenLinear) -> Tensor:
    """``(n, width)`` to ``(n, words)``, and perhaps a few rows more (`padded_rows`)."""
    more = padded_rows(len(hidden), head.dtype) - len(hidden)
    return head.forward(F.pad(hidden.to(head.dtype), (0, 0, 0, more)).contiguous())
