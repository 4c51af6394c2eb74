"""The verdict of a run as one card, for a notebook: the top of ``report.html`` by itself."""

from __future__ import annotations

from pathlib import Path

from lorafit.report import result
from lorafit.report.folder import read_folder
from lorafit.report.pages import templates

COLOURS = {"better": "#2a9d5c", "worse": "#d64545"}
"""Of the card's edge; readable on white and on black."""
OTHER = "#808895"


def run_card(folder: Path) -> str:
    """The card, whatever state the run is in.

    Args:
        folder: Of the run.

    Returns:
        HTML that needs nothing but itself; what stands in the folder is escaped.
    """
    run = read_folder(folder)
    headline = result.headline(run.evaluation)
    verdict = "" if headline is None else headline.row.verdict
    colour = COLOURS.get(verdict, OTHER)
    template = templates().get_template("card.html.j2")
    return template.render(run=run, headline=headline, colour=colour)
