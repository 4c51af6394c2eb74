"""JSON objects whose shape is not ours to say: settings of a method, files that may be damaged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Json = dict[str, object]
"""A JSON object of unknown shape: what stands in it is looked at before it is used."""


def parsed(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: It is not JSON, or what no file of ours holds and Python cannot read: nested
            deeper than its stack, or a number of more than 4,300 digits.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        if isinstance(error, UnicodeError):
            raise
        raise ValueError("a number in it has too many digits") from error


def mapping(value: object) -> Json:
    """The value if it is a mapping, with text keys; else an empty one."""
    return {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else {}
