"""The metadata of a card, as the Hub defines it."""

from __future__ import annotations

from huggingface_hub import EvalResult, ModelCardData

from lorafit.evidence.rows import metric_rows
from lorafit.export.card import base_card
from lorafit.export.card.card import Card
from lorafit.export.card.names import data_hub_id, data_name, hub_id, in_peft, title

_PIPELINE = {
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "CAUSAL_LM": "text-generation",
}
"""PEFT's task type to the Hub's pipeline tag."""


def metadata(card: Card) -> ModelCardData:
    """Returns the metadata as the Hub defines it."""
    measured = [
        (row.info.hub, row.label, row.tuned.value)
        for row in ([] if card.evaluation is None else metric_rows(card.evaluation))
        if row.info.hub is not None and row.tuned is not None
    ]
    kind = _PIPELINE.get(card.task.task_type)
    hub_data = data_hub_id(card)
    data = hub_data or data_name(card)
    base, known = hub_id(card), base_card.read(card.base_name)
    extra = {} if card.license else {
        name: value
        for name in ("license_name", "license_link")
        if (value := getattr(known, name)) is not None
    }  # fmt: skip
    if base:
        extra["base_model_relation"] = "adapter"
    results = [
        EvalResult(
            task_type=kind or "other",
            dataset_type=hub_data or "other",
            dataset_name=data,
            dataset_split="test" if card.evaluation is None else card.evaluation.split,
            metric_type=hub_name,
            metric_name=name,
            metric_value=round(float(value), 4),
        )
        for hub_name, name, value in measured
    ]
    return ModelCardData(
        base_model=base,
        datasets=[hub_data] if hub_data else None,
        library_name="peft" if in_peft(card) else "lorafit",
        license=card.license or known.license,
        metrics=list(dict.fromkeys(hub_name for hub_name, _, _ in measured)) or None,
        model_name=title(card) if results else None,
        eval_results=results or None,
        pipeline_tag=kind,
        tags=list(dict.fromkeys([card.config.adapter.method, "lorafit"])),
        **extra,
    )
