"""BERT and the models built like it: RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lorafit.engine.encoder.layout import (
    BlockLayout,
    EncoderLayout,
    activation_kernel,
)
from lorafit.engine.support import Unsupported

POOLER = {"BertForSequenceClassification"}
"""``classifier(dropout(pooler(first token)))``"""

OWN_HEAD = {
    "RobertaForSequenceClassification",
    "XLMRobertaForSequenceClassification",
    "CamembertForSequenceClassification",
    "ElectraForSequenceClassification",
}
"""``classifier(first token)``"""

PER_TOKEN = {
    "BertForTokenClassification",
    "RobertaForTokenClassification",
    "XLMRobertaForTokenClassification",
    "CamembertForTokenClassification",
    "ElectraForTokenClassification",
}
"""``classifier(dropout(token))``"""

CLASSES = POOLER | OWN_HEAD | PER_TOKEN


def layout(model: nn.Module) -> EncoderLayout:
    """Reads the parts off a model whose class is one of `CLASSES`.

    Raises:
        Unsupported: It is configured in a way the engine does not compute.
    """
    whole: Any = model
    config = whole.config
    encoder: Any = whole.base_model
    if config.is_decoder or config.add_cross_attention:
        raise Unsupported("it is configured as a decoder")
    embeddings = encoder.embeddings
    return EncoderLayout(
        embeddings=embeddings,
        projection=getattr(encoder, "embeddings_project", None),
        blocks=tuple(_block(layer, config) for layer in encoder.encoder.layer),
        position_offset=(
            config.pad_token_id + 1
            if hasattr(embeddings, "create_position_ids_from_input_ids")
            else 0
        ),
        head=_head(whole, encoder),
        pools_first=type(model).__name__ not in PER_TOKEN,
    )


def _block(layer: Any, config: Any) -> BlockLayout:
    attention = layer.attention.self
    return BlockLayout(
        query=attention.query,
        key=attention.key,
        value=attention.value,
        output=layer.attention.output.dense,
        up=layer.intermediate.dense,
        down=layer.output.dense,
        attention_norm=layer.attention.output.LayerNorm,
        output_norm=layer.output.LayerNorm,
        probability_dropout=attention.dropout,
        attention_dropout=layer.attention.output.dropout,
        hidden_dropout=layer.output.dropout,
        heads=attention.num_attention_heads,
        scale=attention.scaling,
        activation=activation_kernel(config.hidden_act),
    )


def _head(model: Any, encoder: Any) -> Any:
    name = type(model).__name__

    def pooled(states: Tensor) -> Tensor:
        logits: Tensor = model.classifier(model.dropout(encoder.pooler(states)))
        return logits

    def own(states: Tensor) -> Tensor:
        logits: Tensor = model.classifier(states)
        return logits

    def per_token(states: Tensor) -> Tensor:
        logits: Tensor = model.classifier(model.dropout(states))
        return logits

    return pooled if name in POOLER else own if name in OWN_HEAD else per_token
