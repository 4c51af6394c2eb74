"""Evaluation mode for a moment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; each module's mode is put back afterwards."""
    training = _training(model)
    if training:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def _training(model: nn.Module) -> list[nn.Module]:
    """The modules in training mode.

    ``model.modules()`` names each one on the way, and ``eval()`` sets an attribute of each: of an
    adapted MiniLM that takes as long as half a layer for a batch of short texts.
    """
    found, rest = [], [model]
    while rest:
        module = rest.pop()
        if module.training:
            found.append(module)
        rest.extend(child for child in module._modules.values() if child is not None)
    return found
