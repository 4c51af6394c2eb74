"""YAML whose aliases stand for more than anybody wrote: noticed before it is built.

A few lines can name each other ten times over (``b: &b [*a, *a, ...]``, or ``<<: [*a, *a, ...]``),
so that the values would not fit into memory. PyYAML and ruamel.yaml both first make a tree of
nodes, in which an alias is its anchor's node again: counted there, it costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MOST = 100_000
"""Values that aliases may add to those that are written."""


def check(root: Any) -> None:
    """Refuses a tree of nodes that is much larger written out, or endless.

    Args:
        root: A node of PyYAML or ruamel.yaml; ``None``: of an empty text.

    Raises:
        ValueError: Why, in words that begin with "it is" or "its".
        RecursionError: It is nested too deeply.
    """
    sizes: dict[int, int] = {}
    if root is not None and _size(root, sizes) > MOST + len(sizes):
        raise ValueError(f"its aliases stand for more than {MOST:,} values")


def _size(node: Any, sizes: dict[int, int]) -> int:
    """Nodes below a node, itself included, with each alias counted as what it stands for."""
    known = sizes.get(id(node))
    if known == 0:
        raise ValueError("it is not made of plain values: an alias stands for what it is in")
    if known is None:
        sizes[id(node)] = 0
        known = sizes[id(node)] = 1 + sum(_size(part, sizes) for part in _parts(node))
    return known


def _parts(node: Any) -> Iterator[Any]:
    for part in node.value if isinstance(node.value, list) else ():
        yield from part if isinstance(part, tuple) else (part,)
