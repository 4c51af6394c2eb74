"""The tables of a card: results, classes, and everything that was set or chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorafit.config import TrainConfig
from lorafit.evidence import Evaluation, Table
from lorafit.evidence.confusion import class_scores
from lorafit.evidence.rows import metric_rows
from lorafit.evidence.tables import Cell
from lorafit.export.card.base_card import read
from lorafit.export.card.card import Card
from lorafit.export.card.names import data_hub_id
from lorafit.export.card.sentences import weights
from lorafit.export.card.text import escaped

_MOST_CLASSES = 60
NOT_THE_DATA = "as its own card says; which language the data are in is not known"


def classes(tables: Sequence[Table]) -> Table | None:
    """Scores of each class as text."""
    found = class_scores(tables)
    if found is None or len(found["rows"]) > _MOST_CLASSES:
        return None
    rows: list[list[Cell]] = [
        [f"{cell:.3f}" if isinstance(cell, float) else escaped(cell) for cell in row]
        for row in found["rows"]
    ]
    columns = ["F1" if name == "f1" else escaped(name) for name in found["columns"]]
    return {"title": found["title"], "columns": columns, "rows": rows}


def results(evaluation: Evaluation) -> list[list[str]]:
    """Each metric: title, base, tuned and difference."""
    return [
        [
            f"{row.info.title} ({row.info.unit})" if row.info.unit else row.info.title,
            *(f"{found:.3f}" if found else "" for found in (row.base, row.tuned)),
            f"{row.difference:+.3f}" if row.difference else "",
        ]
        for row in metric_rows(evaluation)
        if row.tuned is not None
    ]


def handoff(evaluation: Evaluation | None) -> list[str]:
    """How far what was saved is from what was trained, a phrase each."""
    if evaluation is None or evaluation.handoff is None:
        return []
    return [f"{name} {value:.1e}" for name, value in evaluation.handoff.differences.items()]


def facts(card: Card) -> list[tuple[str, str, str]]:
    """Name, value and reason of everything that was set or chosen."""
    train = card.config.train
    adapter = card.adapter
    rows = ", ".join(f"{count:,} {split}" for split, count in card.rows.items())
    found: list[tuple[str, Any, str]] = [
        ("base model", card.base_name, ""),
        ("language of the base", read(card.base_name).language, NOT_THE_DATA),
        ("data", data_hub_id(card) or card.config.data.path, ""),
        ("rows", rows, ""),
        ("text", " and ".join(card.task.text), ""),
        ("label", card.task.to_dict().get("label"), ""),
        ("max_length", card.max_length, ""),
        ("new tokens", ", ".join(f"{name} ({i})" for name, i in card.new_tokens.ids.items()), ""),
        *((name, adapter.get(name), _reason(card, name)) for name in _ADAPTER_FACTS),
        ("trainable parameters", card.trainable_parameters, ""),
        ("learning_rate", train.learning_rate, _reason(card, "learning_rate")),
        ("lr_scheduler_type", train.lr_scheduler_type, ""),
        ("num_train_epochs", None if train.max_steps else _epochs(train, card.evaluation), ""),
        ("max_steps", train.max_steps, ""),
        ("weights", weights(card), ""),
        (
            "batch size",
            train.per_device_train_batch_size * train.gradient_accumulation_steps,
            "per device" if train.gradient_accumulation_steps == 1 else "per device, accumulated",
        ),
        ("seed", card.config.seed, ""),
        ("dtype of the base", card.config.model.dtype, ""),
        (
            "versions",
            ", ".join(f"{name} {version}" for name, version in card.versions.items() if version),
            "",
        ),
    ]
    return [
        (name, _value(value), reason)
        for name, value, reason in found
        if value is not None and value is not False and value not in ([], {}, "", ())
    ]


_ADAPTER_FACTS = (
    *("r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save"),
    *("target_parameters", "trainable_token_indices"),
    *("use_rslora", "use_dora", "init_lora_weights", "rank_pattern", "alpha_pattern"),
)


def _epochs(train: TrainConfig, evaluation: Evaluation | None) -> float | str:
    """Passes over the data: those that were set, or what ``auto`` came to."""
    if train.num_train_epochs != "auto" or evaluation is None or evaluation.course is None:
        return train.num_train_epochs
    return evaluation.course.epochs


def _reason(card: Card, name: str) -> str:
    choice = card.choices.get(name)
    return choice.reason if choice else ""


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if value >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple | set):
        return ", ".join(sorted(map(str, value)))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {item}" for key, item in value.items())
    return str(value)
