"""A frozen linear layer, its weight laid out once for the CPU's matrix product.

    y = x W^T + b,    dx = dy W

There is no weight gradient. W is laid out once for each direction (`lorafit.engine.product`);
several layers with the same input are one product (q, k, v).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lorafit.engine.mapped import release
from lorafit.engine.product import Packed, multiplier, pack
from lorafit.machine.processor import fast_bf16

SMALLEST_STEP = 16


def padded_rows(rows: int, dtype: torch.dtype) -> int:
    """The number of rows to compute instead of ``rows``, up to 1/16 more.

    oneDNN compiles a kernel for each product with a new number of rows (0.5 to 2 ms and
    0.7 MB that stay): with few different numbers there are few. Our own product does not.
    """
    if multiplier(dtype, d_in=2) is not None:
        return rows
    step = max(SMALLEST_STEP, 1 << max(0, (rows // 16).bit_length() - 1))
    return -(-rows // step) * step


def compute_dtype() -> torch.dtype:
    """bfloat16 where the CPU multiplies it faster than float32, else float32."""
    fast, _ = fast_bf16(torch.device("cpu"))
    return torch.bfloat16 if fast else torch.float32


def base_of(module: nn.Module) -> nn.Module:
    """The frozen layer inside an adapter layer, or the module itself."""
    return cast(nn.Module, getattr(module, "base_layer", module))


def version(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor's numbers are, and how often they were changed in place."""
    return tensor.data_ptr(), tensor._version  # noqa: SLF001  # torch's own count, read at 2.13


class FrozenLinear:
    """Frozen ``nn.Linear`` layers with a common input, as one product.

    Follows the layers: when a weight is replaced or edited, or an adapter merged into it, it
    is laid out anew.

    Args:
        modules: What is stacked, in the order of the output's columns: ``nn.Linear`` layers
            (or transformers' ``Conv1D``, whose weight is ``(d_in, d_out)``), or adapter layers
            around them.
        dtype: Type of the product's inputs and outputs; sums are float32.
    """

    def __init__(self, modules: Sequence[nn.Module], dtype: torch.dtype) -> None:
        self._modules = list(modules)
        self._layers = [cast(nn.Linear, base_of(module)) for module in modules]
        self.dtype = dtype
        self.widths = [len(self._weight(layer)) for layer in self._layers]
        """Columns of each layer in the output."""
        self._key: tuple[object, ...] = ()
        self._forward: Packed | None = None
        self._backward: Packed | None = None

    def uses(self, weight: Tensor, bias: Tensor | None) -> bool:
        """Whether this is the product with exactly these tensors."""
        return all(layer.weight is weight and layer.bias is bias for layer in self._layers)

    @staticmethod
    def _weight(layer: nn.Linear) -> Tensor:
        """``(d_out, d_in)``."""
        return layer.weight.t() if isinstance(layer, Conv1D) else layer.weight

    def _refresh(self) -> None:
        key = self._state()
        if key != self._key:
            self._key, self._forward, self._backward = key, None, None

    def _state(self) -> tuple[object, ...]:
        """What the layout is made of: where it changes, the layer is laid out anew."""
        # peft merges through `weight.data`, which leaves the version as it was.
        merged = [tuple(getattr(module, "merged_adapters", ())) for module in self._modules]
        tensors = [one for layer in self._layers for one in (layer.weight, layer.bias)]
        return (*(None if one is None else version(one) for one in tensors), *merged)

    def _value(self, index: int) -> Tensor:
        """The weight of one layer, ``(d_out, d_in)`` in the chosen type."""
        return self._weight(self._layers[index]).detach().to(self.dtype)

    def _stacked(self) -> Tensor:
        return torch.cat([self._value(index) for index in range(len(self._layers))])

    def _bias(self) -> Tensor | None:
        if all(layer.bias is None for layer in self._layers):
            return None
        biases = [
            layer.weight.new_zeros(width) if layer.bias is None else layer.bias
            for layer, width in zip(self._layers, self.widths, strict=True)
        ]
        return torch.cat([bias.detach().to(self.dtype) for bias in biases])

    def forward(self, x: Tensor) -> Tensor:
        """``x (n, d_in)`` to ``(n, d_out)``, both contiguous in the chosen type."""
        self._refresh()
        if self._forward is None:
            self._forward = self._laid_out(self._stacked(), self._bias())
        return self._forward(x)

    def backward(self, dy: Tensor) -> Tensor:
        """``dy (n, d_out)`` to the gradient of the input ``(n, d_in)``."""
        if self._backward is None:
            self._backward = self._laid_out(self._stacked().t().contiguous(), None)
        return self._backward(dy)

    def _laid_out(self, weight: Tensor, bias: Tensor | None) -> Packed:
        # What was read from a file need not stay in memory, not even until the other direction
        # is laid out: reading it again is cheap, and all layers together are the peak otherwise.
        packed = pack(weight, bias)
        release([layer.weight for layer in self._layers])
        return packed
