"""Every kernel against float64 autograd, at odd sizes, compiled and as its twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lorafit.engine.kernels import checked as kernels
from lorafit.engine.kernels.counter import Drop
from lorafit.engine.kernels.shapes import Heads, Residual
from lorafit.engine.packing import Packing

Pairs = list[tuple[Tensor, Tensor | None]]
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 6e-3}
"""Relative, in the Euclidean norm; bfloat16 keeps eight bits: 2^-9 = 2e-3 on average."""


def assert_close(pairs: Pairs, dtype: torch.dtype) -> None:
    for got, reference in pairs:
        assert reference is not None
        assert got.shape == reference.shape
        error = (got.double() - reference).norm() / reference.norm().clamp_min(1e-30)
        assert error < TOLERANCE[dtype], f"relative error {float(error):.2e}"


def stored(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape).to(dtype)


def wide_view(rows: int, width: int, dtype: torch.dtype) -> Tensor:
    """A tensor whose rows have a gap, as q, k and v have in their common buffer."""
    return stored(rows, width + 5, dtype=dtype)[:, 2 : 2 + width]


def leaf(x: Tensor) -> Tensor:
    return x.detach().double().requires_grad_(True)


def gradient(x: Tensor) -> Tensor:
    assert x.grad is not None
    return x.grad


def mask(drop: Drop, rows: int, columns: int) -> Tensor:
    return drop.kept(torch.arange(rows), columns).double() * drop.keep_scale


def activation(kind: str, size: tuple[int, ...], dtype: torch.dtype, fault: float) -> Pairs:
    h, g = stored(*size, dtype=dtype) * 3, stored(*size, dtype=dtype)
    x = leaf(h)
    value = {
        "gelu": F.gelu,
        "gelu_tanh": lambda t: F.gelu(t, approximate="tanh"),
        "relu": F.relu,
        "silu": F.silu,
    }[kind](x)
    value.backward(g.double())
    out, grad = kernels.activation(kind, h * fault), g.clone() * fault
    kernels.activation_backward(kind, h, grad)
    return [(out, value.detach()), (grad, x.grad)]


def dropout(rows: int, width: int, dtype: torch.dtype, fault: float) -> Pairs:
    x, drop = stored(rows, width, dtype=dtype), Drop(0.3, 5)
    return [(kernels.dropout(x * fault, drop), x.double() * mask(drop, rows, width))]


def norm(
    rows: int, width: int, p: float, affine: bool, extra: bool, dtype: torch.dtype, fault: float
) -> Pairs:
    drop = Drop(p, 77)
    y, res = stored(rows, width, dtype=dtype), torch.randn(rows, width)
    gamma, beta = 1 + 0.3 * torch.randn(width), torch.randn(width)
    gamma[0] = 0.0  # a dead unit: nothing may divide by gamma
    residual = Residual(res, torch.randn(width), torch.randn(width)) if affine else Residual(res)
    d, more = torch.randn(rows, width), stored(rows, width, dtype=dtype) if extra else None
    y64, r64 = leaf(y), leaf(residual.value().double())
    z = r64 + y64 * mask(drop, rows, width)
    reference = F.layer_norm(z, (width,), gamma.double(), beta.double(), 1e-12)
    reference.backward(d.double() + (0 if more is None else more.double()))
    xhat, rstd, out = kernels.norm_forward(y, residual, gamma * fault, beta, 1e-12, drop)
    grad = d.clone() * fault
    dy = kernels.norm_backward(grad, more, xhat, gamma, rstd, drop, dtype)
    # The residual keeps float32 in either storage type, its input gradient does not.
    return [(out, reference.detach()), (dy, y64.grad), (grad, r64.grad)]


def lora(
    n: int, d_in: int, d_out: int, r: int, p: float, dtype: torch.dtype, fault: float
) -> Pairs:
    drop, scaling = Drop(p, 123456789), 1.7
    x, y, dy = (wide_view(n, width, dtype) for width in (d_in, d_out, d_out))
    a, b = torch.randn(r, d_in), torch.randn(d_out, r)
    x64, y64, a64, b64 = leaf(x), leaf(y), leaf(a), leaf(b)
    z = x64 * mask(drop, n, d_in)
    u64 = z @ a64.t()
    reference = y64 + scaling * u64 @ b64.t()
    reference.backward(dy.double())
    u = kernels.lora_down(x, a * fault, drop)
    grad_a, grad_b, dx = torch.ones(r, d_in), torch.ones(d_out, r), torch.ones(n, d_in)
    kernels.lora_up(u, b, scaling, y)
    kernels.lora_backward(dy, x, a, b, u, scaling * fault, drop, grad_a, grad_b, dx)
    stored_dx = torch.zeros(n, d_in, dtype=dtype)
    more = dy, x, a, b, u, scaling * fault, drop
    kernels.lora_backward(*more, torch.ones(r, d_in), torch.ones(d_out, r), stored_dx)
    without = torch.ones(r, d_in), torch.ones(d_out, r)
    kernels.lora_backward(*more, *without, None)
    assert torch.equal(without[0], grad_a)
    assert torch.equal(without[1], grad_b)
    return [
        (u, u64.detach()),
        (y, reference.detach()),
        (grad_a, gradient(a64) + 1),
        (grad_b, gradient(b64) + 1),
        (dx, gradient(x64) + 1),
        (stored_dx, x64.grad),
    ]


def attention(
    lengths: list[int], heads: Heads, p: float, dtype: torch.dtype, fault: float
) -> Pairs:
    packing, drop = Packing.of(lengths), Drop(p, 99)
    wide, narrow = heads.heads * heads.head_dim, heads.kv_heads * heads.head_dim
    rows = packing.sequences if heads.first_only else packing.tokens
    q = wide_view(rows, wide, dtype)
    kv = stored(packing.tokens, 2 * narrow + 3, dtype=dtype)
    k, v = kv[:, :narrow], kv[:, narrow : 2 * narrow]
    dout = stored(rows, wide, dtype=dtype)
    q64, k64, v64 = leaf(q), leaf(k), leaf(v)
    outs = []
    for i, span in enumerate(packing.slices()):
        query = slice(i, i + 1) if heads.first_only else span
        number = torch.arange(query.start, query.stop)
        per_head = []
        for head in range(heads.heads):
            own = slice(head * heads.head_dim, (head + 1) * heads.head_dim)
            group = head // (heads.heads // heads.kv_heads)
            shared = slice(group * heads.head_dim, (group + 1) * heads.head_dim)
            scores = q64[query, own] @ k64[span, shared].t() * heads.scale
            if heads.causal:
                scores = scores + torch.full_like(scores, float("-inf")).triu(1)
            kept = drop.kept(number * heads.heads + head, lengths[i]).double() * drop.keep_scale
            per_head.append((scores.softmax(-1) * kept) @ v64[span, shared])
        outs.append(torch.cat(per_head, -1))
    reference = torch.cat(outs)
    reference.backward(dout.double())
    wrong = replace(heads, scale=heads.scale * fault)
    out, lse = kernels.attention_forward(q, k, v, packing, wrong, drop)
    dq = torch.full((rows, wide + 5), 7.0).to(dtype)[:, 2 : 2 + wide]
    dkv = torch.full_like(kv, 7.0)
    grads = dq, dkv[:, :narrow], dkv[:, narrow : 2 * narrow]
    kernels.attention_backward(dout, q, k, v, lse, packing, wrong, drop, grads)
    assert (dkv[:, 2 * narrow :] == 7).all(), "wrote past the columns of v"
    return [(out, reference.detach()), *zip(grads, (q64.grad, k64.grad, v64.grad), strict=True)]


def softmax_loss(rows: int, classes: int, dtype: torch.dtype, fault: float) -> Pairs:
    logits, targets = stored(rows, classes, dtype=dtype) * 3, torch.randint(classes, (rows,))
    targets[0] = classes - 1
    x = leaf(logits)
    reference = F.cross_entropy(x, targets, reduction="none")
    reference.sum().backward()
    got = logits * fault
    losses = kernels.softmax_loss(got, targets)
    return [(losses, reference.detach()), (got, x.grad)]


def heads(count: int, dim: int, kv: int | None = None, **kwargs: bool) -> Heads:
    return Heads(count, kv or count, dim, 1.4 * dim**-0.5, **kwargs)


CASES: dict[str, tuple[Callable[..., Pairs], tuple[Any, ...]]] = {
    **{f"activation-{k}": (activation, (k, (5, 1031))) for k in kernels.ACTIVATIONS},
    "activation-one": (activation, ("gelu", (1, 1))),
    "activation-chunks": (activation, ("gelu", (9, 1001))),
    "dropout": (dropout, (7, 77)),
    "norm": (norm, (5, 77, 0.0, False, False)),
    "norm-dropout": (norm, (13, 131, 0.1, False, True)),
    "norm-affine": (norm, (9, 384, 0.5, True, True)),
    "norm-narrow": (norm, (3, 3, 0.0, True, False)),
    "lora": (lora, (37, 77, 45, 3, 0.0)),
    "lora-dropout": (lora, (33, 64, 131, 8, 0.25)),
    "lora-one-token": (lora, (1, 5, 3, 1, 0.0)),
    "lora-rank-above-width": (lora, (18, 7, 9, 33, 0.1)),
    "lora-wide": (lora, (50, 384, 1536, 16, 0.05)),
    "loss": (softmax_loss, (7, 1031)),
    "loss-narrow": (softmax_loss, (5, 3)),
    "attention": (attention, ([5, 1, 27, 33, 73], heads(3, 32), 0.0)),
    "attention-dropout": (attention, ([5, 1, 27, 33, 73], heads(3, 32), 0.1)),
    "attention-odd-head": (attention, ([7, 41], heads(5, 13), 0.2)),
    "attention-wide-head": (attention, ([19, 2], heads(2, 80), 0.1)),
    "attention-first": (attention, ([4, 1, 35], heads(3, 20, first_only=True), 0.1)),
    "attention-causal": (attention, ([3, 67, 1, 32], heads(2, 16, causal=True), 0.1)),
    "attention-grouped": (attention, ([35, 8], heads(6, 24, kv=2, causal=True), 0.1)),
    "attention-long": (attention, ([300], heads(1, 64), 0.1)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("case", CASES)
def test_kernel_computes_what_float64_autograd_computes(case, dtype, implementation):
    function, arguments = CASES[case]
    assert_close(function(*arguments, dtype, 1.0), dtype)


@pytest.mark.parametrize("case", CASES)
def test_comparison_notices_a_fault_of_one_percent(case, implementation):
    function, arguments = CASES[case]
    with pytest.raises(AssertionError, match="relative error"):
        assert_close(function(*arguments, torch.float32, 1.01), torch.float32)


def test_nan_comes_out_as_nan(implementation):
    x = torch.randn(4, 40, dtype=torch.float32)
    x[1, 3] = float("nan")
    one = torch.ones(40)
    assert kernels.activation("gelu", x).isnan().sum() == 1
    _, _, out = kernels.norm_forward(x, Residual(torch.zeros(4, 40)), one, one, 1e-5, Drop())
    assert out.isnan().any(1).tolist() == [False, True, False, False]
    out, _ = kernels.attention_forward(x, x, x, Packing.of([2, 2]), heads(2, 20), Drop())
    assert out.isnan().any(1).tolist() == [True, True, False, False]
    assert kernels.lora_down(x, torch.randn(3, 40), Drop()).isnan().any(1).sum() == 1
    bf16 = kernels.activation("relu", x.bfloat16())
    assert bf16.isnan().sum() == 1


def test_compiled_masks_are_the_twins_masks(implementation):
    x, drop = torch.ones(67, 199), Drop(0.1, 4_000_000_000)
    assert torch.equal(kernels.dropout(x, drop) != 0, drop.kept(torch.arange(67), 199))


def test_same_call_gives_the_same_bits_twice(implementation):
    def gradients() -> Tensor:
        torch.manual_seed(3)
        return lora(200, 96, 64, 8, 0.1, torch.float32, 1.0)[2][0]

    assert torch.equal(gradients(), gradients())
