"""Text of users in Markdown and in Python."""

from __future__ import annotations

import json
import re
from typing import Any


def escaped(value: Any) -> str:
    """Text that cannot break out of a Markdown table's cell."""
    text = " ".join(str(value).split())
    for sign in "\\|`*[]":
        text = text.replace(sign, f"\\{sign}")
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # inside of a word it means itself
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def quoted_name(name: str) -> str:
    """The name of a class or a column in a sentence."""
    return f'"{escaped(name)}"'


def quoted(text: str) -> str:
    """Text as a Python literal; JSON's strings are Python's."""
    return json.dumps(text, ensure_ascii=False)
