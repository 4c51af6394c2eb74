"""Damaged JSON: a value replaced, dropped, added or wrapped somewhere, or bytes changed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

ODD: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 10**30, -(10**30), 10**400, float("nan"), float("inf")),
    *(
        "",
        "x",
        "../..",
        "a\0b",
        "\ud83d",
        "\x1b[2J",
        "x" * 5000,
        "(a+)+$",
        "~",
        "file:///etc/passwd",
    ),
    *([], {}, [None], [[]], {"a": 1}, ["a", 1], {"": None}, [1] * 1000),
]
"""Values that stand where others should."""


def deep(levels: int) -> str:
    """JSON of lists in lists."""
    return "[" * levels + "]" * levels


def mutants(values: dict[str, Any], count: int, seed: int) -> Iterator[bytes]:
    """Damaged versions of a JSON file; the same seed gives the same ones."""
    generator = random.Random(seed)
    for number in range(count):
        if number % 8 == 7:
            yield _changed_bytes(json.dumps(values).encode(), generator)
            continue
        changed = copy.deepcopy(values)
        for _ in range(generator.choice([1, 1, 1, 2, 3])):
            _change(changed, generator)
        text = json.dumps(changed)
        if number % 50 == 6:
            text = text.replace(":", f': {generator.choice([deep(20_000), "9" * 6_000])}, "x":', 1)
        yield text.encode()


def _change(values: dict[str, Any], generator: random.Random) -> None:
    places = list(_places(values))
    holder, key = generator.choice(places) if places else (values, "x")
    kind = generator.randrange(5)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        holder[key] = [holder[key]]
    elif kind == 2 and isinstance(holder, dict):
        holder[generator.choice(["x", "", "name", "r", "__class__"])] = generator.choice(ODD)
    else:
        holder[key] = copy.deepcopy(generator.choice(ODD))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items: Any = ()
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, inner in items:
        yield value, key
        yield from _places(inner)


def _changed_bytes(content: bytes, generator: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(changed))
        match generator.randrange(3):
            case 0:
                changed[at] = generator.randrange(256)
            case 1:
                del changed[at : at + generator.randrange(1, 20)]
            case _:
                changed[at:at] = bytes(generator.randrange(256) for _ in range(3))
    return bytes(changed)
