"""Text is never a control sequence: what a terminal would obey is shown as what it is.

Texts, labels, names of columns and files, and what others wrote into a run come from anywhere. On
a terminal ESC and the C1 controls clear the screen, set titles and make links, and bidirectional
controls show a line in another order than it is read in (CVE-2021-42574). Whatever is printed
goes through `visible`, which leaves all other characters alone.
"""

from __future__ import annotations

import re

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f"  # C0, without tab and line feed
    "\x7f-\x9f"  # DEL and C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # bidirectional, and deprecated format controls
    "\u2028\u2029\ufff9-\ufffb"  # line and paragraph separators; interlinear annotation
    "\U000e0000-\U000e007f"  # tags: invisible letters
    "\ud800-\udfff]"  # halves of surrogate pairs, which no encoding can write
)


def visible(text: str) -> str:
    r"""The text with control and bidirectional characters as escapes.

    Tabs and line feeds stay: they are layout.

    >>> print(visible("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return _OBEYED.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
