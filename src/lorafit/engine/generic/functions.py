"""Autograd functions for what a frozen model with adapters computes again and again.

They take and give the storage type (bfloat16, or float32), whatever type comes in.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lorafit.engine.adapted import Projection
from lorafit.engine.autograd import apply
from lorafit.engine.frozen import FrozenLinear
from lorafit.engine.kernels import checked as kernels
from lorafit.engine.kernels.counter import Drop, Seeds


def _rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``(..., width)`` as contiguous rows of the storage type."""
    return x.detach().reshape(-1, x.shape[-1]).to(dtype).contiguous()


class Frozen(torch.autograd.Function):
    """``x W^T + b`` without a weight gradient: ``(..., d_in)`` to ``(..., d_out)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: FrozenLinear) -> Tensor:
        """Keeps nothing of x."""
        ctx.linear, ctx.dtype = linear, x.dtype
        y = linear.forward(_rows(x, linear.dtype))
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """``dy W``."""
        (dy,) = grads
        dx = ctx.linear.backward(_rows(dy, ctx.linear.dtype))
        return dx.view(*dy.shape[:-1], dx.shape[-1]).to(ctx.dtype), None


class Adapted(torch.autograd.Function):
    """A linear layer with its LoRA updates as one function.

    The factors are arguments so that autograd knows of them; the last ones are the
    parameters of `Projection`'s updates in order.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, projection: Projection, seeds: Seeds, *factors: Tensor
    ) -> Tensor:
        """Keeps x in the storage type and the updates' inner products."""
        rows = _rows(x, projection.frozen.dtype)
        y, ctx.applied = projection.forward(rows, seeds)
        ctx.projection, ctx.dtype = projection, x.dtype
        ctx.save_for_backward(rows)
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x and of every factor."""
        (dy,) = grads
        (rows,) = ctx.saved_tensors
        frozen = ctx.projection.frozen
        dy_rows = _rows(dy, frozen.dtype)
        dx = frozen.backward(dy_rows) if ctx.needs_input_grad[0] else None
        factors: list[Tensor | None] = []
        for done in ctx.applied:
            grad_a, grad_b = done.gradients(dy_rows, rows, dx)
            a, b = done.update.parameters
            factors += [grad_a[: len(a)].to(a.dtype), grad_b[:, : b.shape[1]].to(b.dtype)]
        if dx is not None:
            dx = dx.view(*dy.shape[:-1], dx.shape[-1]).to(ctx.dtype)
        return (dx, None, None, *factors)


class CounterDropout(torch.autograd.Function):
    """Dropout whose mask is drawn again in backward instead of stored."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, drop: Drop) -> Tensor:
        """``x`` where kept, scaled."""
        ctx.drop = drop
        return _dropped(x.detach(), drop)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """The same mask on the gradient."""
        return _dropped(grads[0], ctx.drop), None


def _dropped(x: Tensor, drop: Drop) -> Tensor:
    return kernels.dropout(x.contiguous().view(-1, x.shape[-1]), drop).view(x.shape)


def run_adapted(projection: Projection, seeds: Seeds, x: Tensor) -> Tensor:
    """`Adapted` on an adapter layer's own parameters."""
    factors = [factor for pair in projection.factors() for factor in pair]
    return apply(Adapted, x, projection, seeds, *factors)
