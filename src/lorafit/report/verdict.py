"""The verdict: did it work? One card at the top of the page."""

from __future__ import annotations

from markupsafe import Markup

from lorafit.evidence import Evaluation
from lorafit.report import result
from lorafit.report.pages import templates


def verdict_card(evaluation: Evaluation | None) -> Markup:
    """The verdict as a part of a page that has the style sheet; empty before it is measured."""
    headline = result.headline(evaluation)
    if headline is None:
        return Markup("")
    return Markup(templates().get_template("verdict.html.j2").render(headline=headline))
