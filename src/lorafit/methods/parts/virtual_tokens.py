"""What methods with virtual tokens (``prompt``, ``prefix``) have in common.

Their adapter stands around the input embedding, and PEFT counts them as prompt learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from pydantic import Field
from torch import nn

from lorafit.errors import ConfigError
from lorafit.methods.base import AdapterLayer, Family, Method, MethodConfig
from lorafit.model.sites import Site


class VirtualTokensConfig(MethodConfig):
    """Settings of methods with virtual tokens, with PEFT's names."""

    prompt_learning: ClassVar[bool] = True
    num_virtual_tokens: int = Field(default=20, gt=0)
    """How many virtual tokens stand before those of the input."""
    token_dim: int | None = None
    """Filled in: the width of the embeddings; of a prefix, of a layer's keys."""
    num_layers: int | None = None
    """Filled in: the model's layers."""
    num_attention_heads: int | None = None
    """Filled in: the heads of a layer."""
    num_transformer_submodules: int | None = None
    """Filled in, for PEFT: 1."""


V = TypeVar("V", bound=VirtualTokensConfig)


class VirtualTokens(Method[V]):
    """A method with virtual tokens."""

    family: ClassVar[Family] = "additive"
    starts_at_base = False

    def reserved_tokens(self, config: V) -> int:
        """One position for each virtual token."""
        return config.num_virtual_tokens


def input_embedding(model: nn.Module, sites: Sequence[Site], method: str) -> Site:
    """The site of the table that a model looks its input tokens up in, adapted or not.

    Raises:
        ConfigError: There is no table.
    """
    try:
        words = _plain(getattr(model, "get_input_embeddings", lambda: None)())
    except NotImplementedError:
        words = None
    for site in sites:
        if site.kind == "embedding" and _plain(model.get_submodule(site.path)) is words:
            return site
    raise ConfigError(
        f"{method} needs a table of input embeddings, but {type(model).__name__} has none."
    )


def _plain(module: Any) -> Any:
    return module.base_layer if isinstance(module, AdapterLayer) else module
