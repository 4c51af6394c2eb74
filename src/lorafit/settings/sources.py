"""Where settings come from: a YAML file, ``--set``, flags, keywords, a `Config`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, MappingNode, Node
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from lorafit.config import Config
from lorafit.errors import ConfigError
from lorafit.run import aliases
from lorafit.run.config_file import LONGEST
from lorafit.settings.keys import SHORT, place, sections
from lorafit.settings.synonyms import ALIASES, OUTPUT, place_and_name
from lorafit.trust import record_of
from lorafit.units import shortened

LISTS = frozenset(
    {"adapter.exclude_modules", "adapter.modules_to_save", "adapter.target_modules"}
    | {"adapter.target_parameters", "adapter.trainable_token_indices", "model.add_tokens"}
    | {"data.label", "data.text", "train.report_to"}
)
"""Keys for which ``a,b`` on the command line is a list."""
NUMBERS = frozenset({"adapter.trainable_token_indices"})
"""Of those, the keys whose list is of whole numbers."""
PATTERNS = frozenset({"adapter.exclude_modules", "adapter.target_modules"})
"""Of those, the keys for which PEFT reads a text as a regular expression."""
WORDS = frozenset({"all-linear", "auto"})
"""Texts that are neither a name nor an expression."""

SET_NAMES = ALIASES | {name: SHORT[name] for name in ("data", "model")}
"""Short names that ``--set`` takes."""


@dataclass(frozen=True)
class Value:
    """One setting from one source.

    Attributes:
        value: What it is set to.
        origin: Where that was written: ``file run.yaml line 3``, ``flag --r``, ...
        text: What was typed, where the value was read off a text and could be the text itself.
        file: The file it was read from; ``None``: whoever makes the call said it.
    """

    value: Any
    origin: str
    text: str | None = None
    file: str | None = None


Layer = dict[str, Value]
"""Dotted keys to the values of one source."""


def from_file(path: str | Path) -> Layer:
    """Reads a YAML file of groups of settings, such as a run's ``config.yaml``.

    Raises:
        ConfigError: It cannot be read, is not YAML, or has the same key twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f'there is no configuration file "{path}".') from error
    except IsADirectoryError as error:
        raise ConfigError(f'"{path}" is a folder; --config wants a YAML file.') from error
    except UnicodeDecodeError as error:
        raise ConfigError(f'"{path}" is not UTF-8 text (byte {error.start}).') from error
    except OSError as error:
        raise ConfigError(f'cannot read "{path}": {error.strerror}.') from error
    values, root = _parse(text, path)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f'"{path}" holds {_kind(values)}, not settings.\n'
            "Write groups such as `train:` with indented lines such as `learning_rate: 2e-3`."
        )
    lines = _lines(root)
    layer: Layer = {}
    for name, value in values.items():
        if not isinstance(name, str):
            raise ConfigError(f'"{path}": the key {name!r} is {_kind(name)}, not a name.')
        if name in sections() and value is None:
            continue  # a group whose lines are all commented out
        if name in SET_NAMES and isinstance(value, str):
            key = SET_NAMES[name]
            layer[key] = Value(_as_list(key, value), f"file {path} line {lines[name]}")
            continue
        fields = value if name in sections() and isinstance(value, dict) else {None: value}
        for field, item in fields.items():
            key = name if field is None else f"{name}.{field}"
            line = f" line {lines[key]}" if key in lines else ""
            layer[key] = Value(_as_list(key, item), f"file {path}{line}", file=f'"{path}"{line}')
    return layer


def from_sets(assignments: Iterable[str]) -> Layer:
    """Reads ``--set key=value`` texts; the value is YAML, or the plain text where it is not.

    The key may be one of `SET_NAMES` or of `OUTPUT`: ``lr=1e-3``, ``output=runs/first``.

    Raises:
        ConfigError: A text has no ``=``, its value is a list or mapping left open, or an alias
            and what it stands for are given with two values.
    """
    layer: Layer = {}
    spelled: dict[str, str] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        typed = key.strip()
        key = SET_NAMES.get(typed, typed)
        if not equals or not key:
            raise ConfigError(
                f'--set wants KEY=VALUE, such as train.learning_rate=1e-3, but got "{assignment}".'
            )
        try:
            value, _ = _load(text)
        except YAMLError as error:
            if text.lstrip().startswith(("[", "{")):
                raise ConfigError(
                    f"--set {assignment}: {_problem(error)}; "
                    f"a list is written {key}=[a,b], a mapping {key}={{a: 1}}."
                ) from error
            value = text
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"--set {shortened(assignment)}: {_unreadable(error)}.") from error
        if isinstance(value, str):
            value = _from_text(key, value)
        values = place_and_name(value) if key in OUTPUT else {key: value}
        for meant, item in values.items():
            if spelled.setdefault(meant, typed) != typed and layer[meant].value != item:
                raise ConfigError(
                    f"{meant} is set twice, to two values: "
                    f"--set {spelled[meant]}={layer[meant].text} and "
                    f"--set {assignment}.\nLeave one of them out."
                )
            layer[meant] = Value(item, "flag --set", text)
    return layer


def from_flags(flags: Mapping[str, tuple[str, Any]]) -> Layer:
    """Takes flags that were given: key to (flag as typed, value)."""
    return {
        key: Value(_from_text(key, value) if isinstance(value, str) else value, f"flag {flag}")
        for key, (flag, value) in flags.items()
    }


def from_keywords(keywords: Mapping[str, Any], method: str = "lora") -> Layer:
    """Takes the keyword arguments of a Python call: ``r=8``, ``learning_rate=1e-3``.

    A keyword is a key (``**{"data.revision": "main"}``) or the name of one field.

    Raises:
        ConfigError: There is no such setting, or more than one.
    """
    method = str(keywords.get("method", keywords.get("adapter.method", method)))
    layer: Layer = {}
    for name, value in keywords.items():
        values = place_and_name(value) if name in OUTPUT else {place(name, method): value}
        for key, item in values.items():
            if key in layer:
                raise ConfigError(
                    f"{key} is given twice: as {layer[key].origin} and keyword {name}."
                )
            layer[key] = Value(_as_list(key, item), f"keyword {name}")
    return layer


def from_config(config: Config, origin: str = "config") -> Layer:
    """Takes what a `Config` object was given; its defaults stay defaults."""
    layer: Layer = {}
    file = record_of(config.model)
    for name in sorted(config.model_fields_set):
        value = getattr(config, name)
        if name not in sections():
            layer[name] = Value(value, origin)
            continue
        given = value.model_dump(exclude_unset=True)
        read = file if name == "model" else None
        layer |= {
            f"{name}.{field}": Value(item, origin, file=read) for field, item in given.items()
        }
    return layer


def _parse(text: str, path: Path) -> tuple[Any, Node | None]:
    """The values and the node tree, which knows the lines, of a YAML text."""
    try:
        return _load(text)
    except YAMLError as error:
        raise ConfigError(f'"{path}"{_problem_line(error)}: {_problem(error)}.') from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f'"{path}": {_unreadable(error)}.') from error


def _load(text: str) -> tuple[Any, Node | None]:
    """The plain values of a YAML text, and its tree.

    Raises:
        YAMLError: It is not YAML.
        ValueError: It is too long, stands for too much, or has a value that cannot be read.
        RecursionError: It is nested too deeply.
    """
    if len(text) > LONGEST:
        raise ValueError(f"it has {len(text):,} characters, and at most {LONGEST:,} are read")
    yaml = YAML(typ="safe", pure=True)
    root = yaml.compose(text)
    aliases.check(root)
    return None if root is None else yaml.constructor.construct_document(root), root


def _unreadable(error: ValueError | RecursionError) -> str:
    """Why YAML that is well formed cannot be read: a date that is none, ten thousand digits."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "a number in it has too many digits" if "digits" in str(error) else str(error)


def _problem_line(error: YAMLError) -> str:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    return "" if mark is None else f" line {mark.line + 1}"


def _problem(error: YAMLError) -> str:
    problem = error.problem if isinstance(error, MarkedYAMLError) else None
    text = problem or str(error)
    duplicate = re.match(r'found duplicate key "(.*?)" with', text)
    if duplicate:
        return f'the key "{duplicate[1]}" is there twice'
    return "not valid YAML, " + " ".join(text.split()).rstrip(".")


def _lines(root: Node | None) -> dict[str, int]:
    """Line numbers, from 1, of the keys of a file."""
    lines: dict[str, int] = {}
    for key, value in root.value if isinstance(root, MappingNode) else []:
        lines[str(key.value)] = key.start_mark.line + 1
        for field, _ in value.value if isinstance(value, MappingNode) else []:
            lines[f"{key.value}.{field.value}"] = field.start_mark.line + 1
    return lines


def _from_text(key: str, text: str) -> Any:
    r"""Reads ``a,b`` as a list for the keys that take one.

    A regular expression stays a text: it has characters that no module name has.

    >>> _from_text("adapter.target_modules", "q_lin, v_lin")
    ['q_lin', 'v_lin']
    >>> _from_text("adapter.trainable_token_indices", "7,8")
    [7, 8]
    >>> _from_text("adapter.target_modules", r".*attention\.(q|v)_lin")
    '.*attention\\.(q|v)_lin'
    """
    if key not in LISTS or (key in PATTERNS and text in WORDS):
        return text
    names = [name.strip() for name in text.split(",") if name.strip()]
    if key in PATTERNS and not all(re.fullmatch(r"[\w.-]+", name) for name in names):
        return text
    if key in NUMBERS:
        return [int(name) if re.fullmatch(r"-?\d+", name) else name for name in names]
    return names


def _as_list(key: str, value: Any) -> Any:
    """One name where a list is wanted; a lone module *pattern* keeps PEFT's meaning."""
    if key in LISTS - PATTERNS and isinstance(value, str):
        return [value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _kind(value: Any) -> str:
    """What a YAML value is, in words."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text"}
    names |= {list: "a list", dict: "a group", type(None): "nothing"}
    return names.get(type(value), f"a {type(value).__name__}")
