"""``config.yaml`` of a run: one setting a line, its origin as a comment, and back.

::

    train:
      learning_rate: 0.002  # default
      num_train_epochs: 1.0  # flag
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from lorafit import regular
from lorafit.config import Config
from lorafit.errors import ConfigError, RunError
from lorafit.run import aliases
from lorafit.trust import recorded

MEASURED = "measured"
"""Origin of a value that the run chose by measurement."""

_MARK = "  # "
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, ten times as fast, where PyYAML was built with it: `lorafit runs` reads many."""


LONGEST = 1 << 20
"""Characters of a file of settings; a large one has some thousands."""

_MOST_OPENED = 100
"""Lists and mappings in a file up to which they may all be inside one another."""


def parse(text: str) -> Any:
    """The plain values that the text of a ``config.yaml`` holds.

    Raises:
        yaml.YAMLError: It is not YAML, or cannot be read.
    """
    # libyaml's loader has no limit of its own to how deeply it calls itself: past some ten
    # thousand levels the process dies. Python's loader raises.
    deep = sum(map(text.count, ("[", "{", "- ", "? "))) > _MOST_OPENED
    if len(text) > LONGEST:
        raise yaml.YAMLError(f"it has {len(text):,} characters, and at most {LONGEST:,} are read")
    try:
        loader = (yaml.SafeLoader if deep else _LOADER)(text)
        try:
            root = loader.get_single_node()
            aliases.check(root)
            return None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except ValueError as error:
        what = "a number in it has too many digits" if "digits" in str(error) else str(error)
        raise yaml.YAMLError(what) from error


def _leaf(value: Any) -> str:
    """One value as one line of YAML."""
    text = yaml.safe_dump(
        value, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False
    )
    text = text.removesuffix("...\n").rstrip("\n")
    # YAML folds line breaks over several lines; JSON, which is YAML too, escapes them.
    return json.dumps(value, ensure_ascii=False) if "\n" in text else text


def _lines(stage: BaseModel, origins: Mapping[str, str], prefix: str) -> Iterator[str]:
    indent = "  " * prefix.count(".")
    extra = stage.model_extra or {}
    for name in [*type(stage).model_fields, *extra]:
        value = getattr(stage, name)
        key = prefix + name
        if isinstance(value, BaseModel):
            yield f"{indent}{_leaf(name)}:"
            yield from _lines(value, origins, key + ".")
        else:
            plain = value if name in extra else stage.model_dump(mode="json", include={name})[name]
            origin = origins.get(key, "set" if name in stage.model_fields_set else "default")
            yield f"{indent}{_leaf(name)}: {_leaf(plain)}{_MARK}{' '.join(origin.split())}"


def render(config: Config, origins: Mapping[str, str]) -> str:
    """The text of ``config.yaml``.

    Args:
        config: The resolved settings.
        origins: Origin of values by dotted name.
    """
    return "\n".join(_lines(config, origins, "")) + "\n"


def _read_text(path: Path) -> str:
    try:
        return regular.read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f'cannot read "{path}": {error}') from error


def read(path: Path) -> Config:
    """Reads ``config.yaml`` back; what it says of trust is a record (`lorafit.trust`).

    Raises:
        RunError: The file cannot be read.
        ConfigError: It is not YAML, or not a configuration.
    """
    text = _read_text(path)
    try:
        config = Config.model_validate(_completed(parse(text)))
    except yaml.YAMLError as error:
        raise ConfigError(f'"{path}" is not YAML: {" ".join(str(error).split())}') from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'the file'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise ConfigError(f'"{path}" is not a configuration of lorafit: {problems}') from error
    config.model = recorded(config.model, f'"{path}"')
    return config


def _completed(values: Any) -> Any:
    """What an older version wrote, with the values that it had for settings it did not know."""
    data = values.get("data") if isinstance(values, dict) else None
    if isinstance(data, dict):
        data.setdefault("special_tokens", "control")
    return values


def read_origins(path: Path) -> dict[str, str]:
    """Reads the origins in ``config.yaml`` back, by dotted name."""
    found: dict[str, str] = {}
    stack: list[str] = []
    for line in _read_text(path).splitlines():
        body, mark, origin = line.rpartition(_MARK)
        body = body if mark else line
        depth = (len(body) - len(body.lstrip())) // 2
        name = body.strip().partition(":")[0]
        stack[depth:] = [name]
        if mark:
            found[".".join(stack)] = origin
    return found
