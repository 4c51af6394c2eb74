"""RMS normalizations, rotary positions and SwiGLU: checked calls and their PyTorch twins.

As in `lorafit.engine.kernels`: storage is float32 or bfloat16, statistics and the residual
stream float32, and a call that does not fit raises `ValueError`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lorafit.engine.kernels.checked import STORAGE, fits, native_for, rows_of, wide_of


def rms_forward(
    y: Tensor | None, residual: Tensor, gamma: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """``s = residual + y`` and its normalization.

    Args:
        y: ``(n, width)`` in the storage type, or ``None``: nothing is added.
        residual: ``(n, width)`` float32.
        gamma: ``(width,)`` float32.
        eps: Added to the mean square.
        dtype: Storage type of the result.

    Returns:
        ``s`` float32, ``rstd`` ``(n,)`` float32, ``gamma * s * rstd`` in the storage type.
    """
    rows, width = rows_of("residual", residual)
    wide = wide_of(residual)
    fits("residual", residual, (rows, width), wide)
    fits("gamma", gamma, (width,), wide)
    out = residual.new_empty(rows, width, dtype=dtype)
    if y is not None:
        fits("y", y, (rows, width), out)
    if (native := native_for(out)) is None:
        total = residual if y is None else residual + y
        rstd = (total.square().mean(-1) + eps).rsqrt()
        return total, rstd, (total * rstd[:, None] * gamma).to(dtype)
    total = residual if y is None else torch.empty_like(residual)
    rstd = wide.new_empty(rows)
    native.calls.lorafit_rms_forward(
        *(STORAGE[dtype], rows, width, None if y is None else y.data_ptr()),
        *(residual.data_ptr(), gamma.data_ptr(), eps),
        *(total.data_ptr(), rstd.data_ptr(), out.data_ptr()),
    )
    return total, rstd, out


def rms_backward(d: Tensor, dout: Tensor, s: Tensor, gamma: Tensor, rstd: Tensor) -> Tensor:
    """Adds the gradient through the normalization to ``d``.

    Args:
        d: Gradient of ``s`` from the residual stream, ``(n, width)`` float32; added to.
        dout: Gradient of the normalized output, storage type.
        s: From forward, as ``rstd``.
        gamma: The weight.
        rstd: From forward.

    Returns:
        ``d`` in the storage type: the gradient of ``y``.
    """
    rows, width = rows_of("d", d)
    wide = wide_of(d)
    fits("d", d, (rows, width), wide)
    fits("dout", dout, (rows, width), dout)
    fits("s", s, (rows, width), wide)
    fits("gamma", gamma, (width,), wide)
    fits("rstd", rstd, (rows,), wide)
    if (native := native_for(dout)) is None:
        xhat, g = s * rstd[:, None], dout * gamma
        d += (g - xhat * (g * xhat).mean(-1, keepdim=True)) * rstd[:, None]
        return d.to(dout.dtype, copy=True)
    dy = torch.empty_like(dout)
    native.calls.lorafit_rms_backward(
        *(STORAGE[dout.dtype], rows, width, d.data_ptr(), dout.data_ptr(), s.data_ptr()),
        *(gamma.data_ptr(), rstd.data_ptr(), dy.data_ptr()),
    )
    return dy


def head_norm(x: Tensor, gamma: Tensor, eps: float) -> None:
    """RMS normalization of every head by itself, in place.

    Args:
        x: ``(n, heads * head_dim)`` strided: the columns of q and k.
        gamma: ``(heads, head_dim)`` float32.
        eps: Added to the mean square.
    """
    rows, heads, width = _heads_of(x, gamma)
    if (native := native_for(x)) is None:
        split = x.reshape(rows, heads, width).to(gamma.dtype)
        rstd = (split.square().mean(-1, keepdim=True) + eps).rsqrt()
        x.copy_((split * rstd * gamma).flatten(1))
        return
    native.calls.lorafit_head_norm(
        *(STORAGE[x.dtype], rows, heads, width, x.data_ptr(), x.stride(0)),
        *(gamma.data_ptr(), eps, None),
    )


def head_norm_backward(grad: Tensor, x: Tensor, gamma: Tensor, eps: float) -> None:
    """Turns the gradient of `head_norm`'s output into that of its input, in place.

    Args:
        grad: ``(n, heads * head_dim)`` strided.
        x: The input, of the same shape and type, contiguous.
        gamma: As in forward.
        eps: As in forward.
    """
    rows, heads, width = _heads_of(grad, gamma)
    fits("x", x, (rows, heads * width), grad)
    if (native := native_for(grad)) is None:
        split = x.view(rows, heads, width).to(gamma.dtype)
        rstd = (split.square().mean(-1, keepdim=True) + eps).rsqrt()
        xhat, g = split * rstd, grad.reshape(rows, heads, width) * gamma
        grad.copy_(((g - xhat * (g * xhat).mean(-1, keepdim=True)) * rstd).flatten(1))
        return
    native.calls.lorafit_head_norm(
        *(STORAGE[grad.dtype], rows, heads, width, grad.data_ptr(), grad.stride(0)),
        *(gamma.data_ptr(), eps, x.data_ptr() if rows else None),
    )


def _heads_of(x: Tensor, gamma: Tensor) -> tuple[int, int, int]:
    """Rows, heads and head_dim, checked."""
    rows, columns = rows_of("x", x)
    heads, width = rows_of("gamma", gamma)
    fits("x", x, (rows, columns), x, strided=True)
    fits("gamma", gamma, (heads, width), wide_of(x))
    if heads * width != columns or not columns:
        raise ValueError(f"{columns} columns are not {heads} heads of {width}")
    return rows, heads, width


def rotate(x: Tensor, cosine: Tensor, sine: Tensor, *, back: bool = False) -> None:
    """Rotates heads by their token's position, in place; ``back``: the transpose.

    Args:
        x: ``(n, heads * head_dim)`` strided: the columns of q and k.
        cosine: ``(n, head_dim / 2)`` float32.
        sine: Like ``cosine``.
        back: For gradients.
    """
    rows, width = rows_of("x", x)
    half = cosine.shape[-1]
    wide = wide_of(x)
    fits("x", x, (rows, width), x, strided=True)
    fits("cosine", cosine, (rows, half), wide)
    fits("sine", sine, (rows, half), wide)
    if half < 1 or width % (2 * half):
        raise ValueError(f"{width} columns are not heads of {2 * half}")
    heads, sign = width // (2 * half), -1.0 if back else 1.0
    if (native := native_for(x)) is None:
        halves = x.reshape(rows, heads, 2, half).to(wide.dtype)
        a, b = halves[:, :, 0], halves[:, :, 1]
        c, s = cosine[:, None], sine[:, None] * sign
        x.copy_(torch.stack([a * c - b * s, b * c + a * s], 2).reshape(rows, width).to(x.dtype))
        return
    native.calls.lorafit_rotary(
        *(STORAGE[x.dtype], rows, heads, half, x.data_ptr(), x.stride(0)),
        *(cosine.data_ptr(), sine.data_ptr(), sign),
    )


def swiglu(gate_up: Tensor) -> Tensor:
    """``silu(gate) * up`` of ``(n, 2 width)``, gates first."""
    rows, both = rows_of("gate_up", gate_up)
    fits("gate_up", gate_up, (rows, both), gate_up)
    if both % 2:
        raise ValueError(f"gate_up has {both} columns; gates and ups are equally many")
    if (native := native_for(gate_up)) is None:
        gate, up = gate_up.to(wide_of(gate_up).dtype).chunk(2, -1)
        return (F.silu(gate) * up).to(gate_up.dtype)
    h = gate_up.new_empty(rows, both // 2)
    native.calls.lorafit_swiglu(
        *(STORAGE[gate_up.dtype], 0, rows, both // 2, gate_up.data_ptr(), h.data_ptr(), None)
    )
    return h


def swiglu_backward(gate_up: Tensor, dh: Tensor) -> Tensor:
    """The gradient of ``gate_up``."""
    rows, both = rows_of("gate_up", gate_up)
    fits("gate_up", gate_up, (rows, both), gate_up)
    fits("dh", dh, (rows, both // 2), gate_up)
    if (native := native_for(gate_up)) is None:
        gate, up = gate_up.to(wide_of(gate_up).dtype).chunk(2, -1)
        s = torch.sigmoid(gate)
        parts = dh * up * s * (1 + gate * (1 - s)), dh * gate * s
        return torch.cat(parts, -1).to(gate_up.dtype)
    out = torch.empty_like(gate_up)
    native.calls.lorafit_swiglu(
        *(STORAGE[gate_up.dtype], 1, rows, both // 2),
        *(gate_up.data_ptr(), dh.data_ptr(), out.data_ptr()),
    )
    return out
