"""What every engine that computes modules by hand has to refuse."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from lorafit.engine.frozen import base_of


class Unsupported(Exception):
    """An engine cannot compute this model; the message is the reason."""


def check_settings(model: nn.Module) -> None:
    """Settings that want more than logits.

    Raises:
        Unsupported: One is on.
    """
    whole: Any = model
    for setting in ("output_attentions", "output_hidden_states"):
        if getattr(whole.config, setting, False):
            raise Unsupported(f"{setting} is set")
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise Unsupported("gradient checkpointing is on")


def check_embeddings(embeddings: nn.Module) -> None:
    """Embeddings with adapters.

    Raises:
        Unsupported: There is one.
    """
    if any(hasattr(module, "base_layer") for module in embeddings.modules()):
        raise Unsupported("an embedding is adapted")


def check_module(module: nn.Module) -> None:
    """Code that someone hung on a module, which is not called by hand.

    Raises:
        Unsupported: There is some.
    """
    for inner in module.modules():
        hooks = (
            *inner._forward_hooks.values(),
            *inner._forward_pre_hooks.values(),
            *inner._backward_hooks.values(),
        )
        if hooks or getattr(inner, "parametrizations", None) is not None:
            raise Unsupported(f"a {type(inner).__name__} has hooks or parametrizations")


def check_linear(module: nn.Module) -> None:
    """A linear layer and its adapters.

    Raises:
        Unsupported: It is not ``nn.Linear``, or an adapter is not plain LoRA.
    """
    base: Any = base_of(module)
    if type(base) is not nn.Linear:
        raise Unsupported(f"a linear layer is a {type(base).__name__}")
    if base is module:
        return
    layer: Any = module
    if not hasattr(layer, "lora_A"):
        raise Unsupported(f"an adapter is a {type(layer).__name__}, not LoRA")
    for name in layer.lora_A:
        if not isinstance(layer.lora_A[name], nn.Linear):
            raise Unsupported(f'adapter "{name}" names a weight by target_parameters')
        if name in layer.lora_magnitude_vector or name in getattr(layer, "lora_variant", {}):
            raise Unsupported(f'adapter "{name}" is not plain LoRA (DoRA or another variant)')
        if getattr(layer.lora_B[name], "bias", None) is not None:
            raise Unsupported(f'adapter "{name}" has a bias')
        if layer.lora_A[name].weight.dtype not in (torch.float32, torch.bfloat16):
            raise Unsupported(f'adapter "{name}" is {layer.lora_A[name].weight.dtype}')


def check_parameters(
    model: nn.Module,
    by_hand: Iterable[nn.Module],
    linear: Iterable[nn.Module],
    training: bool = True,
) -> None:
    """Where parameters are, and which of them train.

    Args:
        model: The whole model.
        by_hand: The modules that are computed by hand.
        linear: Those among them whose LoRA factors may train.
        training: Whether what is to train matters: it does not to an engine that only answers.

    Raises:
        Unsupported: One is not on the CPU, is quantized, or trains without being a factor.
    """
    names = {}
    for path, parameter in model.named_parameters():
        names[id(parameter)] = path
        if parameter.device.type != "cpu":
            raise Unsupported(f"it is on {parameter.device}; the fast engine computes on the CPU")
        if not parameter.is_floating_point():
            raise Unsupported(f"{path} is quantized ({parameter.dtype})")
    if not training:
        return
    adapted = {id(module) for module in linear}
    for module in by_hand:
        for path, parameter in module.named_parameters():
            factor = id(module) in adapted and path.startswith(("lora_A.", "lora_B."))
            if parameter.requires_grad and not (factor and path.endswith(".weight")):
                raise Unsupported(f"{names[id(parameter)]} is trained; only LoRA factors can be")
