"""One encoder block, forward and backward.

    q, k, v = x W_qkv                     c = attention(q, k, v)
    x1 = norm(x + dropout(c W_o))         x2 = norm(x1 + dropout(f(x1 W_up) W_down))

Matrix products read and write the storage type (bfloat16 or float32). The residual stream
and its gradient stay in float32: each normalization keeps its xhat, of which the next one
makes the residual (`lorafit.engine.kernels.shapes.Residual`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lorafit.engine.adapted import Applied, Projection, add_gradients
from lorafit.engine.encoder.layout import BlockLayout
from lorafit.engine.kernels import checked as kernels
from lorafit.engine.kernels.counter import Drop, Seeds
from lorafit.engine.kernels.shapes import Heads, Residual
from lorafit.engine.packing import Packing

STAGES = ("attention input", "attention output", "up", "down")
"""The projections of a block, in forward order; backward may stop at one of them."""


@dataclass
class Stream:
    """The hidden states between two blocks.

    Attributes:
        x: ``(rows, width)`` in the storage type, for the products.
        residual: The same in float32.
    """

    x: Tensor
    residual: Residual


@dataclass
class Gradient:
    """The gradient of a stream: ``d + extra``, float32 and storage type."""

    d: Tensor
    extra: Tensor | None


@dataclass
class Saved:
    """What backward needs of one forward pass through a block."""

    heads: Heads
    x: Tensor
    x_query: Tensor
    q: Tensor
    kv: Tensor
    lse: Tensor
    context: Tensor
    norm1: tuple[Tensor, Tensor]
    x1: Tensor
    hidden: Tensor
    activated: Tensor
    norm2: tuple[Tensor, Tensor]
    drops: tuple[Drop, Drop, Drop]
    applied: dict[str, list[Applied]] = field(default_factory=dict)


class Norm:
    """A frozen layer normalization with its dropout before it."""

    def __init__(self, norm: nn.Module, dropout: nn.Module | None) -> None:
        layer: Any = norm
        self.gamma = layer.weight.detach().float().contiguous()
        self.beta = layer.bias.detach().float().contiguous()
        self.eps = float(layer.eps)
        self._dropout = dropout

    def drop(self, seeds: Seeds) -> Drop:
        """The dropout of this pass."""
        return seeds.drop(dropout_p(self._dropout))

    def residual(self, xhat: Tensor) -> Residual:
        """This normalization's output as the next one's residual."""
        return Residual(xhat, self.gamma, self.beta)


def dropout_p(module: nn.Module | None) -> float:
    """The probability a dropout module applies now."""
    if module is None or not module.training:
        return 0.0
    return float(module.p)  # type: ignore[arg-type]


class Block:
    """One block of the model.

    Args:
        layout: Its modules.
        dtype: Storage type.
        first_only: Compute the output of each sequence's first token only: the last block
            of a model whose head looks at nothing else. Keys and values still see all.
        merged: As of `Projection`.
    """

    def __init__(
        self, layout: BlockLayout, dtype: torch.dtype, first_only: bool, merged: bool = False
    ) -> None:
        self.layout = layout
        self.dtype = dtype
        self.first_only = first_only
        key_value = [layout.key, layout.value]
        self.qkv = Projection([layout.query, *key_value], dtype, merged)
        self.q = Projection([layout.query], dtype, merged)
        self.kv = Projection(key_value, dtype, merged)
        self.output = Projection([layout.output], dtype, merged)
        self.up = Projection([layout.up], dtype, merged)
        self.down = Projection([layout.down], dtype, merged)
        self.norm1 = Norm(layout.attention_norm, layout.attention_dropout)
        self.norm2 = Norm(layout.output_norm, layout.hidden_dropout)
        width = self.q.frozen.widths[0]
        self.heads = Heads(
            *(layout.heads, layout.heads, width // layout.heads, layout.scale),
            first_only=first_only,
        )

    def lowest_trained(self) -> int | None:
        """Index into `STAGES` of the first projection that trains; ``None``: none does."""
        stages = (self.qkv, self.output, self.up, self.down)
        return next((i for i, stage in enumerate(stages) if stage.trains), None)

    def forward(
        self, stream: Stream, packing: Packing, seeds: Seeds, keep: bool
    ) -> tuple[Stream, Saved | None]:
        """Computes the block; ``keep``: with what backward needs."""
        applied: dict[str, list[Applied]] = {}
        x, residual = stream.x, stream.residual
        width = self.q.frozen.widths[0]
        if self.first_only:
            first = packing.starts[:-1]
            x_query = x.index_select(0, first)
            residual = Residual(residual.x.index_select(0, first), residual.gamma, residual.beta)
            q, applied["q"] = self.q.forward(x_query, seeds)
            kv, applied["kv"] = self.kv.forward(x, seeds)
        else:
            x_query = x
            qkv, applied["qkv"] = self.qkv.forward(x, seeds)
            q, kv = qkv[:, :width], qkv[:, width:]
        drop = seeds.drop(dropout_p(self.layout.probability_dropout))
        k, v = kv[:, :width], kv[:, width:]
        context, lse = kernels.attention_forward(q, k, v, packing, self.heads, drop)
        y, applied["output"] = self.output.forward(context, seeds)
        drop1 = self.norm1.drop(seeds)
        xhat1, rstd1, x1 = kernels.norm_forward(
            y, residual, self.norm1.gamma, self.norm1.beta, self.norm1.eps, drop1
        )
        hidden, applied["up"] = self.up.forward(x1, seeds)
        activated = kernels.activation(self.layout.activation, hidden)
        y, applied["down"] = self.down.forward(activated, seeds)
        drop2 = self.norm2.drop(seeds)
        xhat2, rstd2, x2 = kernels.norm_forward(
            y, self.norm1.residual(xhat1), self.norm2.gamma, self.norm2.beta, self.norm2.eps, drop2
        )
        out = Stream(x2, self.norm2.residual(xhat2))
        if not keep:
            return out, None
        # An input that no update reads in backward is let go.
        nothing = x[:0]
        if not applied["output"]:
            context = nothing
        if not applied["down"]:
            activated = nothing
        if not applied["up"]:
            x1 = nothing
        saved = Saved(
            *(self.heads, x, x_query, q, kv, lse, context, (xhat1, rstd1), x1, hidden, activated),
            *((xhat2, rstd2), (drop, drop1, drop2), applied),
        )
        return out, saved

    def backward(
        self, gradient: Gradient, saved: Saved, packing: Packing, stop: int | None
    ) -> Gradient | None:
        """Adds the gradients of the block's updates.

        Args:
            gradient: Of the block's output; its ``d`` is overwritten.
            saved: From forward.
            packing: The same.
            stop: The stage (index into `STAGES`) below which nothing trains; ``None``: the
                gradient of the block's input is wanted.

        Returns:
            The gradient of the input, or ``None`` after a stop.
        """
        s, d, gradients = saved, gradient.d, add_gradients
        _, drop1, drop2 = s.drops
        dy = kernels.norm_backward(
            d, gradient.extra, s.norm2[0], self.norm2.gamma, s.norm2[1], drop2, self.dtype
        )
        if stop == 3:
            gradients(dy, s.activated, s.applied["down"], None)
            return None
        dh = self.down.frozen.backward(dy)
        gradients(dy, s.activated, s.applied["down"], dh)
        kernels.activation_backward(self.layout.activation, s.hidden, dh)
        if stop == 2:
            gradients(dh, s.x1, s.applied["up"], None)
            return None
        gradients(dh, s.x1, s.applied["up"], d)
        extra = self.up.frozen.backward(dh)
        dy = kernels.norm_backward(
            d, extra, s.norm1[0], self.norm1.gamma, s.norm1[1], drop1, self.dtype
        )
        if stop == 1:
            gradients(dy, s.context, s.applied["output"], None)
            return None
        dc = self.output.frozen.backward(dy)
        gradients(dy, s.context, s.applied["output"], dc)
        return self._attention_backward(d, dc, s, packing, stop == 0)

    def _attention_backward(
        self, d: Tensor, dc: Tensor, s: Saved, packing: Packing, stop: bool
    ) -> Gradient | None:
        width, gradients = s.q.shape[1], add_gradients
        if self.first_only:
            dqkv = dq = torch.empty_like(s.q)
            dkv = torch.empty_like(s.kv)
        else:
            dqkv = s.q.new_empty(s.q.shape[0], 3 * width)
            dq, dkv = dqkv[:, :width], dqkv[:, width:]
        k, v = s.kv[:, :width], s.kv[:, width:]
        grads = dq, dkv[:, :width], dkv[:, width:]
        kernels.attention_backward(dc, s.q, k, v, s.lse, packing, s.heads, s.drops[0], grads)
        if not self.first_only:
            gradients(dqkv, s.x, s.applied["qkv"], None if stop else d)
            return None if stop else Gradient(d, self.qkv.frozen.backward(dqkv))
        # The residual and the query come from the first tokens, keys and values from all.
        gradients(dq, s.x_query, s.applied["q"], None if stop else d)
        if stop:
            gradients(dkv, s.x, s.applied["kv"], None)
            return None
        d += self.q.frozen.backward(dq)
        all_tokens = d.new_zeros(s.x.shape)
        all_tokens.index_copy_(0, packing.starts[:-1].long(), d)
        gradients(dkv, s.x, s.applied["kv"], all_tokens)
        return Gradient(all_tokens, self.kv.frozen.backward(dkv))
