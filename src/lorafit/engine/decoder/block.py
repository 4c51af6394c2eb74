"""One decoder block, forward and backward.

    n = rms(x),   q, k, v = n W_qkv,   s = x + attention(rotated q, k, v) W_o
    m = rms(s),   y = s + (silu(m W_gate) * m W_up) W_down

Qwen3 normalizes each head of q and k before the rotation.

The residual stream ``x``, ``s`` and its gradient are float32; everything else is in the
storage type. The sum after a half is formed by the normalization that follows it, so a
block takes and gives the stream and the branch that is still to be added.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lorafit.engine.adapted import Applied, Projection, add_gradients
from lorafit.engine.decoder.kernels import (
    head_norm,
    head_norm_backward,
    rms_backward,
    rms_forward,
    rotate,
    swiglu,
    swiglu_backward,
)
from lorafit.engine.decoder.layout import BlockLayout, attention_p
from lorafit.engine.kernels import checked as kernels
from lorafit.engine.kernels.counter import Drop, Seeds
from lorafit.engine.kernels.shapes import Heads
from lorafit.engine.packing import Packing

STAGES = ("attention input", "attention output", "gate and up", "down")
"""The projections of a block, in forward order; backward may stop at one of them."""


@dataclass(frozen=True)
class Positions:
    """Where packed tokens stand.

    Attributes:
        packing: In which sequence.
        cosine: Of every token's place in it, ``(n, head_dim / 2)`` float32.
        sine: Likewise.
    """

    packing: Packing
    cosine: Tensor
    sine: Tensor


@dataclass
class Stream:
    """The residual stream ``x`` (float32) and the branch (storage) still to be added."""

    x: Tensor
    branch: Tensor | None

    def value(self) -> Tensor:
        """Their sum."""
        return self.x if self.branch is None else self.x + self.branch


@dataclass
class Saved:
    """What backward needs of one forward pass through a block."""

    x: Tensor
    rstd1: Tensor
    n: Tensor
    unnormed: Tensor | None
    qkv: Tensor
    lse: Tensor
    context: Tensor
    s: Tensor
    rstd2: Tensor
    m: Tensor
    gate_up: Tensor
    h: Tensor
    drop: Drop
    applied: dict[str, list[Applied]] = field(default_factory=dict)


class Norm:
    """A frozen RMS normalization."""

    def __init__(self, norm: nn.Module) -> None:
        layer: Any = norm
        self.gamma = layer.weight.detach().float().contiguous()
        self.eps = float(layer.variance_epsilon)


class HeadNorms:
    """The frozen RMS normalizations of query heads and key heads, as one."""

    def __init__(self, query: nn.Module, key: nn.Module, heads: Heads) -> None:
        norms = (Norm(query), heads.heads), (Norm(key), heads.kv_heads)
        self.gamma = torch.cat([norm.gamma.repeat(count, 1) for norm, count in norms])
        self.eps = norms[0][0].eps

    def forward(self, qk: Tensor, keep: bool) -> Tensor | None:
        """In place; with ``keep`` returns what it was."""
        before = qk.clone(memory_format=torch.contiguous_format) if keep else None
        head_norm(qk, self.gamma, self.eps)
        return before

    def backward(self, dqk: Tensor, before: Tensor) -> None:
        """In place."""
        head_norm_backward(dqk, before, self.gamma, self.eps)


class Block:
    """One block of the model.

    Args:
        layout: Its modules.
        dtype: Storage type.
        merged: As of `Projection`.
    """

    def __init__(self, layout: BlockLayout, dtype: torch.dtype, merged: bool = False) -> None:
        self.layout = layout
        self.dtype = dtype
        self.qkv = Projection([layout.query, layout.key, layout.value], dtype, merged)
        self.output = Projection([layout.output], dtype, merged)
        self.gate_up = Projection([layout.gate, layout.up], dtype, merged)
        self.down = Projection([layout.down], dtype, merged)
        self.norm1 = Norm(layout.attention_norm)
        self.norm2 = Norm(layout.feed_forward_norm)
        self.heads = Heads(
            layout.heads, layout.kv_heads, layout.head_dim, layout.scale, causal=True
        )
        self.head_norms = HeadNorms(*layout.head_norms, self.heads) if layout.head_norms else None

    def lowest_trained(self) -> int | None:
        """Index into `STAGES` of the first projection that trains; ``None``: none does."""
        stages = (self.qkv, self.output, self.gate_up, self.down)
        return next((i for i, stage in enumerate(stages) if stage.trains), None)

    def _split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k = (count * self.heads.head_dim for count in (self.heads.heads, self.heads.kv_heads))
        return qkv[:, :q], qkv[:, q : q + k], qkv[:, q + k :]

    def _rotated(self, qkv: Tensor) -> Tensor:
        """The columns of q and k."""
        return qkv[:, : (self.heads.heads + self.heads.kv_heads) * self.heads.head_dim]

    def forward(
        self, stream: Stream, positions: Positions, seeds: Seeds, keep: bool
    ) -> tuple[Stream, Saved | None]:
        """Computes the block; ``keep``: with what backward needs."""
        applied: dict[str, list[Applied]] = {}
        x, rstd1, n = rms_forward(
            stream.branch, stream.x, self.norm1.gamma, self.norm1.eps, self.dtype
        )
        qkv, applied["qkv"] = self.qkv.forward(n, seeds)
        qk, unnormed = self._rotated(qkv), None
        if self.head_norms is not None:
            unnormed = self.head_norms.forward(qk, keep)
        rotate(qk, positions.cosine, positions.sine)
        drop = seeds.drop(attention_p(self.layout.attention))
        context, lse = kernels.attention_forward(
            *self._split(qkv), positions.packing, self.heads, drop
        )
        branch, applied["output"] = self.output.forward(context, seeds)
        s, rstd2, m = rms_forward(branch, x, self.norm2.gamma, self.norm2.eps, self.dtype)
        gate_up, applied["gate_up"] = self.gate_up.forward(m, seeds)
        h = swiglu(gate_up)
        branch, applied["down"] = self.down.forward(h, seeds)
        if not keep:
            return Stream(s, branch), None
        # An input that no update reads in backward is let go.
        parts = (("qkv", n), ("output", context), ("gate_up", m), ("down", h))
        n, context, m, h = (t if applied[name] else t.new_empty(0) for name, t in parts)
        saved = Saved(
            *(x, rstd1, n, unnormed, qkv, lse, context, s, rstd2, m, gate_up, h, drop, applied)
        )
        return Stream(s, branch), saved

    def backward(
        self,
        d: Tensor,
        dy: Tensor,
        saved: Saved,
        positions: Positions,
        stop: int | None,
    ) -> Tensor | None:
        """Adds the gradients of the block's updates.

        Args:
            d: Gradient of the block's output, float32; becomes that of its input.
            dy: The same in the storage type.
            saved: From forward.
            positions: Those of forward.
            stop: The stage (index into `STAGES`) below which nothing trains, or ``None``.

        Returns:
            ``d`` in the storage type, or ``None`` after a stop.
        """
        s = saved
        if stop == 3:
            add_gradients(dy, s.h, s.applied["down"], None)
            return None
        dh = self.down.frozen.backward(dy)
        add_gradients(dy, s.h, s.applied["down"], dh)
        dgate_up = swiglu_backward(s.gate_up, dh)
        if stop == 2:
            add_gradients(dgate_up, s.m, s.applied["gate_up"], None)
            return None
        dm = self.gate_up.frozen.backward(dgate_up)
        add_gradients(dgate_up, s.m, s.applied["gate_up"], dm)
        dy = rms_backward(d, dm, s.s, self.norm2.gamma, s.rstd2)
        if stop == 1:
            add_gradients(dy, s.context, s.applied["output"], None)
            return None
        dc = self.output.frozen.backward(dy)
        add_gradients(dy, s.context, s.applied["output"], dc)
        dqkv = torch.empty_like(s.qkv)
        kernels.attention_backward(
            dc, *self._split(s.qkv), s.lse, positions.packing, self.heads, s.drop, self._split(dqkv)
        )
        dqk = self._rotated(dqkv)
        rotate(dqk, positions.cosine, positions.sine, back=True)
        if self.head_norms is not None and s.unnormed is not None:
            self.head_norms.backward(dqk, s.unnormed)
        if stop == 0:
            add_gradients(dqkv, s.n, s.applied["qkv"], None)
            return None
        dn = self.qkv.frozen.backward(dqkv)
        add_gradients(dqkv, s.n, s.applied["qkv"], dn)
        return rms_backward(d, dn, s.x, self.norm1.gamma, s.rstd1)
