"""The confusion matrix as a heat map: a table whose cells are coloured by their row's share.

The classes stand in the order of their frequency and are numbered, so that twenty of them can
be read on a telephone: a heading is a number, which the row has beside its name.
"""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from lorafit.evidence.confusion import Confusion
from lorafit.report import numbers

MOST_CLASSES = 24
"""Classes of a matrix; of more, those with the most mistakes are shown."""
ROOMY = 6
"""Classes up to which a cell has its count beside the share."""
MOST_CONFUSIONS = 12
LEVELS = 10
"""Steps of the colour."""


@dataclass(frozen=True)
class HeatMap:
    """A confusion matrix to be looked at.

    Attributes:
        grid: The table.
        confusions: True class, predicted class and count of the largest mistakes.
        together: How many classes its last row and column put together.
        classes: How many there are.
    """

    grid: Markup
    confusions: list[tuple[str, str, int]]
    together: int
    classes: int


def heat_map(found: Confusion | None) -> HeatMap | None:
    """Draws a matrix; ``None`` if there is none."""
    if found is None or not found.total:
        return None
    shown, together = found.reduced(MOST_CLASSES)
    few = len(shown.names) <= ROOMY
    heads = Markup("").join(
        Markup('<th scope="col" title="{}">{}</th>').format(
            name, name if few else _numbered(at, len(shown.names), together)
        )
        for at, name in enumerate(shown.names)
    )
    rows = Markup("").join(_row(shown, at, few, together) for at in range(len(shown.names)))
    style = "heat roomy" if few else "heat"
    grid = Markup(
        '<table class="{}"><thead><tr><td></td>{}</tr></thead><tbody>{}</tbody></table>'
    ).format(style, heads, rows)
    confusions = [] if len(found.names) == 2 else found.largest(MOST_CONFUSIONS)
    return HeatMap(grid, confusions, together, len(found.names))


def _numbered(at: int, count: int, together: int) -> Markup:
    """A class's number; the last of a reduced matrix has none."""
    if together and at == count - 1:
        return Markup("…")
    return numbers.element(at + 1, numbers.plain)


def _row(found: Confusion, at: int, few: bool, together: int) -> Markup:
    size = sum(found.counts[at])
    head = Markup('<th scope="row" title="{}">{}<span>{}</span></th>').format(
        found.names[at],
        "" if few else Markup("<b>{}</b> ").format(_numbered(at, len(found.names), together)),
        found.names[at],
    )
    cells = Markup("").join(_cell(found, at, other, size, few) for other in range(len(found.names)))
    return Markup("<tr>{}{}</tr>").format(head, cells)


def _cell(found: Confusion, at: int, other: int, size: int, few: bool) -> Markup:
    count = found.counts[at][other]
    if not count:
        return Markup("<td></td>")
    share = count / size
    level = max(1, round(LEVELS * share))
    style = f"{'right' if at == other else 'wrong'} h{level}"
    tip = f"{count:,} of {size:,} of {found.names[at]} were called {found.names[other]}"
    text = numbers.element(share, numbers.level if few else _short)
    if few:
        text = Markup("<strong>{}</strong> {}").format(
            numbers.element(share, _percent), numbers.element(count, numbers.general)
        )
    return Markup('<td class="{}" title="{}">{}</td>').format(style, tip, text)


def _short(share: float) -> str:
    """Whole percent, less than half of one as a dot."""
    return f"{100 * share:.0f}" if share >= 0.005 else "0"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}{numbers.THIN}%"
