"""DistilBERT."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lorafit.engine.encoder.layout import BlockLayout, EncoderLayout, activation_kernel

PER_TOKEN = {"DistilBertForTokenClassification"}
CLASSES = {"DistilBertForSequenceClassification"} | PER_TOKEN


def layout(model: nn.Module) -> EncoderLayout:
    """Reads the parts off a model whose class is one of `CLASSES`.

    Raises:
        Unsupported: It is configured in a way the engine does not compute.
    """
    whole: Any = model
    encoder: Any = whole.base_model

    def pooled(states: Tensor) -> Tensor:
        hidden = torch.relu(whole.pre_classifier(states[:, 0]))
        logits: Tensor = whole.classifier(whole.dropout(hidden))
        return logits

    def per_token(states: Tensor) -> Tensor:
        logits: Tensor = whole.classifier(whole.dropout(states))
        return logits

    pools_first = type(model).__name__ not in PER_TOKEN
    return EncoderLayout(
        embeddings=encoder.embeddings,
        projection=None,
        blocks=tuple(_block(layer, whole.config) for layer in encoder.transformer.layer),
        position_offset=0,
        head=pooled if pools_first else per_token,
        pools_first=pools_first,
    )


def _block(layer: Any, config: Any) -> BlockLayout:
    attention = layer.attention
    return BlockLayout(
        query=attention.q_lin,
        key=attention.k_lin,
        value=attention.v_lin,
        output=attention.out_lin,
        up=layer.ffn.lin1,
        down=layer.ffn.lin2,
        attention_norm=layer.sa_layer_norm,
        output_norm=layer.output_layer_norm,
        probability_dropout=attention.dropout,
        attention_dropout=None,
        hidden_dropout=layer.ffn.dropout,
        heads=attention.n_heads,
        scale=attention.scaling,
        activation=activation_kernel(config.activation),
    )
