"""Whether the fast encoder computes exactly what a model computes; if not, why."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lorafit.engine.encoder import bert, distilbert
from lorafit.engine.encoder.layout import BlockLayout, EncoderLayout, Unsupported
from lorafit.engine.frozen import base_of


def find_layout(model: nn.Module) -> EncoderLayout:
    """Finds the parts of a model.

    Raises:
        Unsupported: The reason why the fast engine cannot run it.
    """
    name = type(model).__name__
    # By class: a class of the user's own may compute something else with the same parts.
    library = type(model).__module__.startswith("transformers.")
    families = [(bert.CLASSES, bert.layout), (distilbert.CLASSES, distilbert.layout)]
    for classes, layout_of in families:
        if library and name in classes:
            found = layout_of(model)
            _check(model, found)
            return found
    raise Unsupported(f"there is no fast engine for {name}")


def unsupported(model: nn.Module) -> str | None:
    """Why the fast engine cannot run this model with its adapters; ``None``: it can."""
    try:
        find_layout(model)
    except Unsupported as reason:
        return str(reason)
    return None


def _check(model: nn.Module, layout: EncoderLayout) -> None:
    whole: Any = model
    config = whole.config
    for setting in ("output_attentions", "output_hidden_states"):
        if getattr(config, setting, False):
            raise Unsupported(f"{setting} is set")
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise Unsupported("gradient checkpointing is on")
    if any(hasattr(module, "base_layer") for module in layout.embeddings.modules()):
        raise Unsupported("an embedding is adapted")
    for module in layout.by_hand():
        _check_module(module)
    for block in layout.blocks:
        _check_block(block)
    _check_parameters(model, layout)


def _check_parameters(model: nn.Module, layout: EncoderLayout) -> None:
    for path, parameter in model.named_parameters():
        if parameter.device.type != "cpu":
            raise Unsupported(f"it is on {parameter.device}; the fast engine computes on the CPU")
        if not parameter.is_floating_point():
            raise Unsupported(f"{path} is quantized ({parameter.dtype})")
    names = {id(parameter): path for path, parameter in model.named_parameters()}
    adapted = {id(m) for block in layout.blocks for m in block.linear()}
    for module in layout.by_hand():
        for path, parameter in module.named_parameters():
            factor = id(module) in adapted and path.startswith(("lora_A.", "lora_B."))
            if parameter.requires_grad and not (factor and path.endswith(".weight")):
                raise Unsupported(f"{names[id(parameter)]} is trained; only LoRA factors can be")


def _check_module(module: nn.Module) -> None:
    for inner in module.modules():
        hooks = (
            *inner._forward_hooks.values(),
            *inner._forward_pre_hooks.values(),
            *inner._backward_hooks.values(),
        )
        if hooks or getattr(inner, "parametrizations", None) is not None:
            raise Unsupported(f"a {type(inner).__name__} has hooks or parametrizations")


def _check_block(block: BlockLayout) -> None:
    for norm in (block.attention_norm, block.output_norm):
        if not isinstance(norm, nn.LayerNorm) or norm.weight is None or norm.bias is None:
            raise Unsupported(f"its normalization is a {type(norm).__name__}")
    for module in block.linear():
        base: Any = base_of(module)
        if type(base) is not nn.Linear:
            raise Unsupported(f"a linear layer is a {type(base).__name__}")
        if base is module:
            continue
        layer: Any = module
        if not hasattr(layer, "lora_A"):
            raise Unsupported(f"an adapter is a {type(layer).__name__}, not LoRA")
        for name in layer.lora_A:
            if name in layer.lora_magnitude_vector or name in getattr(layer, "lora_variant", {}):
                raise Unsupported(f'adapter "{name}" is not plain LoRA (DoRA or another variant)')
            if getattr(layer.lora_B[name], "bias", None) is not None:
                raise Unsupported(f'adapter "{name}" has a bias')
            if layer.lora_A[name].weight.dtype not in (torch.float32, torch.bfloat16):
                raise Unsupported(f'adapter "{name}" is {layer.lora_A[name].weight.dtype}')
