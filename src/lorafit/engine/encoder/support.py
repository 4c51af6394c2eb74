"""Whether the fast encoder computes exactly what a model computes; if not, why."""

from __future__ import annotations

from torch import nn

from lorafit.engine import support
from lorafit.engine.encoder import bert, distilbert
from lorafit.engine.encoder.layout import EncoderLayout
from lorafit.engine.support import Unsupported

FAMILIES = [(bert.CLASSES, bert.layout), (distilbert.CLASSES, distilbert.layout)]


def knows(model: nn.Module) -> bool:
    """Whether the class is one of the families'.

    A class of the user's own may compute something else with the same parts.
    """
    library = type(model).__module__.startswith("transformers.")
    return library and any(type(model).__name__ in classes for classes, _ in FAMILIES)


def find_layout(model: nn.Module, training: bool = True) -> EncoderLayout:
    """Finds the parts of a model.

    Args:
        model: The adapted model.
        training: As for `lorafit.engine.support.check_parameters`.

    Raises:
        Unsupported: The reason why the fast engine cannot run it.
    """
    if not knows(model):
        raise Unsupported(f"there is no fast engine for {type(model).__name__}")
    layout_of = next(make for classes, make in FAMILIES if type(model).__name__ in classes)
    layout = layout_of(model)
    support.check_settings(model)
    support.check_embeddings(layout.embeddings)
    linear = [module for block in layout.blocks for module in block.linear()]
    for module in layout.by_hand():
        support.check_module(module)
    for module in linear:
        support.check_linear(module)
    for block in layout.blocks:
        for norm in (block.attention_norm, block.output_norm):
            if not isinstance(norm, nn.LayerNorm) or norm.weight is None or norm.bias is None:
                raise Unsupported(f"its normalization is a {type(norm).__name__}")
    support.check_parameters(model, layout.by_hand(), linear, training)
    return layout


def unsupported(model: nn.Module) -> str | None:
    """Why the fast engine cannot run this model with its adapters; ``None``: it can."""
    try:
        find_layout(model)
    except Unsupported as reason:
        return str(reason)
    return None
