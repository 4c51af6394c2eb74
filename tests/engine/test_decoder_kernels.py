"""The decoder's kernels against float64 autograd, compiled and as their twins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lorafit.engine.decoder import kernels
from tests.engine.kernels.test_checked import Pairs, assert_close, leaf, stored, wide_view


def rms(rows: int, width: int, branch: bool, dtype: torch.dtype, fault: float) -> Pairs:
    y = stored(rows, width, dtype=dtype) if branch else None
    r, gamma = torch.randn(rows, width), torch.randn(width)
    dout, d = stored(rows, width, dtype=dtype), torch.randn(rows, width)
    r64 = leaf(r)
    s64 = r64 if y is None else r64 + y.double()
    out64 = s64 * (s64.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * gamma.double()
    (out64 * dout.double()).sum().backward(retain_graph=True)
    (s64 * d.double()).sum().backward()
    s, rstd, out = kernels.rms_forward(y, r, gamma * fault, 1e-5, dtype)
    grad = d.clone() * fault
    dy = kernels.rms_backward(grad, dout, s, gamma, rstd)
    return [(s * fault, s64.detach()), (out, out64.detach()), (grad, r64.grad), (dy, r64.grad)]


def head_norm(rows: int, heads: int, width: int, dtype: torch.dtype, fault: float) -> Pairs:
    x, dy = (wide_view(rows, heads * width, dtype) for _ in range(2))
    gamma = torch.randn(heads, width)
    x64 = leaf(x)
    split = x64.view(rows, heads, width)
    y64 = split * (split.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * gamma.double()
    y64.backward(dy.double().view_as(y64))
    before = x.contiguous()
    kernels.head_norm(x, gamma * fault, 1e-5)
    kernels.head_norm_backward(dy, before, gamma * fault, 1e-5)
    return [(x, y64.detach().flatten(1)), (dy, x64.grad)]


def rotary(rows: int, heads: int, half: int, dtype: torch.dtype, fault: float) -> Pairs:
    x, dy = (wide_view(rows, heads * 2 * half, dtype) for _ in range(2))
    angle = torch.randn(rows, half)
    c, s = angle.cos(), angle.sin()
    x64 = leaf(x)
    a, b = x64.view(rows, heads, 2, half).unbind(2)
    c64, s64 = c.double()[:, None], s.double()[:, None]
    y64 = torch.stack([a * c64 - b * s64, b * c64 + a * s64], 2).reshape(rows, -1)
    y64.backward(dy.double())
    kernels.rotate(x, c * fault, s * fault)
    kernels.rotate(dy, c * fault, s * fault, back=True)
    return [(x, y64.detach()), (dy, x64.grad)]


def swiglu(rows: int, width: int, dtype: torch.dtype, fault: float) -> Pairs:
    x, dh = stored(rows, 2 * width, dtype=dtype), stored(rows, width, dtype=dtype)
    x64 = leaf(x)
    gate, up = x64.chunk(2, -1)
    h64 = F.silu(gate) * up
    h64.backward(dh.double())
    return [
        (kernels.swiglu(x * fault), h64.detach()),
        (kernels.swiglu_backward(x, dh * fault), x64.grad),
    ]


CASES: dict[str, tuple[Callable[..., Pairs], tuple[Any, ...]]] = {
    "rms": (rms, (9, 77, True)),
    "rms-without-branch": (rms, (5, 64, False)),
    "rms-one": (rms, (1, 3, True)),
    "head-norm": (head_norm, (9, 5, 24)),
    "head-norm-odd": (head_norm, (3, 2, 37)),
    "rotary": (rotary, (7, 5, 16)),
    "rotary-odd-half": (rotary, (3, 2, 5)),
    "swiglu": (swiglu, (11, 53)),
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


X, ONE = torch.randn(4, 8), torch.ones(8)


@pytest.mark.parametrize(
    "call",
    [
        lambda: kernels.rms_forward(X[:3], X, ONE, 1e-5, X.dtype),
        lambda: kernels.rms_forward(X, X, ONE[:7], 1e-5, X.dtype),
        lambda: kernels.rms_backward(X.clone(), X, X, ONE, ONE[:3]),
        lambda: kernels.rms_backward(X.clone(), X[:3], X, ONE, ONE[:4]),
        lambda: kernels.head_norm(X.clone(), torch.ones(3, 3), 1e-5),
        lambda: kernels.head_norm(X.clone().t(), torch.ones(2, 2), 1e-5),
        lambda: kernels.head_norm_backward(X.clone(), X[:3], torch.ones(2, 4), 1e-5),
        lambda: kernels.rotate(X.clone(), torch.ones(4, 3), torch.ones(4, 3)),
        lambda: kernels.rotate(X.clone(), torch.ones(3, 4), torch.ones(3, 4)),
        lambda: kernels.swiglu(X[:, :7].contiguous()),
        lambda: kernels.swiglu_backward(X, X),
    ],
)
def test_bad_call_is_refused(call):
    with pytest.raises(ValueError, match=r"\w"):
        call()


def test_turning_there_and_back_changes_nothing():
    x: Tensor = torch.randn(5, 12)
    angle = torch.randn(5, 3)
    y = x.clone()
    kernels.rotate(y, angle.cos(), angle.sin())
    assert not torch.allclose(x, y)
    kernels.rotate(y, angle.cos(), angle.sin(), back=True)
    torch.testing.assert_close(x, y)
