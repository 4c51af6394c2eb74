"""Small pieces of HTML that results show of themselves in a notebook.

Everything is escaped, nothing is loaded, and colours are the page's own, light or dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_CELL = "padding: .15em 1.2em .15em 0; text-align: left; vertical-align: top"


def table(
    title: str, rows: Sequence[Sequence[str]], header: Sequence[str] = (), note: str = ""
) -> str:
    """A table with a title above and a sentence below.

    Args:
        title: In bold; ``""``: none.
        rows: The cells.
        header: Names of the columns; none: no row of them.
        note: The sentence.
    """
    parts = [f"<p><strong>{escape(title)}</strong></p>" if title else ""]
    parts.append('<table style="border-collapse: collapse; background: none; color: inherit">')
    if header:
        parts.append(f"<thead>{_row(header, 'th')}</thead>")
    parts.append(f"<tbody>{''.join(_row(row, 'td') for row in rows)}</tbody></table>")
    parts.append(f"<p>{escape(note)}</p>" if note else "")
    return f"<div>{''.join(parts)}</div>"


def _row(cells: Sequence[str], tag: str) -> str:
    inner = "".join(f'<{tag} style="{_CELL}">{escape(str(cell))}</{tag}>' for cell in cells)
    return f"<tr>{inner}</tr>"
