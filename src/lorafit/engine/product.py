"""The product with a frozen weight, laid out once for the CPU.

    y = x W^T + b

In bfloat16 with the AVX-512 dot product it is a kernel of ours (native/product.cpp): as fast
as oneDNN's and the same code for every number of rows. oneDNN multiplies everything else:
float32, and bfloat16 where the CPU has matrix tiles (AMX), which are faster still.
"""

from __future__ import annotations

import functools
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from lorafit.engine.kernels.checked import active, fits, rows_of
from lorafit.engine.kernels.library import Library
from lorafit.machine.processor import bf16_flags

PANEL = 64
"""Outputs that lie together; as in native/product.cpp."""

BATCH_HINT = 256
"""Rows that oneDNN chooses the weight's layout for; other counts compute the same."""


class Packed(Protocol):
    """One direction of a frozen product."""

    def __call__(self, x: Tensor) -> Tensor:
        """``x (n, d_in)`` to ``(n, d_out)``, in the weight's type."""


def multiplier(dtype: torch.dtype, d_in: int) -> Library | None:
    """The library whose own product is the fastest for this type, if there is one."""
    which = active()
    fit = dtype == torch.bfloat16 and d_in % 2 == 0 and which is not None and which.multiplies
    return which if fit and not has_tiles() else None


@functools.cache
def has_tiles() -> bool:
    """Whether the processor multiplies bfloat16 tiles itself, which oneDNN uses."""
    return "amx_bf16" in bf16_flags()


def pack(weight: Tensor, bias: Tensor | None) -> Packed:
    """Lays out ``weight (d_out, d_in)`` and ``bias (d_out,)`` for the fastest product."""
    library = multiplier(weight.dtype, weight.shape[1])
    if library is not None:
        return PanelWeight(library, weight, bias)
    return OneDnnWeight(weight, bias) if _has_prepack() else PlainWeight(weight, bias)


class PanelWeight:
    """Our own layout and kernel.

    Args:
        library: One that `Library.multiplies`.
        weight: bfloat16 ``(d_out, d_in)``, ``d_in`` even.
        bias: ``(d_out,)`` or ``None``.
    """

    def __init__(self, library: Library, weight: Tensor, bias: Tensor | None) -> None:
        self._product = library.calls.lorafit_product
        self._width, d_in = weight.shape
        if weight.dtype != torch.bfloat16 or d_in % 2:
            raise ValueError(
                f"the weight is {weight.dtype} with {d_in} inputs; wanted bfloat16, even"
            )
        fill = -self._width % PANEL
        padded = F.pad(weight, (0, 0, 0, fill)) if fill else weight
        self.weight = padded.view(-1, PANEL, d_in // 2, 2).transpose(1, 2).contiguous()
        self.bias = torch.zeros(self._width + fill)
        if bias is not None:
            self.bias[: self._width] = bias

    def __call__(self, x: Tensor) -> Tensor:
        """``x (n, d_in)`` to ``(n, d_out)``; rows of x may have any stride."""
        rows, _ = rows_of("x", x)
        d_in = 2 * self.weight.shape[1]
        fits("x", x, (rows, d_in), self.weight, strided=True)
        y = x.new_empty(rows, self._width)
        self._product(
            *(rows, d_in, self._width, x.data_ptr(), x.stride(0)),
            *(self.weight.data_ptr(), self.bias.data_ptr(), y.data_ptr(), self._width),
        )
        return y


class OneDnnWeight:
    """oneDNN's layout, through torch."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._bias = bias
        # Read at torch 2.13, where nothing public packs a weight; `_has_prepack` looks first.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, BATCH_HINT)  # noqa: SLF001

    def __call__(self, x: Tensor) -> Tensor:
        """``x (n, d_in)`` to ``(n, d_out)``."""
        multiply = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 as above
        y: Tensor = multiply(x, self._weight, self._bias, "none", [], "")
        return y


class PlainWeight:
    """No layout: torch without oneDNN."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        """``x (n, d_in)`` to ``(n, d_out)``."""
        return F.linear(x, self._weight, self._bias)


def _has_prepack() -> bool:
    built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return built and all(hasattr(torch.ops.mkldnn, name) for name in names)
