"""The settings of a Python call: a configuration, keywords on top, model and data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorafit.config import Config
from lorafit.errors import ConfigError
from lorafit.settings.order import check_order
from lorafit.settings.resolve import resolve
from lorafit.settings.resolved import Settings
from lorafit.settings.sources import from_config, from_keywords

LIVE = "(live object)"
"""What the configuration says of a model or data that was passed as an object."""


def from_call(
    model: Any,
    data: Any,
    config: Config | Settings | None,
    origins: Mapping[str, str] | None,
    keywords: Mapping[str, Any],
) -> Settings:
    """One checked configuration, and the origin of each value.

    Settings that are resolved already are taken as they are if nothing is put on top of them.

    Args:
        model: What the call takes as its model; ``None``: as ``config`` says.
        data: What it takes as its data; ``None``: as ``config`` says.
        config: What everything else is put on top of.
        origins: Where the values of a plain ``config`` came from.
        keywords: Settings by name.

    Raises:
        ConfigError: A setting is unknown or wrong.
    """
    for value in (model, data):
        if isinstance(value, Config | Settings):
            raise ConfigError(
                "got a configuration where the model or the data belongs. "
                "Call it with lorafit.plan(model, data, config=config), and train, preview and "
                "compare alike; model and data may be left out if the configuration has them."
            )
    named = dict(keywords)
    if model is not None:
        named["model.name_or_path"] = _model_name(model)
    if data is not None:
        named["data.path"] = str(data) if isinstance(data, str | Path) else LIVE
    if isinstance(model, str | Path) and isinstance(data, str | Path):
        check_order(str(model), str(data))
    known: Mapping[str, str] = {}
    if isinstance(config, Settings):
        if not named and not origins:
            return config
        known, config = config.origins, config.config
    layer = from_keywords(named, "lora" if config is None else config.adapter.method)
    found = resolve(*([] if config is None else [from_config(config)]), layer)
    kept = {key: origin for key, origin in known.items() if key in found.origins.keys() - layer}
    return Settings(found.config, found.origins | kept | dict(origins or {}))


def _model_name(model: Any) -> str:
    # Imported here because it is slow: reading `--help` must not wait for it.
    from transformers import PreTrainedModel

    return LIVE if isinstance(model, PreTrainedModel) else str(model)
