"""The rows of new tokens: what of the embeddings a method has to train because of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lorafit.errors import ConfigError
from lorafit.methods import methods
from lorafit.model.load import LoadedModel
from lorafit.model.sites import output_embeddings

FIELD = "trainable_token_indices"


def with_new_rows(method: str, settings: Mapping[str, Any], loaded: LoadedModel) -> dict[str, Any]:
    """A method's settings, in which the rows of the new tokens are trained.

    Rows that are named are trained besides. Output embeddings that are not tied to the input
    embeddings have rows of their own, which are trained too: else no new token could be written.

    Args:
        method: Its name.
        settings: Of the method.
        loaded: The model and what was added to its tokenizer.

    Raises:
        ConfigError: The method trains no rows, and nothing else trains the embeddings.
    """
    settings = dict(settings)
    new = list(loaded.new_tokens.ids.values())
    if not new or methods[method].trains_embeddings:
        return settings
    whole = settings.get("modules_to_save") or []
    tables = [p for p in _tables(loaded.model) if not any(p.endswith(name) for name in whole)]
    if not tables:
        return settings
    if FIELD not in methods[method].config_class.model_fields:
        able = [
            name
            for name in methods
            if methods[name].trains_embeddings or FIELD in methods[name].config_class.model_fields
        ]
        raise ConfigError(
            f"add_tokens: {method} trains no rows of the embeddings, so new tokens would stay "
            f"what they begin as. Take --method {' or '.join(able)}, or train the embeddings "
            f"whole: --set adapter.modules_to_save={tables[0]}"
        )
    named = settings.get(FIELD) or []
    if not isinstance(named, dict) and len(tables) == 1:
        settings[FIELD] = list(dict.fromkeys([*named, *new]))
        return settings
    rows = dict(named) if isinstance(named, dict) else {tables[0]: list(named)}
    for path in tables:
        key = next((name for name in rows if path == name or path.endswith(f".{name}")), path)
        rows[key] = list(dict.fromkeys([*rows.get(key, []), *new]))
    settings[FIELD] = rows
    return settings


def _tables(model: nn.Module) -> list[str]:
    """Paths of the input embeddings, and of output embeddings that are not tied to them."""
    words: Any = model.get_input_embeddings()  # type: ignore[operator]
    output: Any = output_embeddings(model)
    modules = [words]
    if output is not None and output.weight is not words.weight:
        modules.append(output)
    paths = {id(module): path for path, module in reversed(list(model.named_modules()))}
    return [paths[id(module)] for module in modules]
