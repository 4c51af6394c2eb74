"""Tables of plain text that fit the terminal, without a number or a word torn apart."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text

from lorafit.console.output import out, show, wrapped
from lorafit.console.visible import visible

GAP = 3
"""Spaces between the columns of a table."""

Rows = Sequence[Sequence[str]]


def show_table(rows: Rows, header: Sequence[str] | None = None, indent: int = 0) -> None:
    """Writes aligned columns; numbers to the right, other texts to the left.

    Where they do not fit, texts are wrapped between words. Numbers, and the first column (names
    to recognise, commands to copy), are never broken; where even that does not fit, the cells of
    a row come below one another.

    Args:
        rows: The cells.
        header: Names of the columns.
        indent: Spaces before the first column.
    """
    if not rows:
        return
    rows, header = _visible(rows), None if header is None else _visible([header])[0]
    numeric = [_is_numeric(rows, index) for index in range(len(rows[0]))]
    widths = _widths(rows, header, numeric, out().width - indent)
    if widths is None:
        _show_below(rows, header, indent)
        return
    if header is not None:
        _show_row(header, widths, numeric, indent, "bold")
    for row in rows:
        _show_row(row, widths, numeric, indent)


def show_split_table(rows: Rows, header: Sequence[str]) -> None:
    """Writes aligned columns; those without room for them in tables of their own.

    Args:
        rows: The cells; the first one is repeated in every table.
        header: Names of the columns.
    """
    rows, header = _visible(rows), _visible([header])[0]
    widths = [_longest(rows, header, index) for index in range(len(header))]
    parts, used = [[0]], widths[0]
    for index, width in enumerate(widths[1:], start=1):
        used += GAP + width
        if used > out().width and len(parts[-1]) > 1:
            parts.append([0])
            used = widths[0] + GAP + width
        parts[-1].append(index)
    for number, part in enumerate(parts):
        if number:
            show()
        show_table([[row[i] for i in part] for row in rows], [header[i] for i in part])


def fits(rows: Rows, header: Sequence[str] | None = None, indent: int = 0) -> bool:
    """Whether `show_table` can write these without wrapping."""
    rows, header = _visible(rows), None if header is None else _visible([header])[0]
    columns = range(len(rows[0])) if rows else range(0)
    needed = sum(_longest(rows, header, index) + GAP for index in columns) - GAP
    return needed <= out().width - indent


def _visible(rows: Rows) -> list[list[str]]:
    """The cells as they are shown: one line each, of what a terminal shows and does not obey."""
    return [
        [visible(cell).replace("\n", r"\n").replace("\t", r"\t") for cell in row] for row in rows
    ]


def _widths(
    rows: Rows, header: Sequence[str] | None, numeric: Sequence[bool], width: int
) -> list[int] | None:
    """Cells of each column; ``None``: without breaking something there is no room."""
    wanted = [_longest(rows, header, index) for index in range(len(numeric))]
    gaps = GAP * (len(wanted) - 1)
    if sum(wanted) + gaps <= width:
        return wanted
    least = [
        longest if index == 0 or numeric[index] else _longest_word(rows, header, index)
        for index, longest in enumerate(wanted)
    ]
    room = width - gaps - sum(least)
    if room < 0 or _crowded(wanted, least, room):
        return None
    # The widest give way first: all others get what they want as long as there is room.
    for index in sorted(range(len(wanted)), key=lambda index: wanted[index]):
        more = min(room, wanted[index] - least[index])
        least[index] += more
        room -= more
    return least


def _crowded(wanted: Sequence[int], least: Sequence[int], room: int) -> bool:
    """Whether the last column, the explanation, would become a thin column of many lines."""
    others = sum(w - n for w, n in zip(wanted[:-1], least[:-1], strict=True))
    last = least[-1] + max(0, room - others)
    return len(wanted) > 1 and wanted[-1] > 4 * max(last, 1)


def _show_row(
    row: Sequence[str],
    widths: Sequence[int],
    numeric: Sequence[bool],
    indent: int,
    style: str = "",
) -> None:
    cells = [wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
    for number in range(max(map(len, cells))):
        line = " " * indent
        for index, (parts, width) in enumerate(zip(cells, widths, strict=True)):
            text = parts[number] if number < len(parts) else ""
            space = " " * max(0, width - cell_len(text))
            line += space + text if numeric[index] else text + space
            line += " " * GAP
        out().print(Text(line.rstrip(), style=style), soft_wrap=True)


def _show_below(rows: Rows, header: Sequence[str] | None, indent: int) -> None:
    """Each row as a few lines: what has room beside its first cell, and the rest below it."""
    last = len(rows[0]) - 1
    beside = last if header is None and last > 1 else 1
    names = header or [""] * (last + 1)
    shorter = [row[:beside] for row in rows]
    widths = [_longest(shorter, None, index) for index in range(beside)]
    for row in rows:
        _show_row(row[:beside], widths, [False] * beside, indent)
        for name, text in zip(names[beside:], row[beside:], strict=True):
            for part in wrapped(f"{name}: {text}" if name else text, out().width - indent - 4):
                if text:
                    out().print(Text(" " * (indent + 4) + part), soft_wrap=True)


def _longest(rows: Rows, header: Sequence[str] | None, index: int) -> int:
    """Cells of the longest text of a column."""
    return max(cell_len(text) for text in _texts(rows, header, index))


def _longest_word(rows: Rows, header: Sequence[str] | None, index: int) -> int:
    """Cells of the longest word of a column."""
    words = [word for text in _texts(rows, header, index) for word in text.split()]
    return max(map(cell_len, words), default=0)


def _texts(rows: Rows, header: Sequence[str] | None, index: int) -> list[str]:
    return [row[index] for row in (*rows, *([header] if header else []))]


def _is_numeric(rows: Rows, index: int) -> bool:
    filled = [row[index] for row in rows if row[index]]
    return bool(filled) and all(set(cell) <= set("0123456789.,+-%") for cell in filled)
