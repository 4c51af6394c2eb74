"""What a ``config.json`` asks for, held against the weights beside it before anything is built.

A line of it can ask for a billion layers or labels, or for a table larger than any memory, and
transformers builds what it asks for before it looks at the weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig, PreTrainedModel

from lorafit.errors import ModelError
from lorafit.evidence.json import parsed
from lorafit.units import count, size

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
"""One file of weights, or the file that says which there are."""

_PARTS = 512
"""Layers or experts that any model may have; more only with as many tensors."""
_LABELS = 1 << 17
"""Labels that any model may have; more only with a tensor that is as long."""
_PER_BYTE, _NEW = 8, 1 << 26
"""Most parameters for a byte of weights (of one bit each), and most beside those."""

_NO_COUNTS = ("size", "dim", "capacity", "token", "freq", "interval")
"""Parts of the names of settings that speak of layers or experts and count none."""


@dataclass(frozen=True)
class Held:
    """What files of weights hold.

    Attributes:
        n_bytes: Their size; ``None``: they are not on this machine yet.
        tensors: How many.
        longest: The longest side of one.
    """

    n_bytes: int | None = None
    tensors: int = 0
    longest: int = 0


def held(folder: Path) -> Held:
    """Reads the headers of a model's weights; what cannot be read counts as nothing held.

    Raises:
        ModelError: An index names files that are not beside it, or no safetensors files.
    """
    names = [WEIGHTS]
    if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():
        names = check_index(folder / INDEX)
    shapes: list[list[int]] = []
    n_bytes = 0
    for name in names:
        file = folder / name
        if not file.is_file():
            continue
        try:
            n_bytes += file.stat().st_size
            with safe_open(file, framework="pt") as tensors:
                keys = tensors.keys()
                shapes += [tensors.get_slice(key).get_shape() for key in keys]
        except (OSError, SafetensorError):  # loading it says what is wrong
            continue
    return Held(n_bytes, len(shapes), max((max(shape, default=0) for shape in shapes), default=0))


def check_index(file: Path) -> list[str]:
    """The files of weights that an index names.

    Raises:
        ModelError: It is no index, or names a file that is not safetensors (transformers would
            unpickle it) or not beside it.
    """
    try:
        found = parsed(file.read_text(encoding="utf-8"))["weight_map"].values()
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(f'"{file}" is no index of weights. Download it again.') from error
    for name in found:
        if not _is_plain(name, ".safetensors"):
            raise ModelError(
                f'"{file}" names the file of weights {name!r:.80}. Only safetensors files beside '
                "it are read: others can run code, or are not the model's."
            )
    return sorted(set(found))


def check_named_weights(values: Mapping[str, Any], name: str) -> None:
    """Refuses a config that names weights of its own (``transformers_weights``) that are unsafe.

    Raises:
        ModelError: The name is not that of a safetensors file in the model's folder.
    """
    named = values.get("transformers_weights")
    if named is not None and not _is_plain(named, ".safetensors"):
        raise ModelError(
            f'the config.json of "{name}" names the file of weights {named!r:.80}. Only '
            "safetensors files beside it are read: take transformers_weights out of it."
        )


def check_counts(values: Mapping[str, Any], weights: Held, name: str) -> None:
    """Refuses more layers, experts or labels than the weights can be of.

    Args:
        values: The content of ``config.json``.
        weights: What is beside it.
        name: What to call the model in messages.

    Raises:
        ModelError: There are more.
    """
    for key, number in _integers(values):
        if "num_labels" in key or key == "num_classes":
            most = max(_LABELS, weights.longest)
        elif any(word in key for word in ("layer", "expert", "depth", "attention_types")) and not (
            any(word in key for word in _NO_COUNTS)
        ):
            most = max(_PARTS, weights.tensors)
        else:
            continue
        if number > most:
            # A number of many digits takes longer to write than to compare.
            shown = count(number) if number < 10**18 else "more than 10^18"
            raise ModelError(
                f'the config.json of "{name}" asks for {shown} as {key}, and its weights have '
                f"{count(weights.tensors)} tensors: they do not belong together."
            )


def check_elements(config: PreTrainedConfig, auto: Any, weights: Held, name: str) -> None:
    """Refuses a model that is far larger than its weights.

    It is built without memory, on torch's device ``meta``; generators stay as they are.

    Args:
        config: For the model; left as it is.
        auto: The transformers class that builds it.
        weights: What there is for it.
        name: What to call the model in messages.

    Raises:
        ModelError: It has parameters and buffers for which no weights are there.
    """
    if weights.n_bytes is None:
        return
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model: PreTrainedModel = auto.from_config(copy.deepcopy(config))
    except (MemoryError, RecursionError):
        raise
    except Exception:  # noqa: BLE001 loading it says what is wrong
        return
    n_elements = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if n_elements > _PER_BYTE * weights.n_bytes + _NEW:
        raise ModelError(
            f'the config.json of "{name}" describes a model of {count(n_elements)} parameters, and '
            f"its weights have {size(weights.n_bytes)}: they do not belong together."
        )


def _is_plain(name: object, suffix: str) -> bool:
    return isinstance(name, str) and name.endswith(suffix) and not set(name) & {"/", "\\", "\0"}


def _integers(value: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """The whole numbers in a mapping and those in it, each with the key that it is under."""
    opened = [(key, value)]
    while opened:
        key, value = opened.pop()
        if isinstance(value, Mapping):
            opened += [(str(inner), found) for inner, found in value.items()]
        elif isinstance(value, list):
            opened += [(key, found) for found in value]
        elif isinstance(value, int) and not isinstance(value, bool):
            yield key, value
