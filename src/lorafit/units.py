"""Numbers in words: sizes, times, counts; texts and lists, as long as a message has room for."""

from __future__ import annotations

from collections.abc import Sequence


def size(n_bytes: float) -> str:
    """``1536`` to ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(n_bytes) < 1024:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"


def duration(seconds: float) -> str:
    """``95`` to ``1 min 35 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def count(number: int) -> str:
    """``73728`` to ``73,728``."""
    return f"{number:,}"


def shortened(text: str, most: int = 60) -> str:
    """A text of at most so many characters, without its middle; on one line."""
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    end = (most - 1) // 2
    return f"{line[: most - 1 - end]}…{line[len(line) - end :]}"


def listed(names: Sequence[str], most: int = 10) -> str:
    """Names for a message: at most so many of them, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {count(more)} more" if more > 0 else "")
