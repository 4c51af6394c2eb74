"""What a card calls the model, its base, its data and its method."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from lorafit.errors import LorafitError
from lorafit.export.card.card import Card
from lorafit.paths import PACKAGE_PREFIX, resolve
from lorafit.settings import LIVE


def hub_id(card: Card) -> str | None:
    """The base model's Hub id, if it can be one."""
    name = card.base_name
    if name is None or name.startswith(PACKAGE_PREFIX) or Path(name).is_absolute():
        return None
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name


def base_link(card: Card) -> str:
    """The base model, with a link where it is on the Hub."""
    known = hub_id(card)
    if known:
        return f"[{known}](https://huggingface.co/{known})"
    return f"`{card.base_name}`" if card.base_name else "a model given in memory"


def title(card: Card) -> str:
    """What a person would write above it."""
    if card.title:
        return card.title
    what = _TITLES.get(card.task.name, card.task.name.replace("_", " ").capitalize())
    data = "" if card.config.data.path == LIVE else f" for {data_name(card).replace('_', ' ')}"
    return f"{what}{data} ({_base_title(card)}, {method(card)})"


_TITLES = {
    "sequence_classification": "Text classifier",
    "multi_label_classification": "Multi-label text classifier",
    "regression": "Text scorer",
    "token_classification": "Word tagger",
    "causal_lm": "Language model",
    "seq2seq": "Text-to-text model",
}

_PLAIN = {"model", "base", "weights", "snapshot", "checkpoint", "pytorch", "final"}
"""Names of folders that say nothing of the model in them."""


def _base_title(card: Card) -> str:
    """The base's own name, without the folders around it."""
    known = hub_id(card)
    if known:
        return known.rpartition("/")[2]
    name = (card.base_name or "a model in memory").removeprefix(PACKAGE_PREFIX).rstrip("/")
    parts = [part for part in name.split("/") if part and part.lower() not in _PLAIN]
    return parts[-1] if parts else name


def data_hub_id(card: Card) -> str | None:
    """The data's Hub id, if it came from there."""
    name = card.config.data.path
    if card.data_hub_id or name == LIVE or name.startswith(PACKAGE_PREFIX):
        return card.data_hub_id
    try:
        if resolve(name) is not None:
            return None
        validate_repo_id(name)
    except (LorafitError, HFValidationError):
        return None
    return name if card.in_run else None


def data_name(card: Card) -> str:
    """The data as a person calls it: no folders, no endings of files."""
    if data_hub_id(card):
        return str(data_hub_id(card))
    if card.config.data.path == LIVE:
        return "data in memory"
    name = card.config.data.path.rstrip("/").rpartition("/")[2]
    return re.sub(r"(\.(csv|tsv|jsonl?|parquet|txt|conll|bz2|gz|xz|zst|zip))+$", "", name) or name


def method(card: Card) -> str:
    """The method as people call it."""
    if card.adapter.get("use_dora"):
        return "DoRA"
    return "LoRA" if card.config.adapter.method == "lora" else card.config.adapter.method


def in_peft(card: Card) -> bool:
    """Whether PEFT has the method, so that it loads the adapter."""
    return not str(card.adapter.get("peft_type", "")).startswith("LORAFIT_")
