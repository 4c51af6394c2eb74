"""Which methods fit the model: tried on it before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorafit import pipeline
from lorafit.adapt import Adapters
from lorafit.config import AdapterConfig, Config
from lorafit.errors import AdapterError, ConfigError
from lorafit.methods import methods
from lorafit.model.load import LoadedModel
from lorafit.settings import from_keywords, resolve
from lorafit.settings.keys import method_fields
from lorafit.tasks.base import Task

ALL = "all"


@dataclass(frozen=True)
class Entry:
    """One method that takes part.

    Attributes:
        settings: Of its adapter, complete.
        learning_rate: Where its search starts.
    """

    settings: dict[str, Any]
    learning_rate: float


def names_of(asked: Sequence[str] | str) -> tuple[list[str], bool]:
    """The methods asked for, and whether those that do not fit are left out.

    Args:
        asked: Names, or ``all``.

    Raises:
        ConfigError: There is no such method, or none is named.
    """
    given = asked.split(",") if isinstance(asked, str) else list(asked)
    names = list(dict.fromkeys(name.strip() for name in given if name.strip()))
    if names == [ALL]:
        return list(methods), True
    if not names:
        raise ConfigError("which methods? Name some, or all.")
    for name in names:
        methods[name]
    return names, False


def enter(
    names: Sequence[str],
    leave_out: bool,
    loaded: LoadedModel,
    task: Task,
    config: Config,
    origins: Mapping[str, str],
) -> tuple[dict[str, Entry], dict[str, str]]:
    """Tries each method on the model.

    Args:
        names: Of the methods.
        leave_out: Whether those that do not fit are left out, or an error.
        loaded: The base model; it is left as it is.
        task: What is trained.
        config: The settings of all; of the adapter's, those that a method has are its own.
        origins: Where they came from.

    Returns:
        The methods that take part, and why others do not.

    Raises:
        ConfigError: A method does not fit; the message has them all.
    """
    given = {
        key.removeprefix("adapter."): value
        for key, value in ((k, config.adapter.settings.get(k[8:])) for k in origins)
        if key.startswith("adapter.") and origins[key] != "default" and key != "adapter.method"
    }
    entries: dict[str, Entry] = {}
    refused: dict[str, str] = {}
    for name in names:
        own = {f"adapter.{k}": v for k, v in given.items() if k in method_fields(name)}
        minimal = {"model.name_or_path": "m", "data.path": "d", "adapter.method": name}
        resolved = resolve(from_keywords(minimal | own, name)).config
        chosen = config.model_copy(
            update={"adapter": AdapterConfig(method=name, **resolved.adapter.settings)}
        )
        adapters = Adapters(loaded.model)
        try:
            adapters.add(pipeline.adapter_config(chosen, loaded, task))
        except (ConfigError, AdapterError) as error:
            refused[name] = str(error)
            continue
        finally:
            if adapters.configs:
                adapters.unload()
        entries[name] = Entry(resolved.adapter.settings, resolved.train.learning_rate)
    if refused and not leave_out:
        reasons = "\n".join(f"{name}: {reason}" for name, reason in refused.items())
        raise ConfigError(f"{len(refused)} of {len(names)} methods do not fit this model.\n{reasons}")
    return entries, refused
