"""Whether a base model is the one it was: digests of its weights, its config and its tokenizer.

Of a model that has a name the files count, of a live one what is in memory. Large files are
sampled: another fine-tuning of the same model differs everywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import PreTrainedTokenizerBase

from lorafit.config import ModelConfig
from lorafit.errors import LorafitError
from lorafit.evidence.json import Json
from lorafit.model.load import find_source
from lorafit.model.sites import head_modules

Identity = Json
"""``of``: what was looked at; then ``weights``, ``config`` and ``tokenizer``: digests by file."""

PARTS = ("weights", "config", "tokenizer")

LOCAL, CACHED, OBJECT = "files", "hub", "object"
"""What was looked at: a folder, the cache of the Hub, a live model. Only the same compare."""

_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model"),
    *("tokenizer.model", "chat_template.jinja"),
)
_WHOLE = 1 << 24
"""Bytes up to which a file is read whole."""
_BLOCK = 1 << 16
"""Of a larger one the beginning, which says the names and shapes, and such pieces all over it."""
_ELEMENTS = 4096
"""That are looked at of each tensor of a live model."""


def of_files(config: ModelConfig) -> Identity | None:
    """The identity of a model that has a name.

    Returns:
        ``None``: it is not on this machine (yet), or cannot be read.
    """
    try:
        source = find_source(config)
        folder = source.folder or _cached(source.location, config.revision)
        if folder is None:
            return None
        weights = [source.gguf_file] if source.gguf_file else _weight_files(folder)
        files = {"weights": weights, "config": ["config.json"], "tokenizer": _TOKENIZER}
        found = {
            part: {name: _digest(folder / name) for name in names if (folder / name).is_file()}
            for part, names in files.items()
        }
    except (LorafitError, OSError, ValueError):  # loading it says what is wrong
        return None
    return {"of": CACHED if source.folder is None else LOCAL, **found}


def of_object(model: nn.Module, tokenizer: PreTrainedTokenizerBase | None) -> Identity:
    """The identity of a live model, less its head, which may be drawn anew each time."""
    heads = tuple(f"{path}." for path in head_modules(model))
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if not name.startswith(heads):
            flat = tensor.detach().flatten()
            sample = flat[:: max(1, len(flat) // _ELEMENTS)].contiguous().cpu()
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
            digest.update(sample.view(torch.uint8).numpy())
    found: Identity = {"of": OBJECT, "weights": {"": digest.hexdigest()[:16]}}
    if tokenizer is not None:
        words = json.dumps(sorted(tokenizer.get_vocab().items())) + str(tokenizer.chat_template)
        found["tokenizer"] = {"": hashlib.sha256(words.encode()).hexdigest()[:16]}
    return found


def changed(known: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> list[str]:
    """What of a model is not what it was.

    Args:
        known: Its identity then; ``None`` (of an earlier version): nothing is known.
        now: Its identity now; ``None``: not known.

    Returns:
        Names of `PARTS`.
    """
    if not known or not now or known.get("of") != now.get("of"):
        return []
    return [
        part
        for part in PARTS
        if part in known and part in now and _differs(known[part], now[part], known["of"])
    ]


def _differs(known: Any, now: Any, of: str) -> bool:
    if of == CACHED and isinstance(known, Mapping) and isinstance(now, Mapping):
        # Files that are fetched later were on the Hub before.
        return any(now.get(name) != digest for name, digest in known.items())
    return bool(known != now)


def _cached(name: str, revision: str | None) -> Path | None:
    """The folder of a Hub model in the cache."""
    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def _weight_files(folder: Path) -> list[str]:
    """The file that transformers reads, or the index with the files that it names."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return ["model.safetensors"]
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [index.name, *sorted({Path(str(name)).name for name in names})]


def _digest(path: Path) -> str:
    digest, size = hashlib.sha256(), path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as file:
        for start, length in _pieces(size):
            file.seek(start)
            digest.update(file.read(length))
    return digest.hexdigest()[:16]


def _pieces(size: int) -> Iterator[tuple[int, int]]:
    """Start and length of what is read of a file; neighbours overlap or leave equal gaps."""
    if size <= _WHOLE:
        yield 0, size
        return
    count = _WHOLE // _BLOCK
    for index in range(count):
        yield index * (size - _BLOCK) // (count - 1), _BLOCK
