"""The confusion matrix as a heat map: a table whose cells are coloured by their row's share.

The classes stand in the order of their frequency and are numbered, so that twenty of them can
be read on a telephone: a heading is a number, which the row has beside its name. A cell with
mistakes leads to the surest of them, where the page has them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from markupsafe import Markup

from lorafit.evidence.confusion import Confusion
from lorafit.report import numbers

MOST_CLASSES = 24
"""Classes of a matrix; of more, those with the most mistakes are shown."""
ROOMY = 6
"""Classes up to which a cell has its count beside the share."""
MIDDLING = 12
"""Classes up to which cells are large, and the largest confusions stand beside them."""
BEGINNING = 8
"""Characters that all names begin with, from which on they are left out beside the rows."""
MOST_CONFUSIONS = 12
LEVELS = 10
"""Steps of the colour."""

Anchors = Mapping[tuple[str, str], str]
"""True class and answer to a place on the page."""


@dataclass(frozen=True)
class HeatMap:
    """A confusion matrix to be looked at.

    Attributes:
        grid: The table.
        confusions: True class, predicted class and count of the largest mistakes.
        together: How many classes its last row and column put together.
        classes: How many there are.
        narrow: Whether something has room beside the table.
    """

    grid: Markup
    confusions: list[tuple[str, str, int]]
    together: int
    classes: int
    narrow: bool


_NOWHERE: Anchors = MappingProxyType({})


def heat_map(found: Confusion | None, anchors: Anchors = _NOWHERE) -> HeatMap | None:
    """Draws a matrix; ``None`` if there is none.

    Args:
        found: The matrix.
        anchors: Where on the page the examples of a true class and an answer are.
    """
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
    known = shown.names[:-1] if together else shown.names
    begin = len(_beginning(known))
    rows = Markup("").join(
        _row(shown, at, together, anchors, begin if at < len(known) else 0)
        for at in range(len(shown.names))
    )
    narrow = len(shown.names) <= MIDDLING
    style = "heat roomy" if few else "heat middling" if narrow else "heat"
    grid = Markup(
        '<table class="{}"><thead><tr><td></td>{}</tr></thead><tbody>{}</tbody></table>'
    ).format(style, heads, rows)
    confusions = [] if len(found.names) == 2 else found.largest(MOST_CONFUSIONS)
    return HeatMap(grid, confusions, together, len(found.names), narrow)


def _numbered(at: int, count: int, together: int) -> Markup:
    """A class's number; the last of a reduced matrix has none."""
    if together and at == count - 1:
        return Markup("…")
    return numbers.element(at + 1, numbers.plain)


def _beginning(names: Sequence[str]) -> str:
    """The words with which all names begin; nothing where they are short.

    >>> _beginning(["about the dog", "about the doctor"]), _beginning(["dog", "doctor"])
    ('about the ', '')
    """
    # Of all names the first and the last in order differ the soonest.
    first, last = min(names), max(names)
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    words = re.match(r".*[\s_/.:-]", "".join(char for char, _ in alike), flags=re.DOTALL)
    found = words[0] if words else ""
    telling = len(found) >= BEGINNING and all(len(name) > len(found) for name in names)
    return found if telling else ""


def _row(found: Confusion, at: int, together: int, anchors: Anchors, begin: int) -> Markup:
    few = len(found.names) <= ROOMY
    head = Markup('<th scope="row" title="{}">{}<span>{}</span></th>').format(
        found.names[at],
        "" if few else Markup("<b>{}</b> ").format(_numbered(at, len(found.names), together)),
        "…" + found.names[at][begin:] if begin else found.names[at],
    )
    cells = Markup("").join(_cell(found, at, other, anchors) for other in range(len(found.names)))
    return Markup("<tr>{}{}</tr>").format(head, cells)


def _cell(found: Confusion, at: int, other: int, anchors: Anchors) -> Markup:
    count, size, few = found.counts[at][other], sum(found.counts[at]), len(found.names) <= ROOMY
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
    anchor = anchors.get((found.names[at], found.names[other]))
    if anchor is not None and at != other:
        text = Markup('<a href="#{}" aria-label="{}">{}</a>').format(anchor, tip, text)
    return Markup('<td class="{}" title="{}">{}</td>').format(style, tip, text)


def _short(share: float) -> str:
    """Whole percent, less than half of one as a dot."""
    return f"{100 * share:.0f}" if share >= 0.005 else "0"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}{numbers.THIN}%"
