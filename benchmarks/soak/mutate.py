"""Damages bytes, trees of JSON values and Python objects: the same seed, the same damage."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

BYTES = (
    *(
        b"\0",
        b"\xff",
        b"\xfe\xff",
        b"\xef\xbb\xbf",
        b"\x80",
        b"\xed\xa0\x80",
        b"\r",
        b"\n",
        b"\n\n",
    ),
    *(b'"', b"'", b",", b"\t", b"{", b"}", b"[", b"]", b":", b"\\", b"\\u0000", b"\\ud800", b"-"),
    *(b"NaN", b"Infinity", b"-0", b"1e999", b"9" * 30, b"null", b"true", b"\x1b[2J", b"&a ", b"*a"),
    *(b"\x7f" * 8, b"\xff" * 8, b"\x00" * 8, "\u202e\u0301\U0001f600".encode()),
)
"""What has upset readers of files before."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.0, 1e308),
    *(float("inf"), float("-inf"), float("nan"), "", " ", "\0", "a", "0", "nan", "None", "../x"),
    *("\ud800", "\u202e", "\x1b[2J", "x" * 5000, [], {}, [[]], [None], {"": None}, [0], ["a"]),
    *({"a": 1}, [1, "a", None], {"type": "x"}, [{}], [[1, 2], [3]]),
)
"""What stands where something else should."""


def damaged(content: bytes, draw: Random) -> bytes:
    """Bytes with one to six changes: some replaced, lost, repeated, moved or put in."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        at = draw.randrange(len(data) + 1)
        length = draw.choice((1, 1, 2, 4, 8, 64, 1024))
        match draw.randrange(8):
            case 0 if data:
                place = min(at, len(data) - 1)
                data[place] ^= 1 << draw.randrange(8)
            case 1:
                data[at : at + length] = draw.randbytes(length)
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length] * draw.choice((1, 2, 50))
            case 4:
                data[at:at] = draw.choice(BYTES)
            case 5:
                other = draw.randrange(len(data) + 1)
                data[at : at + length] = data[other : other + length]
            case 6 if draw.random() < 0.3:
                del data[at:]
            case _:
                piece = draw.choice(BYTES)
                data[at : at + len(piece)] = piece
    return bytes(data)


def relined(content: bytes, draw: Random) -> bytes:
    """Lines with one to four changes: some lost, repeated, moved, cut, joined or emptied."""
    lines = content.split(b"\n")
    for _ in range(draw.choice((1, 1, 2, 4))):
        if not lines:
            break
        at, other = draw.randrange(len(lines)), draw.randrange(len(lines))
        match draw.randrange(6):
            case 0:
                del lines[at]
            case 1:
                lines[at:at] = [lines[other]] * draw.choice((1, 3))
            case 2:
                lines[at], lines[other] = lines[other], lines[at]
            case 3:
                lines[at] = lines[at][: draw.randrange(len(lines[at]) + 1)]
            case 4:
                lines[at] = draw.choice((b"", b" ", b",,,", b"{}", b"null", b"\t\t\t"))
            case _:
                lines[at] = damaged(lines[at], draw)
    return b"\n".join(lines)


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a tree with each of its keys, top to bottom."""
    keys: list[Any] = []
    if isinstance(tree, dict):
        keys = list(tree)
    elif isinstance(tree, list):
        keys = list(range(len(tree)))
    for key in keys:
        yield tree, key
        yield from places(tree[key])


def changed(tree: Any, draw: Random) -> Any:
    """A copy of a tree with one to three changes: values swapped, keys lost or renamed."""
    found = copy.deepcopy(tree)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        everywhere = list(places(found))
        if not everywhere or draw.random() < 0.02:
            return copy.deepcopy(draw.choice(VALUES))
        holder, key = draw.choice(everywhere)
        match draw.randrange(8):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[draw.choice((f"{key}x", str(key).upper(), ""))] = holder.pop(key)
            case 2:
                holder[key] = [holder[key]]
            case 3:
                holder[key] = {"a": holder[key]}
            case 4:
                holder[key] = str(holder[key])
            case 5 if isinstance(holder[key], int | float):
                holder[key] = holder[key] * draw.choice((-1, 0, 10, 1e6, 1e300))
            case 6:
                other, where = draw.choice(everywhere)
                holder[key] = copy.deepcopy(other[where])
            case _:
                holder[key] = copy.deepcopy(draw.choice(VALUES))
    return found


def json_damaged(content: bytes, draw: Random) -> bytes:
    """A JSON file with other values, or now and then other bytes."""
    if draw.random() < 0.25:
        return damaged(content, draw)
    if draw.random() < 0.02:
        depth = draw.choice((100, 5000))
        return b"[" * depth + content + b"]" * depth
    return as_json(changed(json.loads(content), draw))


def json_lines_damaged(content: bytes, draw: Random) -> bytes:
    """JSON lines, of which one to three have other values, or the file has other bytes."""
    if draw.random() < 0.4:
        return draw.choice((damaged, relined))(content, draw)
    lines = content.splitlines()
    for _ in range(draw.choice((1, 1, 3))):
        at = draw.randrange(len(lines))
        try:
            lines[at] = as_json(changed(json.loads(lines[at]), draw))
        except ValueError:  # changed before
            lines[at] = damaged(lines[at], draw)
    return b"\n".join(lines) + b"\n"


def lines_damaged(content: bytes, draw: Random) -> bytes:
    """A file of lines with other lines, or other bytes."""
    return draw.choice((damaged, relined))(content, draw)


def as_json(tree: Any) -> bytes:
    """JSON as Python writes it: NaN and lone surrogates too, which are no JSON."""
    return json.dumps(tree).encode()


Mutator = Callable[[bytes, Random], bytes]
