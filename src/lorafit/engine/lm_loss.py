"""Cross-entropy of a language model without the ``(tokens, vocabulary)`` matrix.

    loss_i = logsumexp(W h_i) - W[y_i] h_i,     dh_i = W^T softmax(W h_i) - W[y_i]

Only positions with a label are computed, in chunks; a chunk's logits become its gradient at
once and are gone before the next chunk. The frozen head takes no gradient. With 50,000 words
and 1,000 tokens the matrix and its gradient would be 400 MB in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lorafit.engine import kernels

CHUNK_NUMBERS = 1 << 23
"""Logits alive at a time (32 MB in float32)."""

IGNORED = -100


class HeadLoss(torch.autograd.Function):
    """Summed loss of hidden states ``(n, width)`` with labels ``(n,)``, frozen head."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor
    ) -> Tensor:
        """The sum, float32; the gradient is made on the way."""
        rows = max(1, CHUNK_NUMBERS // len(weight))
        dtype = weight.dtype
        total = hidden.new_zeros((), dtype=torch.float32)
        grad = torch.empty_like(hidden)
        for start in range(0, len(hidden), rows):
            chunk = slice(start, start + rows)
            logits = F.linear(hidden[chunk].to(dtype), weight, bias).contiguous()
            total += kernels.softmax_loss(logits, labels[chunk]).sum()
            grad[chunk] = (logits @ weight).to(grad.dtype)
        ctx.save_for_backward(grad)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Scales the stored gradient."""
        (grad,) = ctx.saved_tensors
        return grad * grads[0].to(grad.dtype), None, None, None


def head_loss(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor
) -> tuple[Tensor, int]:
    """Summed next-token loss over the positions that have a label.

    Args:
        hidden: Last hidden states ``(batch, length, width)``.
        weight: Frozen output embedding ``(vocabulary, width)``.
        bias: ``(vocabulary,)`` or ``None``.
        labels: ``(batch, length)``, as transformers has them: the label at a position is
            predicted from the position before it; -100 is none.

    Returns:
        The sum in nats, and how many labels it has.
    """
    chosen, targets = labelled(hidden, labels)
    loss: Tensor = HeadLoss.apply(  # type: ignore[no-untyped-call]
        chosen, weight.detach(), None if bias is None else bias.detach(), targets
    )
    return loss, len(chosen)


def labelled(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The states that have a next token to predict ``(tokens, width)``, and these tokens."""
    wanted = labels[:, 1:] != IGNORED
    return hidden[:, :-1][wanted], labels[:, 1:][wanted]


@torch.no_grad()
def token_losses(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss of each token, and whether the likeliest one is right, without gradients.

    Args:
        hidden: Last hidden states ``(tokens, width)``.
        weight: Output embedding ``(vocabulary, width)``.
        bias: ``(vocabulary,)`` or ``None``.
        labels: ``(tokens,)``.

    Returns:
        ``(tokens,)`` in nats, float32, and ``(tokens,)`` bool.
    """
    rows = max(1, CHUNK_NUMBERS // len(weight))
    losses, right = [hidden.new_zeros(0, dtype=torch.float32)], [labels.new_zeros(0) == 0]
    for start in range(0, len(hidden), rows):
        chunk = slice(start, start + rows)
        logits = F.linear(hidden[chunk].to(weight.dtype), weight, bias).float()
        losses.append(F.cross_entropy(logits, labels[chunk], reduction="none"))
        right.append(logits.argmax(dim=-1) == labels[chunk])
    return torch.cat(losses), torch.cat(right)
