"""JSON objects whose shape is not ours to say: settings of a method, files that may be damaged."""

from __future__ import annotations

from collections.abc import Mapping

Json = dict[str, object]
"""A JSON object of unknown shape: what stands in it is looked at before it is used."""


def mapping(value: object) -> Json:
    """The value if it is a mapping, with text keys; else an empty one."""
    return {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else {}
