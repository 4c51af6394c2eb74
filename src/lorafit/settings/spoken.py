"""What a message advises, for Python callers: flags become the keywords they stand for.

Messages are written once, for the command line, where the same settings are flags.
"""

from __future__ import annotations

import re

from lorafit.errors import ConfigError
from lorafit.settings.keys import place
from lorafit.settings.keywords import SettingsKeywords

_WORDS = r"and|as|for|if|in|is|leaves|on|or|out|runs|to|with"
"""What follows a flag in a sentence and is not its value."""
_FLAG = re.compile(rf"--([a-z][a-z-]*)(?: (?!(?:{_WORDS})\b)([\w/:-]+(?:\.\w+)*))?")
_SET = re.compile(r"--set ([a-z_]+\.[a-z_]+)=([\w/:-]+(?:\.\w+)*)")
_RESUME = re.compile(r"lorafit train --resume ('[^']*'|\S+)")
_CALL = r'\w+=(?:"[^"]*"|[\w.]+)'
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def in_python(message: str) -> str:
    """A message with keywords for flags; other flags stay as they are.

    >>> in_python("There are a, b. Choose one with --label, for example --label a.")
    'There are a, b. Choose one with label=..., for example label="a".'
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
    return f'"{value}"'
