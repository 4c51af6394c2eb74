"""Linear layers with LoRA updates, differentiated by hand.

    y = x W^T + b + sum_a s_a dropout_a(x) A_a^T B_a^T

W is frozen (`FrozenLinear`); the updates read and train the very parameters of the model's
adapter layers, whose attribute names are PEFT's (``base_layer``, ``lora_A``, ``scaling``...).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lorafit.engine.frozen import FrozenLinear, version
from lorafit.engine.kernels import checked as kernels
from lorafit.engine.kernels.counter import Drop, Seeds


def active_names(module: nn.Module) -> list[str]:
    """The adapters that a layer's forward pass adds now."""
    layer: Any = module
    if not hasattr(layer, "lora_A") or layer.disable_adapters or layer.merged_adapters:
        return []
    return [name for name in layer.active_adapters if name in layer.lora_A]


@dataclass(frozen=True)
class Update:
    """One adapter of one layer.

    Attributes:
        a: ``(r, d_in)`` float32, contiguous, detached.
        b: ``(d_out, r)``.
        scaling: The factor of the update.
        p: Dropout of the input.
        parameters: The trained ``lora_A`` and ``lora_B`` weights; their rank may be below r
            (the rest is the frozen start of e.g. a PiSSA adapter).
    """

    a: Tensor
    b: Tensor
    scaling: float
    p: float
    parameters: tuple[nn.Parameter, nn.Parameter]

    @property
    def trains(self) -> bool:
        """Whether any of the two takes a gradient."""
        return any(parameter.requires_grad for parameter in self.parameters)

    def add_gradients(self, grad_a: Tensor, grad_b: Tensor) -> None:
        """Adds to the parameters' ``.grad``."""
        a, b = self.parameters
        for parameter, grad in ((a, grad_a[: len(a)]), (b, grad_b[:, : b.shape[1]])):
            if not parameter.requires_grad:
                continue
            if parameter.grad is None:
                parameter.grad = grad.to(parameter.dtype, copy=True).contiguous()
            else:
                parameter.grad += grad


def factors_of(module: nn.Module, name: str) -> tuple[nn.Parameter, nn.Parameter]:
    """The ``lora_A`` and ``lora_B`` weights of one adapter."""
    layer: Any = module
    return layer.lora_A[name].weight, layer.lora_B[name].weight


def updates_of(module: nn.Module) -> list[Update]:
    """The updates that this layer's forward pass adds now."""
    return [_update(module, name) for name in active_names(module)]


def _update(module: nn.Module, name: str) -> Update:
    layer: Any = module
    parameters = factors_of(module, name)
    a, b = (p.detach().float().contiguous() for p in parameters)
    origins = getattr(layer, "lora_origin", {})
    if name in origins:
        origin = origins[name]
        a, b = torch.cat([a, origin.A.float()]), torch.cat([b, -origin.B.float()], dim=1)
    drop: Any = layer.lora_dropout[name]
    p = float(getattr(drop, "p", 0.0)) if drop.training else 0.0
    return Update(a, b, float(layer.scaling[name]), p, parameters)


@dataclass(frozen=True)
class Applied:
    """An update as one pass applied it: what backward needs beside the layer's input."""

    update: Update
    columns: slice
    u: Tensor
    drop: Drop

    def gradients(self, dy: Tensor, x: Tensor, dx: Tensor | None) -> tuple[Tensor, Tensor]:
        """The gradients of A and B; that of x is added to ``dx``.

        Args:
            dy: Gradient of the whole projection's output.
            x: The projection's input.
            dx: Float32 or the storage type; ``None``: not wanted.
        """
        a, b = self.update.a, self.update.b
        grad_a, grad_b = torch.zeros_like(a), torch.zeros_like(b)
        kernels.lora_backward(
            dy[:, self.columns],
            *(x, a, b, self.u, self.update.scaling, self.drop, grad_a, grad_b, dx),
        )
        return grad_a, grad_b


class MergedLinear(FrozenLinear):
    """The same with the layers' updates in the copy of the weight: the model stays as it is.

    The sum is rounded once, to the type of the product. It follows the adapters: one that is
    switched off, scaled or trained on is merged anew.
    """

    def _state(self) -> tuple[object, ...]:
        layers: list[Any] = self._modules
        updates = [
            (place, layer.scaling[name], *map(version, factors_of(layer, name)))
            for place, layer in enumerate(layers)
            for name in active_names(layer)
        ]
        return (*super()._state(), *updates)

    def _value(self, index: int) -> Tensor:
        weight = self._weight(self._layers[index]).detach().float()
        for update in updates_of(self._modules[index]):
            weight = torch.addmm(weight, update.b, update.a, alpha=update.scaling)
        return weight.to(self.dtype)


class Projection:
    """Linear layers with a common input, as one product, each with its updates.

    Args:
        modules: ``nn.Linear`` layers or adapter layers around them, by output columns.
        dtype: Storage type of activations.
        merged: Compute the updates as part of the weight, for answers only: there is no
            gradient.
    """

    def __init__(
        self, modules: Sequence[nn.Module], dtype: torch.dtype, merged: bool = False
    ) -> None:
        self.modules = list(modules)
        self.merged = merged
        self.frozen = (MergedLinear if merged else FrozenLinear)(self.modules, dtype)

    @property
    def trains(self) -> bool:
        """Whether any update of these layers takes a gradient now."""
        return any(
            factor.requires_grad
            for module in self.modules
            for name in active_names(module)
            for factor in factors_of(module, name)
        )

    def forward(self, x: Tensor, seeds: Seeds) -> tuple[Tensor, list[Applied]]:
        """``x (n, d_in)`` to ``(n, sum of d_out)``."""
        y = self.frozen.forward(x)
        if self.merged:
            return y, []
        applied = []
        start = 0
        for module, width in zip(self.modules, self.frozen.widths, strict=True):
            columns = slice(start, start + width)
            for update in updates_of(module):
                drop = seeds.drop(update.p)
                u = kernels.lora_down(x, update.a, drop)
                kernels.lora_up(u, update.b, update.scaling, y[:, columns])
                applied.append(Applied(update, columns, u, drop))
            start += width
        return y, applied

    def factors(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """The parameters of the updates, in the order they are applied."""
        return [
            factors_of(module, name) for module in self.modules for name in active_names(module)
        ]


def add_gradients(dy: Tensor, x: Tensor, applied: Sequence[Applied], dx: Tensor | None) -> None:
    """Adds the updates' gradients to their parameters' ``.grad``, and to ``dx`` when given."""
    for done in applied:
        if dx is None and not done.update.trains:
            continue
        done.update.add_gradients(*done.gradients(dy, x, dx))
