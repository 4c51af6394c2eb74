"""The kernels in plain PyTorch: what runs without a compiler, and their specification.

Same arguments and results as the functions of `lorafit.engine.kernels`, which check them.
Arithmetic is float32, or float64 when the inputs are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lorafit.engine.kernels.counter import Drop
from lorafit.engine.kernels.shapes import Heads, Residual
from lorafit.engine.packing import Packing


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.bfloat16 else x


def activation(kind: str, h: Tensor) -> Tensor:
    """``f(h)``."""
    x = _wide(h)
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "gelu": F.gelu,
        "gelu_tanh": lambda t: F.gelu(t, approximate="tanh"),
        "relu": F.relu,
        "silu": F.silu,
    }
    return functions[kind](x).to(h.dtype)


def activation_backward(kind: str, h: Tensor, grad: Tensor) -> None:
    """``grad *= f'(h)``, in place."""
    with torch.enable_grad():
        x = _wide(h).detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(activation(kind, x).sum(), x)
    grad.copy_((_wide(grad) * slope).to(grad.dtype))


def dropout(x: Tensor, drop: Drop) -> Tensor:
    """Dropout of ``(rows, columns)``; also its own backward."""
    return drop.apply(_wide(x)).to(x.dtype)


def norm_forward(
    y: Tensor, residual: Residual, gamma: Tensor, beta: Tensor, eps: float, drop: Drop
) -> tuple[Tensor, Tensor, Tensor]:
    """``LayerNorm(residual + dropout(y))`` as ``(xhat, rstd, out)``."""
    z = residual.value() + drop.apply(_wide(y))
    centred = z - z.mean(-1, keepdim=True)
    rstd = (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
    xhat = centred * rstd
    return xhat, rstd.squeeze(-1), (xhat * gamma + beta).to(y.dtype)


def norm_backward(
    d: Tensor, extra: Tensor | None, xhat: Tensor, gamma: Tensor, rstd: Tensor, drop: Drop
) -> Tensor:
    """Turns ``d`` into the gradient of the residual, in place; returns that of ``y``."""
    g = (d if extra is None else d + extra) * gamma
    mean = g.mean(-1, keepdim=True)
    d.copy_((g - mean - xhat * (g * xhat).mean(-1, keepdim=True)) * rstd[:, None])
    return drop.apply(d)


def lora_down(x: Tensor, a: Tensor, drop: Drop) -> Tensor:
    """``u = dropout(x) A^T`` ``(n, r)``."""
    return drop.apply(_wide(x)) @ a.t()


def lora_up(u: Tensor, b: Tensor, scaling: float, y: Tensor) -> None:
    """``y += scaling * u B^T``, in place."""
    y.copy_((_wide(y) + u @ b.t() * scaling).to(y.dtype))


def lora_backward(
    dy: Tensor,
    x: Tensor,
    a: Tensor,
    b: Tensor,
    u: Tensor,
    scaling: float,
    drop: Drop,
    grad_a: Tensor,
    grad_b: Tensor,
    dx: Tensor | None,
) -> None:
    """Adds the gradients of A, B and (when given) x to ``grad_a``, ``grad_b``, ``dx``."""
    g: Tensor = _wide(dy) * scaling
    du = g @ b
    grad_b += g.t() @ u
    grad_a += du.t() @ drop.apply(_wide(x))
    if dx is not None:
        dx += drop.apply(du @ a)


def softmax_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of each row; the rows become their gradients."""
    x = _wide(logits)
    logsumexp = x.logsumexp(-1, keepdim=True)
    losses = logsumexp - x.gather(1, targets[:, None])
    gradient = (x - logsumexp).exp()
    gradient.scatter_add_(1, targets[:, None], torch.full_like(losses, -1.0))
    logits.copy_(gradient.to(logits.dtype))
    return losses.squeeze(1)


def _attention_mask(packing: Packing, heads: Heads, drop: Drop, sequence: int) -> Tensor | None:
    """What multiplies the probabilities: ``(heads, queries, keys)``."""
    if not drop.threshold:
        return None
    rows = packing.slices()[sequence]
    query = torch.arange(rows.start, rows.stop)
    if heads.first_only:
        query = torch.tensor([sequence])
    number = query[None, :] * heads.heads + torch.arange(heads.heads)[:, None]
    kept = drop.kept(number.flatten(), packing.lengths[sequence])
    return kept.view(heads.heads, len(query), -1) * drop.keep_scale


def _sequence(
    q: Tensor, k: Tensor, v: Tensor, packing: Packing, heads: Heads, sequence: int
) -> tuple[Tensor, Tensor, Tensor, slice]:
    """One sequence's ``(heads, tokens, head_dim)`` triple and the rows of its queries."""
    rows = packing.slices()[sequence]
    query = slice(sequence, sequence + 1) if heads.first_only else rows
    group = heads.heads // heads.kv_heads

    def split(x: Tensor, count: int) -> Tensor:
        return _wide(x).reshape(len(x), count, heads.head_dim).transpose(0, 1)

    def shared(x: Tensor) -> Tensor:
        return split(x[rows], heads.kv_heads).repeat_interleave(group, 0)

    return split(q[query], heads.heads), shared(k), shared(v), query


def _probabilities(q: Tensor, k: Tensor, heads: Heads) -> tuple[Tensor, Tensor]:
    scores = q @ k.transpose(1, 2) * heads.scale
    if heads.causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, float("-inf"))
    return scores.softmax(-1), scores.logsumexp(-1)


def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, packing: Packing, heads: Heads, drop: Drop
) -> tuple[Tensor, Tensor]:
    """Attention of each sequence, as ``(out, lse)``."""
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    lse = torch.empty(q.shape[0], heads.heads, dtype=_wide(q[:0]).dtype)
    for sequence in range(packing.sequences):
        qs, ks, vs, rows = _sequence(q, k, v, packing, heads, sequence)
        p, sums = _probabilities(qs, ks, heads)
        mask = _attention_mask(packing, heads, drop, sequence)
        o = (p if mask is None else p * mask) @ vs
        out[rows] = o.transpose(0, 1).flatten(1).to(q.dtype)
        lse[rows] = sums.t()
    return out, lse


def attention_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    packing: Packing,
    heads: Heads,
    drop: Drop,
    grads: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Writes the gradients of q, k and v to ``grads``."""
    dq, dk, dv = grads
    group = heads.heads // heads.kv_heads
    for sequence, keys in enumerate(packing.slices()):
        qs, ks, vs, rows = _sequence(q, k, v, packing, heads, sequence)
        do = _wide(dout[rows]).reshape(-1, heads.heads, heads.head_dim).transpose(0, 1)
        p, _ = _probabilities(qs, ks, heads)
        mask = _attention_mask(packing, heads, drop, sequence)
        g = do @ vs.transpose(1, 2)
        dropped = p
        if mask is not None:
            g, dropped = g * mask, p * mask
        ds = p * (g - (p * g).sum(-1, keepdim=True)) * heads.scale

        def join(x: Tensor, to: Tensor, where: slice, shared: int) -> None:
            summed = x.reshape(-1, shared, *x.shape[1:]).sum(1)
            to[where] = summed.transpose(0, 1).flatten(1).to(to.dtype)

        join(ds @ ks, dq, rows, 1)
        join(ds.transpose(1, 2) @ qs, dk, keys, group)
        join(dropped.transpose(1, 2) @ do, dv, keys, group)
