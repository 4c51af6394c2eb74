"""Layers of settings on top of one another, checked, with the origin of each value."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lorafit.config import AdapterConfig, Config
from lorafit.errors import ConfigError, LorafitError, clause
from lorafit.evidence.json import Json
from lorafit.settings.keys import (
    check,
    fields,
    learning_rate,
    method_config,
    method_fields,
    recommended,
    sections,
    top_level,
)
from lorafit.settings.resolved import AUTO, DEFAULT, Settings
from lorafit.settings.sources import Layer
from lorafit.trust import check_settings

Model = TypeVar("Model", bound=BaseModel)

MEASURABLE = frozenset(
    {"adapter.lora_alpha", "adapter.r", "adapter.target_modules", "train.learning_rate"}
)
"""The settings that take ``"auto"``; it is also what they are when nobody sets them."""

MISSING = {
    "model.name_or_path": "which model? Give a Hub id, a local folder or package:NAME/path.",
    "data.path": "which data? Give a Hub id, a local file or folder, or package:NAME/path.",
}

KINDS = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "set_type": "a list",
    "string_type": "a text",
}
"""What pydantic's types of error ask for, in words."""


def resolve(*layers: Layer) -> Settings:
    """Puts layers on top of one another, later ones winning, and checks the result.

    Raises:
        ConfigError: A key is unknown, a value is of the wrong kind or out of range.
        ModelError: A file asks for code of the model to be run, which only the caller can.
    """
    given: Layer = {}
    for layer in layers:
        given |= layer
    automatic = {key for key in MEASURABLE if key in given and given[key].value == AUTO}
    given = {key: value for key, value in given.items() if key not in automatic}
    method = _method(given)
    for layer in layers:  # also what a later layer overrides has to be right
        for key, value in layer.items():
            check(key, value.origin, method)
            if isinstance(value.value, float) and not math.isfinite(value.value):
                raise ConfigError(
                    f"{key} is {value.value} ({value.origin}), but it should be a finite number."
                )
    own = method_fields(method)
    set_here = {name: given[f"adapter.{name}"].value for name in own if f"adapter.{name}" in given}
    values = {f"adapter.{name}": value for name, value in recommended(method, set_here).items()}
    rate = learning_rate(method)
    if rate is not None:
        values["train.learning_rate"] = rate
    values |= {key: value.value for key, value in given.items()}

    adapter = {name: values.pop(f"adapter.{name}") for name in own if f"adapter.{name}" in values}
    stages = _nested(values)
    stages.setdefault("model", {})
    stages.setdefault("data", {})
    checked = _validate(method_config(method), adapter, given, "adapter.")
    config = _validate(Config, stages, given, "")
    # Plain values, so that what is written to a file reads back the same.
    plain = {name: getattr(checked, name) for name in own}
    plain |= {name: sorted(value) for name, value in plain.items() if isinstance(value, set)}
    config.adapter = AdapterConfig(method=method, **plain)
    files = {key: value.file for key, value in given.items() if value.file is not None}
    check_settings(config.model, files)
    keys = [*top_level(), *(f"{s}.{field}" for s in sections() for field in fields(s, method))]
    origins = {key: given[key].origin if key in given else DEFAULT for key in keys}
    origins |= dict.fromkeys(automatic, AUTO)
    return Settings(config, origins)


def _method(given: Layer) -> str:
    chosen = given.get("adapter.method")
    if chosen is None:
        return AdapterConfig().method
    if not isinstance(chosen.value, str):
        raise ConfigError(f"adapter.method is {chosen.value!r} ({chosen.origin}), not a name.")
    return chosen.value


def _nested(values: Mapping[str, object]) -> Json:
    sections: dict[str, Json] = {}
    nested: Json = {}
    for key, value in values.items():
        section, dot, name = key.partition(".")
        if dot:
            nested[section] = sections.setdefault(section, {})
            sections[section][name] = value
        else:
            nested[key] = value
    return nested


def _validate(model: type[Model], values: Json, given: Layer, at: str) -> Model:
    """Checks values strictly: a text is no number, ``true`` is not 1.

    Strictly as JSON, because there a list may become a set, which YAML has no word for.
    """
    try:
        return _validate_json(model, values)
    except ValidationError as first:
        # `--set run.name=7`: where a text is wanted, a number typed is that text.
        texts = [
            (error["loc"], given[key].text)
            for error in first.errors(include_url=False)
            if error["type"] == "string_type"
            and (key := at + ".".join(map(str, error["loc"]))) in given
            and not (given[key].text or "[").lstrip().startswith(("[", "{"))
        ]
        for loc, text in texts:
            group: Any = values
            for name in loc[:-1]:
                group = group[name]
            group[loc[-1]] = text
        if not texts:
            raise _explained(first, given, at) from first
    try:
        return _validate_json(model, values)
    except ValidationError as error:
        raise _explained(error, given, at) from error


def _validate_json(model: type[Model], values: Json) -> Model:
    try:
        text = json.dumps(values, default=_plain)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a setting is not made of plain values: {clause(error)}.") from error
    return model.model_validate_json(text, strict=True)


def _plain(value: Any) -> Any:
    """JSON for what Python callers and YAML pass beside JSON's own types."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item"):  # numbers of numpy and torch
        return value.item()
    raise TypeError(f"{type(value).__name__} ({reprlib.repr(value)})")


def _explained(error: ValidationError, given: Layer, at: str) -> LorafitError:
    """One line for each setting that is wrong, in the order they were written."""
    lines: dict[str, list[str]] = {}
    shown: dict[str, str] = {}
    for item in error.errors(include_url=False):
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, LorafitError):
            return cause
        key, inner = _split(at, item["loc"])
        if item["type"] == "missing":
            return ConfigError(MISSING.get(key, f"{key} is not set."))
        origin = f" ({given[key].origin})" if key in given else ""
        if cause is not None:
            shown[key] = f"{key or 'adapter'}{origin}: "
            lines.setdefault(key, []).append(str(cause))
            continue
        value = given[key].value if key in given and _in_union(inner) else item["input"]
        index = "".join(f"[{i}]" for i in inner if isinstance(i, int))
        shown[key] = f"{key}{index} is {_shown(value)}{origin}, but it should be "
        wanted = KINDS.get(item["type"]) or item["msg"].removeprefix("Input should be ")
        if wanted not in lines.setdefault(key, []):
            lines[key].append(wanted)
    return ConfigError("\n".join(f"{shown[key]}{' or '.join(lines[key])}." for key in lines))


def _split(at: str, loc: tuple[int | str, ...]) -> tuple[str, tuple[int | str, ...]]:
    """The key an error is about, and the rest of its location inside the value."""
    depth = 1 if at or (loc and loc[0] in top_level()) else 2
    return (at + ".".join(map(str, loc[:depth]))).rstrip("."), loc[depth:]


def _in_union(inner: tuple[int | str, ...]) -> bool:
    return bool(inner) and not any(isinstance(part, int) for part in inner)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    return f'"{value}"' if isinstance(value, str) and len(value) < 60 else reprlib.repr(value)
