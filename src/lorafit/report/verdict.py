"""The verdict: did it work? One card, for the page and for a notebook."""

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


def notebook_card(evaluation: Evaluation | None) -> Markup:
    """The same for a page that is not ours: it brings the little style it needs."""
    headline = result.headline(evaluation)
    if headline is None:
        return Markup("")
    return Markup(templates().get_template("notebook.html.j2").render(headline=headline))
