"""Swaps in faster parts while a model's own forward pass runs.

`Interception` is a torch function mode: inside it, ``F.linear`` and ``torch.addmm`` with a
frozen weight, ``F.dropout`` and attention with dropout go to our functions; everything else
runs as it is. Adapter layers that hold plain LoRA run as one function. The model itself is
not changed: leave the mode, and nothing is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D

from lorafit.engine.adapted import Projection, active_names
from lorafit.engine.autograd import apply
from lorafit.engine.frozen import FrozenLinear, base_of
from lorafit.engine.generic.functions import CounterDropout, Frozen, run_adapted
from lorafit.engine.kernels.counter import Seeds
from lorafit.model.sites import output_embeddings

SMALLEST = 64 * 64
"""Numbers of a weight for which our product is worth its call."""


def _is_plain_lora(module: nn.Module) -> bool:
    layer: Any = module
    names = active_names(module)
    bias = getattr(base_of(module), "bias", None)
    if bias is not None and bias.requires_grad:  # `Adapted` has no gradient for it
        return False
    return bool(names) and not any(
        name in layer.lora_magnitude_vector
        or name in getattr(layer, "lora_variant", {})
        or getattr(layer.lora_B[name], "bias", None) is not None
        for name in names
    )


def _has_factors(module: nn.Module) -> bool:
    """Whether it has a pair of factors an adapter, and not one for each of its parameters."""
    factors: Any = getattr(module, "lora_A", None)
    return factors is not None and all(isinstance(A, nn.Linear) for A in factors.values())


class Parts:
    """The layers of one model that have a faster form.

    Args:
        model: The adapted model, on the CPU.
        dtype: What frozen products are computed in.
        smallest: Weights of fewer numbers are left to torch.
        training: Whether they also train. Otherwise weights that may be trained are laid out,
            too, and the adapters merged into the copies.
    """

    def __init__(
        self,
        model: nn.Module,
        dtype: torch.dtype,
        smallest: int = SMALLEST,
        training: bool = True,
    ) -> None:
        self.training = training
        self.frozen: dict[int, FrozenLinear] = {}
        self.adapted: dict[nn.Module, Projection] = {}
        head = output_embeddings(model)
        inner = set()
        for module in model.modules():
            base: Any = base_of(module)
            if module in inner or type(base) not in (nn.Linear, Conv1D) or base is head:
                continue
            inner.add(base)
            weight = base.weight
            if training and weight.requires_grad:
                continue
            if not weight.is_floating_point() or weight.numel() < smallest:
                continue
            linear = FrozenLinear([module], dtype)
            self.frozen[id(weight)] = linear
            if base is not module and _has_factors(module):
                self.adapted[module] = Projection([module], dtype, merged=not training)


class Interception(TorchFunctionMode):
    """The mode for one pass; ``seeds`` are drawn in the order of the calls."""

    def __init__(self, parts: Parts, seeds: Seeds) -> None:
        super().__init__()
        self._parts = parts
        self._seeds = seeds

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs our form of a call, or the call itself."""
        kwargs = kwargs or {}
        handler = _HANDLERS.get(func)
        if handler is not None:
            result = handler(self, *args, **kwargs)
            if result is not NotImplemented:
                return result
        return func(*args, **kwargs)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
        """``F.linear`` with a weight of `Parts.frozen`."""
        linear = self._parts.frozen.get(id(weight))
        if linear is None or not linear.uses(weight, bias):
            return NotImplemented
        if self._parts.training and bias is not None and bias.requires_grad:  # bitfit
            return NotImplemented
        return apply(Frozen, x, linear)

    def addmm(self, bias: Tensor, x: Tensor, weight: Tensor, **kwargs: Any) -> Any:
        """``Conv1D``'s product ``x W + b``."""
        return NotImplemented if kwargs else self.linear(x, weight, bias)

    def dropout(
        self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Any:
        """``F.dropout`` from a counter."""
        if not training or not 0.0 < p < 1.0 or inplace or x.dim() == 0 or not x.numel():
            return NotImplemented
        return apply(CounterDropout, x, self._seeds.drop(p))

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        """Attention with dropout: torch has no fused form of it on the CPU either."""
        if dropout_p == 0.0 or enable_gqa:
            return NotImplemented
        scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
        scores = q @ k.transpose(-2, -1) * scale
        if is_causal:
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(future, float("-inf"))
        if attn_mask is not None:
            scores = (
                scores.masked_fill(~attn_mask, float("-inf"))
                if attn_mask.dtype == torch.bool
                else scores + attn_mask
            )
        dead = None if attn_mask is None else _without_keys(attn_mask)
        if dead is not None:
            scores = scores.masked_fill(dead, 0.0)
        p = scores.softmax(-1).to(v.dtype)
        if dead is not None:
            p = p.masked_fill(dead, 0.0)
        return apply(CounterDropout, p, self._seeds.drop(dropout_p)) @ v

    @contextmanager
    def fused_adapters(self) -> Iterator[None]:
        """Runs adapter layers of plain LoRA as one function each."""
        replaced = []
        try:
            for module, projection in self._parts.adapted.items():
                if _is_plain_lora(module):
                    module.forward = self._fused(projection)
                    replaced.append(module)
            yield
        finally:
            for module in replaced:
                del module.forward

    def _fused(self, projection: Projection) -> Callable[..., Tensor]:
        def forward(x: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
            return run_adapted(projection, self._seeds, x)

        return forward


def _without_keys(mask: Tensor) -> Tensor | None:
    """The queries that see no key at all, ``(..., queries, 1)``; ``None``: there is none.

    Padding may be one: before the first token of a text, or behind it where a layer looks at
    near tokens only. Their attention is zero, as torch's own function has it; a softmax would
    make it NaN, and NaN times the probability 0 is NaN for every other query of the next layer.
    """
    closed = ~mask if mask.dtype == torch.bool else mask == float("-inf")
    dead = closed.all(dim=-1, keepdim=True)
    return dead if bool(dead.any()) else None


_HANDLERS: dict[Any, Callable[..., Any]] = {
    F.linear: Interception.linear,
    torch.addmm: Interception.addmm,
    F.dropout: Interception.dropout,
    F.scaled_dot_product_attention: Interception.attention,
}
