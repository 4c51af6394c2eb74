"""Digests that are kept with what they are of, so that a changed file is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from lorafit import regular

CONTENT = "content_sha256"
"""Name of the entry of a JSON object that holds the digest of the others."""


def of_file(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits.

    Raises:
        OSError: It cannot be read.
    """
    with regular.check(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_values(values: Mapping[str, object]) -> str:
    """SHA-256 of JSON values, less the entry `CONTENT`; the same before they are written and after.

    Args:
        values: A JSON object, or what becomes one.
    """
    rest = {name: value for name, value in values.items() if name != CONTENT}
    plain = json.loads(json.dumps(rest))  # keys that are text, in the order of text
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(values: Mapping[str, object]) -> dict[str, object]:
    """JSON values with their own digest."""
    return {**values, CONTENT: of_values(values)}
