"""What a message advises, for Python callers: flags become the keywords they stand for.

Messages are written once, for the command line, where the same settings are flags. Errors are
translated where they leave a call, what is logged as soon as it is (`speaking`), so that every
handler gets the keywords.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from lorafit.errors import ConfigError
from lorafit.settings.keys import place
from lorafit.settings.keywords import SettingsKeywords

_typed: ContextVar[bool] = ContextVar("typed", default=False)
"""Whether the caller is a command, whose user types flags."""

_OTHER = {
    **{"methods": "methods=...", "config": "config=...", "resume": "resume=..."},
    **{"name": '**{"run.name": ...}', "runs-dir": '**{"run.dir": ...}'},
}
"""Flags that are no settings by themselves, or whose keyword has another name."""
_WORDS = r"and|as|for|if|in|is|leaves|on|or|out|runs|to|with"
"""What follows a flag in a sentence and is not its value."""
_VALUE = r"[\w/:-]+(?:\.\w+)*"
_FLAG = re.compile(rf"--([a-z][a-z-]*)(?: (?!(?:{_WORDS})\b)({_VALUE}(?:,{_VALUE})*))?")
_SET = re.compile(r"--set ([a-z_]+\.[a-z_]+)=([\w/:-]+(?:\.\w+)*)")
_RESUME = re.compile(r"lorafit train --resume ('[^']*'|\S+)")
_CALL = r'\w+=(?:"[^"]*"|[\w.]+)'
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def in_python(message: str) -> str:
    """A message with keywords for flags; other flags stay as they are.

    >>> in_python("There are a, b. Choose one with --label, for example --label a.")
    'There are a, b. Choose one with label=..., for example label="a".'
    >>> in_python("Take --target-parameters gate,up")
    'Take target_parameters=["gate", "up"]'
    >>> in_python("Name them: --text tokens --label ner_tags, or use --skip-bad-rows.")
    'Name them: text="tokens", label="ner_tags", or use skip_bad_rows=True.'
    >>> in_python("Choose one with --set data.name=NAME. Go on with: lorafit train --resume runs/x")
    'Choose one with **{"data.name": "NAME"}. Go on with: lorafit.train(resume="runs/x")'
    """
    message = _RESUME.sub(lambda m: f'lorafit.train(resume="{m[1].strip(chr(39))}")', message)
    message = _SET.sub(_assigned, message)
    message = _FLAG.sub(_keyword, message)
    # Several in a row are arguments of one call; the same one again is a list.
    message = re.sub(r'(\w+)=("[^"]*") \1=("[^"]*")', r"\1=[\2, \3]", message)
    return re.sub(rf"({_CALL}) (?={_CALL})", r"\1, ", message)


def _keyword(flag: re.Match[str]) -> str:
    if flag[1] in _OTHER:
        return _OTHER[flag[1]] + (f" {flag[2]}" if flag[2] else "")
    name, value = flag[1].replace("-", "_"), flag[2]
    kind = SettingsKeywords.__annotations__.get(name)
    if kind is None:
        return flag[0]
    if getattr(kind, "__forward_arg__", kind) == "bool":
        return f"{name}=True" + (f" {value}" if value else "")
    return f"{name}={_literal(value)}"


def _assigned(flag: re.Match[str]) -> str:
    key, value = flag[1], _literal(flag[2])
    name = key.rpartition(".")[2]
    try:
        alone = place(name, "lora") == key
    except ConfigError:
        alone = False
    return f"{name}={value}" if alone else f'**{{"{key}": {value}}}'


def _literal(value: str | None) -> str:
    if value is None:
        return "..."
    if _NUMBER.fullmatch(value) or value in ("SHARE", "N"):
        return value
    return (
        "[" + ", ".join(f'"{x}"' for x in value.split(",")) + "]" if "," in value else f'"{value}"'
    )


@contextmanager
def typed() -> Iterator[None]:
    """The block is a command's: what is said in it keeps its flags."""
    token = _typed.set(True)
    try:
        yield
    finally:
        _typed.reset(token)


def is_typed() -> bool:
    """Whether a command is what runs."""
    return _typed.get()


class _Records:
    """Makes the records of lorafit's loggers, with keywords for flags, while it is in use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uses = 0
        self._before: Any = None

    def __call__(self, name: str, *args: Any, **keywords: Any) -> logging.LogRecord:
        """A record, as whoever made them before makes it."""
        record: logging.LogRecord = self._before(name, *args, **keywords)
        if name.partition(".")[0] == "lorafit":
            try:
                text = record.getMessage()
            except (TypeError, ValueError):  # said by the handler, and no reason to stop a training
                return record
            if "--" in text:
                record.msg, record.args = in_python(text), ()
        return record

    def begin(self) -> None:
        """Makes the records from now on."""
        with self._lock:
            if self._uses == 0:
                self._before = logging.getLogRecordFactory()
                logging.setLogRecordFactory(self)
            self._uses += 1

    def end(self) -> None:
        """Gives the making back once the last use ends, unless somebody else has taken it."""
        with self._lock:
            self._uses -= 1
            if self._uses == 0 and logging.getLogRecordFactory() is self:
                logging.setLogRecordFactory(self._before)


_records = _Records()


@contextmanager
def speaking() -> Iterator[None]:
    """Inside, what lorafit logs has keywords for flags, whatever handler gets it."""
    _records.begin()
    try:
        yield
    finally:
        _records.end()
