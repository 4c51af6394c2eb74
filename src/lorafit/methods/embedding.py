"""The table that a model looks its input tokens up in."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lorafit.methods.base import AdapterLayer
from lorafit.model.sites import Site


def word_embedding(model: nn.Module, sites: Sequence[Site]) -> Site | None:
    """The site of the input embedding, adapted or not; ``None`` where there is no table."""
    try:
        words = getattr(model, "get_input_embeddings", lambda: None)()
    except NotImplementedError:
        return None
    words = words.base_layer if isinstance(words, AdapterLayer) else words
    for site in sites:
        module = model.get_submodule(site.path)
        module = module.base_layer if isinstance(module, AdapterLayer) else module
        if module is words and site.kind == "embedding":
            return site
    return None
