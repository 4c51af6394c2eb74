"""The hooks by which a layer takes part in the model's call."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from lorafit.methods.base import CallLayer


def hook(model: nn.Module, layer: CallLayer) -> list[RemovableHandle]:
    """Has the model pass its arguments and its output through a layer, until they are removed."""
    hooks, module = _Hooks(layer), layer.called(model)
    return [
        module.register_forward_pre_hook(hooks.before, with_kwargs=True),
        module.register_forward_hook(hooks.after),
    ]


class _Hooks:
    """A layer's part in the model's call; methods, so that a copied model's hooks are its own."""

    def __init__(self, layer: CallLayer) -> None:
        self.layer = layer

    def before(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        names = list(inspect.signature(model.forward).parameters)
        return (), self.layer.before_call(dict(zip(names, args, strict=False)) | kwargs)

    def after(self, _model: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        return self.layer.after_call(output)
