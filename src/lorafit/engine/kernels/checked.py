"""The kernels: every call is checked here, then runs compiled or as its PyTorch twin.

Shapes, with ``n`` tokens: activations are ``(n, width)`` in float32 or bfloat16, contiguous
within a row (rows may have any stride where the docstring says "strided"); weights, sums
and statistics are float32. A call that does not fit raises `ValueError`, so no input can
make compiled code read or write outside its tensors.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lorafit.engine.kernels import twins
from lorafit.engine.kernels.counter import Drop
from lorafit.engine.kernels.library import AttentionCall, Library, library
from lorafit.engine.kernels.shapes import Heads, Residual
from lorafit.engine.packing import Packing

ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")
STORAGE = {torch.float32: 0, torch.bfloat16: 1}

_forced: list[Library | None] = []


@contextmanager
def using(which: Library | None) -> Iterator[None]:
    """Runs the block with this library, or with ``None`` on the PyTorch twins."""
    _forced.append(which)
    try:
        yield
    finally:
        _forced.pop()


def active() -> Library | None:
    """What the kernels run on now; ``None``: the PyTorch twins."""
    return _forced[-1] if _forced else library()


def native_for(x: Tensor) -> Library | None:
    """The library when it can take this tensor: the twins also do float64 and other devices."""
    which = active()
    return which if x.dtype in STORAGE and x.device.type == "cpu" else None


def fits(name: str, x: Tensor, shape: tuple[int, ...], like: Tensor, strided: bool = False) -> None:
    """Checks shape, storage type (that of ``like``) and layout."""
    if x.shape != shape:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; it has to be {shape}")
    if x.dtype != like.dtype or x.device != like.device:
        raise ValueError(f"{name} is {x.dtype} on {x.device}; wanted {like.dtype} on {like.device}")
    if strided:
        if x.dim() != 2 or (x.shape[1] > 1 and x.stride(1) != 1) or x.stride(0) < x.shape[1]:
            raise ValueError(f"{name} has strides {x.stride()}; its rows have to be contiguous")
    elif not x.is_contiguous():
        raise ValueError(f"{name} has strides {x.stride()}; it has to be contiguous")


def wide_of(x: Tensor) -> Tensor:
    """An empty tensor of the arithmetic's type."""
    return x.new_empty(0, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)


def rows_of(name: str, x: Tensor) -> tuple[int, int]:
    """The two sizes of ``(tokens, width)``."""
    if x.dim() != 2:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; it has to be (tokens, width)")
    return x.shape[0], x.shape[1]


# --- activations ---------------------------------------------------------------------------


def activation(kind: str, h: Tensor) -> Tensor:
    """``f(h)`` element by element; ``kind`` is one of `ACTIVATIONS`."""
    _check_activation(kind, h)
    if (native := native_for(h)) is None:
        return twins.activation(kind, h)
    out = torch.empty_like(h)
    native.calls.lorafit_activation(
        *(STORAGE[h.dtype], ACTIVATIONS.index(kind), 0, h.numel(), h.data_ptr(), out.data_ptr())
    )
    return out


def activation_backward(kind: str, h: Tensor, grad: Tensor) -> None:
    """``grad *= f'(h)``, in place."""
    _check_activation(kind, h)
    fits("grad", grad, tuple(h.shape), h)
    if (native := native_for(h)) is None:
        twins.activation_backward(kind, h, grad)
        return
    native.calls.lorafit_activation(
        *(STORAGE[h.dtype], ACTIVATIONS.index(kind), 1, h.numel(), h.data_ptr(), grad.data_ptr())
    )


def _check_activation(kind: str, h: Tensor) -> None:
    if kind not in ACTIVATIONS:
        raise ValueError(f'there is no activation "{kind}"; there is {", ".join(ACTIVATIONS)}')
    fits("h", h, tuple(h.shape), h)


# --- dropout, residual, normalization ------------------------------------------------------


def dropout(x: Tensor, drop: Drop) -> Tensor:
    """Dropout of ``(rows, columns)``; also its own backward."""
    rows, columns = rows_of("x", x)
    fits("x", x, (rows, columns), x)
    if not drop.threshold:
        return x
    if (native := native_for(x)) is None:
        return twins.dropout(x, drop)
    out = torch.empty_like(x)
    native.calls.lorafit_dropout(
        *(STORAGE[x.dtype], rows, columns, x.data_ptr()),
        *(drop.seed, drop.threshold, drop.keep_scale, out.data_ptr()),
    )
    return out


def norm_forward(
    y: Tensor, residual: Residual, gamma: Tensor, beta: Tensor, eps: float, drop: Drop
) -> tuple[Tensor, Tensor, Tensor]:
    """Layer normalization of ``residual + dropout(y)``.

    Returns:
        ``xhat`` float32 ``(n, width)`` (normalized, before gamma and beta), ``rstd`` float32
        ``(n,)``, and the output in the storage type of ``y``.
    """
    rows, width = rows_of("y", y)
    wide = wide_of(y)
    fits("y", y, (rows, width), y)
    fits("residual", residual.x, (rows, width), wide)
    fits("gamma", gamma, (width,), wide)
    fits("beta", beta, (width,), wide)
    affine = residual.gamma is not None and residual.beta is not None
    if residual.gamma is not None and residual.beta is not None:
        fits("residual gamma", residual.gamma, (width,), wide)
        fits("residual beta", residual.beta, (width,), wide)
    if (native := native_for(y)) is None:
        return twins.norm_forward(y, residual, gamma, beta, eps, drop)
    xhat, rstd, out = torch.empty_like(residual.x), wide.new_empty(rows), torch.empty_like(y)
    native.calls.lorafit_norm_forward(
        *(STORAGE[y.dtype], rows, width, y.data_ptr(), residual.x.data_ptr()),
        residual.gamma.data_ptr() if affine and residual.gamma is not None else None,
        residual.beta.data_ptr() if affine and residual.beta is not None else None,
        *(gamma.data_ptr(), beta.data_ptr(), eps, drop.seed, drop.threshold, drop.keep_scale),
        *(xhat.data_ptr(), rstd.data_ptr(), out.data_ptr()),
    )
    return xhat, rstd, out


def norm_backward(
    d: Tensor,
    extra: Tensor | None,
    xhat: Tensor,
    gamma: Tensor,
    rstd: Tensor,
    drop: Drop,
    dtype: torch.dtype,
) -> Tensor:
    """Backward of `norm_forward`.

    Args:
        d: Gradient of the output, ``(n, width)`` float32; becomes that of the residual.
        extra: Added to ``d`` first, in the storage type, or ``None``.
        xhat: From forward, as ``rstd``.
        gamma: The normalization's weight ``(width,)``.
        rstd: From forward.
        drop: The same dropout.
        dtype: Storage type of the result.

    Returns:
        The gradient of ``y``.
    """
    rows, width = rows_of("d", d)
    wide = wide_of(d)
    fits("d", d, (rows, width), wide)
    fits("xhat", xhat, (rows, width), wide)
    fits("gamma", gamma, (width,), wide)
    fits("rstd", rstd, (rows,), wide)
    dy = d.new_empty(rows, width, dtype=dtype)
    if extra is not None:
        fits("extra", extra, (rows, width), dy)
    if (native := native_for(dy)) is None:
        return twins.norm_backward(d, extra, xhat, gamma, rstd, drop).to(dtype)
    native.calls.lorafit_norm_backward(
        *(STORAGE[dtype], rows, width, d.data_ptr()),
        None if extra is None else extra.data_ptr(),
        *(xhat.data_ptr(), gamma.data_ptr(), rstd.data_ptr()),
        *(drop.seed, drop.threshold, drop.keep_scale, dy.data_ptr()),
    )
    return dy


# --- LoRA ----------------------------------------------------------------------------------


def lora_down(x: Tensor, a: Tensor, drop: Drop) -> Tensor:
    """``u = dropout(x) A^T``: x ``(n, d_in)`` strided, A ``(r, d_in)``; float32 ``(n, r)``."""
    n, d_in = rows_of("x", x)
    wide = wide_of(x)
    r = a.shape[0]
    fits("x", x, (n, d_in), x, strided=True)
    fits("A", a, (r, d_in), wide)
    if (native := native_for(x)) is None:
        return twins.lora_down(x, a, drop)
    u = wide.new_empty(n, r)
    native.calls.lorafit_lora_down(
        *(STORAGE[x.dtype], n, d_in, r, x.data_ptr(), x.stride(0), a.data_ptr()),
        *(drop.seed, drop.threshold, drop.keep_scale, u.data_ptr()),
    )
    return u


def lora_up(u: Tensor, b: Tensor, scaling: float, y: Tensor) -> None:
    """``y += scaling * u B^T`` in place: B ``(d_out, r)``, y ``(n, d_out)`` strided."""
    n, d_out = rows_of("y", y)
    wide = wide_of(y)
    r = b.shape[1]
    fits("y", y, (n, d_out), y, strided=True)
    fits("u", u, (n, r), wide)
    fits("B", b, (d_out, r), wide)
    if (native := native_for(y)) is None:
        twins.lora_up(u, b, scaling, y)
        return
    native.calls.lorafit_lora_up(
        *(STORAGE[y.dtype], n, d_out, r, u.data_ptr(), b.data_ptr(), scaling),
        *(y.data_ptr(), y.stride(0)),
    )


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
    """Adds the gradients of one update ``y += scaling * dropout(x) A^T B^T``.

    Args:
        dy: Gradient of y, ``(n, d_out)`` strided.
        x: Input, ``(n, d_in)`` strided, of the same storage type.
        a: ``(r, d_in)``.
        b: ``(d_out, r)``.
        u: What `lora_down` returned.
        scaling: ``lora_alpha / r``.
        drop: The same dropout.
        grad_a: Added to, like ``a``.
        grad_b: Added to, like ``b``.
        dx: Added to, ``(n, d_in)``, float32 or the storage type; ``None``: not wanted.
    """
    n, d_out = rows_of("dy", dy)
    d_in, r = x.shape[-1], a.shape[0]
    wide = wide_of(x)
    fits("dy", dy, (n, d_out), x, strided=True)
    fits("x", x, (n, d_in), x, strided=True)
    for name, tensor in (("A", a), ("gradient of A", grad_a)):
        fits(name, tensor, (r, d_in), wide)
    for name, tensor in (("B", b), ("gradient of B", grad_b)):
        fits(name, tensor, (d_out, r), wide)
    fits("u", u, (n, r), wide)
    if dx is not None:
        fits("dx", dx, (n, d_in), wide if dx.dtype == wide.dtype else x)
    if (native := native_for(x)) is None:
        twins.lora_backward(dy, x, a, b, u, scaling, drop, grad_a, grad_b, dx)
        return
    native.calls.lorafit_lora_backward(
        *(STORAGE[x.dtype], STORAGE[x.dtype if dx is None else dx.dtype], n, d_in, d_out, r),
        *(dy.data_ptr(), dy.stride(0)),
        *(x.data_ptr(), x.stride(0), a.data_ptr(), b.data_ptr(), u.data_ptr(), scaling),
        *(drop.seed, drop.threshold, drop.keep_scale, grad_a.data_ptr(), grad_b.data_ptr()),
        None if dx is None else dx.data_ptr(),
    )


# --- loss ----------------------------------------------------------------------------------


def softmax_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each row; the logits become its gradient, in place.

    Args:
        logits: ``(n, classes)``, contiguous.
        targets: int64 ``(n,)``.

    Returns:
        Nats, float32 ``(n,)``.
    """
    rows, classes = rows_of("logits", logits)
    fits("logits", logits, (rows, classes), logits)
    fits("targets", targets, (rows,), torch.empty(0, dtype=torch.int64, device=logits.device))
    if rows and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        raise ValueError(
            f"targets run from {int(targets.min())} to {int(targets.max())}; "
            f"there are {classes} classes"
        )
    if (native := native_for(logits)) is None:
        return twins.softmax_loss(logits, targets)
    losses = wide_of(logits).new_empty(rows)
    native.calls.lorafit_softmax_loss(
        *(STORAGE[logits.dtype], rows, classes, logits.data_ptr()),
        *(targets.data_ptr(), losses.data_ptr()),
    )
    return losses


# --- attention -----------------------------------------------------------------------------


def _check_attention(q: Tensor, k: Tensor, v: Tensor, packing: Packing, heads: Heads) -> None:
    rows = packing.sequences if heads.first_only else packing.tokens
    keys = (packing.tokens, heads.kv_heads * heads.head_dim)
    fits("q", q, (rows, heads.heads * heads.head_dim), q, strided=True)
    fits("k", k, keys, q, strided=True)
    fits("v", v, keys, q, strided=True)
    if packing.tokens > 1 and k.stride(0) != v.stride(0):
        raise ValueError(f"k and v have row strides {k.stride(0)} and {v.stride(0)}: not the same")


def _attention_call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    packing: Packing,
    heads: Heads,
    drop: Drop,
) -> AttentionCall:
    return AttentionCall(
        *(STORAGE[q.dtype], heads.causal, heads.first_only),
        *(heads.heads, heads.kv_heads, heads.head_dim),
        *(packing.sequences, packing.starts.data_ptr(), heads.scale, drop.keep_scale),
        *(drop.seed, drop.threshold, q.stride(0), k.stride(0), out.stride(0)),
        *(q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr(), lse.data_ptr()),
    )


def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, packing: Packing, heads: Heads, drop: Drop
) -> tuple[Tensor, Tensor]:
    """Softmax attention within each packed sequence.

    Args:
        q: ``(n, heads * head_dim)`` strided; one row a sequence with ``first_only``.
        k: ``(n, kv_heads * head_dim)`` strided.
        v: Like ``k``, with the same stride.
        packing: Where the sequences lie.
        heads: The shape.
        drop: Dropout of the probabilities.

    Returns:
        The output, like q but contiguous, and the log-sum-exp of the scores, float32
        ``(rows of q, heads)``.
    """
    _check_attention(q, k, v, packing, heads)
    if (native := native_for(q)) is None:
        return twins.attention_forward(q, k, v, packing, heads, drop)
    out = q.new_empty(q.shape)
    lse = wide_of(q).new_empty(q.shape[0], heads.heads)
    call = _attention_call(q, k, v, out, lse, packing, heads, drop)
    native.calls.lorafit_attention(ctypes.byref(call), 0)
    return out, lse


def attention_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lse: Tensor,
    packing: Packing,
    heads: Heads,
    drop: Drop,
    grads: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Backward of `attention_forward`: writes the gradients of q, k and v to ``grads``.

    ``dout`` is contiguous; ``grads`` have the shapes and strides of q, k and v.
    """
    _check_attention(q, k, v, packing, heads)
    fits("dout", dout, tuple(q.shape), q)
    fits("lse", lse, (q.shape[0], heads.heads), wide_of(q))
    for name, grad, of in zip(("dq", "dk", "dv"), grads, (q, k, v), strict=True):
        fits(name, grad, tuple(of.shape), of, strided=True)
        if grad.stride() != of.stride():
            raise ValueError(f"{name} has strides {grad.stride()}; wanted {of.stride()}")
    if (native := native_for(q)) is None:
        twins.attention_backward(dout, q, k, v, packing, heads, drop, grads)
        return
    call = _attention_call(q, k, v, dout, lse, packing, heads, drop)
    call.dout = dout.data_ptr()
    call.dq, call.dk, call.dv = (grad.data_ptr() for grad in grads)
    native.calls.lorafit_attention(ctypes.byref(call), 1)
