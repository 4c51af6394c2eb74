"""The names of the settings, read off the `Config` model and the methods.

A key is ``section.field`` (``train.learning_rate``) or the name of a setting that stands
outside the sections (``seed``). Nothing is listed twice: a field added to a stage is a
key from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel

from lorafit.config import AdapterConfig, Config
from lorafit.errors import ConfigError, did_you_mean
from lorafit.evidence.json import Json
from lorafit.settings.synonyms import ALIASES, instead, meant

SHORT = {
    "batch_size": "train.per_device_train_batch_size",
    "data": "data.path",
    "method": "adapter.method",
    "model": "model.name_or_path",
    "name": "run.name",
    "runs_dir": "run.dir",
}
"""Short names for keyword arguments whose field name alone would say too little."""


def sections() -> dict[str, type[BaseModel]]:
    """The stages of `Config` by name, in the order they are written."""
    return {
        name: field.annotation
        for name, field in Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def top_level() -> list[str]:
    """The settings outside the sections."""
    return [name for name in Config.model_fields if name not in sections()]


def method_config(method: str) -> type[BaseModel]:
    """The model of a method's own settings.

    Raises:
        ConfigError: There is no such method.
    """
    # Imported here because it brings torch: reading `--help` must not wait for that.
    from lorafit.methods import methods

    return methods[method].config_class


def method_fields(method: str) -> list[str]:
    """The settings of a method that users set; lorafit fills in the rest of PEFT's fields."""
    from lorafit.methods.base import MethodConfig

    filled_in = set(MethodConfig.model_fields) - {"modules_to_save"}
    return [name for name in method_config(method).model_fields if name not in filled_in]


def recommended(method: str, given: Mapping[str, object] | None = None) -> Json:
    """What a run starts from where that differs from the method's PEFT-compatible defaults.

    Args:
        method: Its name.
        given: Settings of the method that are set, which others may depend on.
    """
    from lorafit.methods import methods

    return methods[method].starting_from(given or {})


def learning_rate(method: str) -> float | None:
    """The learning rate a run starts from, where the method wants one of its own."""
    from lorafit.methods import methods

    return methods[method].learning_rate


def fields(section: str, method: str) -> list[str]:
    """The fields of one section."""
    if sections()[section] is AdapterConfig:
        return [*AdapterConfig.model_fields, *method_fields(method)]
    return list(sections()[section].model_fields)


def place(name: str, method: str) -> str:
    """The key that a keyword such as ``r`` or ``learning_rate`` stands for.

    Raises:
        ConfigError: No setting is called so, or several are.
    """
    if "." in name or name in top_level():
        return name
    if name in SHORT:
        return SHORT[name]
    by_section = {section: fields(section, method) for section in sections()}
    found = [f"{section}.{name}" for section, names in by_section.items() if name in names]
    if not found and name in ALIASES:
        return ALIASES[name]
    if len(found) > 1:
        raise ConfigError(
            f'"{name}" could be {" or ".join(found)}.\n'
            f'Say which: **{{"{found[0]}": ...}}, or set it in the configuration.'
        )
    if not found:
        known = {*top_level(), *SHORT, *(n for names in by_section.values() for n in names)}
        key = meant(name)
        hint = f' Did you mean "{keyword(key)}"?' if key else _instead(name)
        raise ConfigError(
            f'there is no setting "{name}".{hint or did_you_mean(name, known)}\n'
            'help("lorafit.settings.keywords") lists them all.'
        )
    return found[0]


def keyword(key: str) -> str:
    """The keyword argument that sets a key: the inverse of `place`.

    >>> keyword("train.learning_rate"), keyword("data.path"), keyword("model.revision")
    ('learning_rate', 'data', 'model.revision')
    """
    short = {long: name for name, long in SHORT.items()}
    section, dot, name = key.partition(".")
    if not dot:
        return key
    elsewhere = (
        s for s, stage in sections().items() if s != section and name in stage.model_fields
    )
    return short.get(key) or (key if any(elsewhere) else name)


def check(key: str, where: str, method: str) -> None:
    """Refuses a key that is no setting.

    Args:
        key: The key as written.
        where: Where it was written, for the message.
        method: The adapter's method, whose settings belong to ``adapter``.

    Raises:
        ConfigError: It is unknown; the message has the keys there are.
    """
    section, dot, name = key.partition(".")
    if not dot:
        if key in top_level():
            return
        if key in sections():
            names = fields(key, method)
            raise ConfigError(
                f'"{key}" is a group of settings, not a value ({where}).\n'
                f"Write {key}.NAME with one of: {_listed(names)}."
            )
        raise ConfigError(
            f'there is no setting "{key}" ({where}).{_elsewhere(key, method)}\n'
            f"Outside the groups there is {_listed(top_level())}; "
            f"the groups are {_listed(sections())}."
        )
    if section not in sections():
        raise ConfigError(
            f'there is no group of settings "{section}" ({where}).'
            f"{did_you_mean(section, sections())}\nThe groups are {_listed(sections())}."
        )
    names = fields(section, method)
    if name not in names:
        raise ConfigError(
            f'there is no setting "{key}" ({where}).'
            f"{_elsewhere(name, method, first=names)}\n"
            f"{section} has {_listed(names)}."
        )


def _elsewhere(name: str, method: str, first: Iterable[str] = ()) -> str:
    """`` Did you mean adapter.r?``: the groups that have it, what it means, or close names."""
    by_name: dict[str, list[str]] = {}
    for section in sections():
        for field in fields(section, method):
            by_name.setdefault(field, []).append(f"{section}.{field}")
    if name in by_name:
        return f" Did you mean {' or '.join(by_name[name])}?"
    key = meant(name)
    if key is not None and key.rpartition(".")[2] in by_name:
        return f" Did you mean {key}?"
    if instead(name):
        return _instead(name)
    return did_you_mean(name, first) or did_you_mean(name, [*top_level(), *sections(), *by_name])


def _instead(name: str) -> str:
    sentence = instead(name)
    return f" {sentence}" if sentence else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
