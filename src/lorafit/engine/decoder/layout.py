"""What the fast decoder needs to know of a model: its modules by the part they play."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lorafit.engine import support
from lorafit.engine.frozen import base_of
from lorafit.engine.support import Unsupported

FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")
CAUSAL = {f"{family}ForCausalLM" for family in FAMILIES}
CLASSIFIERS = {f"{family}ForSequenceClassification" for family in FAMILIES}
ROPE = {"default", "linear", "llama3"}
"""Rotary scalings that do not depend on the length of the input."""


@dataclass(frozen=True)
class BlockLayout:
    """One block with a normalization before each half.

    Attributes:
        query, key, value, output, gate, up, down: The linear layers, adapted or not.
        attention_norm: Before the attention half.
        feed_forward_norm: Before the feed-forward half.
        head_norms: On each query head and on each key head, before the rotation; or ``None``.
        attention: Has the dropout's probability.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Width of a head.
        scale: What scores are multiplied by.
    """

    query: nn.Module
    key: nn.Module
    value: nn.Module
    output: nn.Module
    gate: nn.Module
    up: nn.Module
    down: nn.Module
    attention_norm: nn.Module
    feed_forward_norm: nn.Module
    head_norms: tuple[nn.Module, nn.Module] | None
    attention: nn.Module
    heads: int
    kv_heads: int
    head_dim: int
    scale: float

    def norms(self) -> list[nn.Module]:
        """The normalizations."""
        return [self.attention_norm, self.feed_forward_norm, *(self.head_norms or ())]

    def linear(self) -> list[nn.Module]:
        """The layers that may be adapted."""
        halves = [self.query, self.key, self.value, self.output, self.gate, self.up, self.down]
        return list(halves)


@dataclass(frozen=True)
class DecoderLayout:
    """A whole model.

    Attributes:
        embeddings: The token table.
        blocks: From the input up.
        rotary: Gives cosines and sines of positions.
        norm: The last normalization; runs through autograd with the head.
        head: ``lm_head`` or ``score``.
        causal_lm: Whether the head predicts the next token.
        positions: How many the model has.
        pad: The padding token by which a classifier finds the last real token.
    """

    embeddings: nn.Module
    blocks: tuple[BlockLayout, ...]
    rotary: nn.Module
    norm: nn.Module
    head: nn.Module
    causal_lm: bool
    positions: int
    pad: int | None

    def by_hand(self) -> Iterator[nn.Module]:
        """The modules whose forward pass the engine replaces."""
        yield self.embeddings
        for block in self.blocks:
            yield from (*block.linear(), *block.norms())


def knows(model: nn.Module) -> bool:
    """Whether the class is one of the family's."""
    library = type(model).__module__.startswith("transformers.")
    return library and type(model).__name__ in CAUSAL | CLASSIFIERS


def find_layout(model: nn.Module, training: bool = True) -> DecoderLayout:
    """Finds the parts of a model.

    Args:
        model: The adapted model.
        training: As for `lorafit.engine.support.check_parameters`.

    Raises:
        Unsupported: The reason why the fast engine cannot run it.
    """
    if not knows(model):
        raise Unsupported(f"there is no fast engine for {type(model).__name__}")
    whole: Any = model
    config, inner = whole.config, whole.base_model
    _check_config(config)
    causal = type(model).__name__ in CAUSAL
    layout = DecoderLayout(
        embeddings=inner.embed_tokens,
        blocks=tuple(_block(layer, config) for layer in inner.layers),
        rotary=inner.rotary_emb,
        norm=inner.norm,
        head=whole.lm_head if causal else whole.score,
        causal_lm=causal,
        positions=config.max_position_embeddings,
        pad=config.pad_token_id,
    )
    support.check_settings(model)
    support.check_embeddings(layout.embeddings)
    linear = [module for block in layout.blocks for module in block.linear()]
    for module in layout.by_hand():
        support.check_module(module)
    for module in linear:
        support.check_linear(module)
    for block in layout.blocks:
        for norm in block.norms():
            if not isinstance(getattr(norm, "weight", None), nn.Parameter):
                raise Unsupported(f"its normalization is a {type(norm).__name__}")
    support.check_parameters(model, layout.by_hand(), linear, training)
    if causal and (base_of(layout.head) is not layout.head or type(layout.head) is not nn.Linear):
        raise Unsupported("the output embedding is adapted")
    if (
        training
        and causal
        and any(parameter.requires_grad for parameter in layout.head.parameters())
    ):
        raise Unsupported("the output embedding is trained")
    return layout


def _check_config(config: Any) -> None:
    if config.hidden_act not in ("silu", "swish"):
        raise Unsupported(f"its activation is {config.hidden_act!r}; there is a kernel for 'silu'")
    windows = getattr(config, "layer_types", None) or ["full_attention"]
    if getattr(config, "sliding_window", None) is not None and (
        not hasattr(config, "layer_types") or set(windows) != {"full_attention"}
    ):
        raise Unsupported(f"it attends to a sliding window of {config.sliding_window} tokens")
    kind = config.rope_parameters.get("rope_type", "default")
    if kind not in ROPE:
        raise Unsupported(f"its rotary positions are scaled by {kind!r}")


def _block(layer: Any, config: Any) -> BlockLayout:
    attention, mlp = layer.self_attn, layer.mlp
    return BlockLayout(
        query=attention.q_proj,
        key=attention.k_proj,
        value=attention.v_proj,
        output=attention.o_proj,
        gate=mlp.gate_proj,
        up=mlp.up_proj,
        down=mlp.down_proj,
        attention_norm=layer.input_layernorm,
        feed_forward_norm=layer.post_attention_layernorm,
        head_norms=((attention.q_norm, attention.k_norm) if hasattr(attention, "q_norm") else None),
        attention=attention,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=attention.head_dim,
        scale=attention.scaling,
    )


def attention_p(module: nn.Module) -> float:
    """The dropout of the attention probabilities now."""
    attention: Any = module
    return float(attention.attention_dropout) if module.training else 0.0


def storage(model: nn.Module) -> torch.dtype:
    """The type of the model's own weights."""
    return next(model.parameters()).dtype
