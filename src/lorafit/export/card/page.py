"""A model card as Markdown with metadata."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from lorafit.export.card.card import Card
from lorafit.export.card.facts import classes, facts, handoff, results
from lorafit.export.card.metadata import metadata
from lorafit.export.card.names import base_link, in_peft, method, title
from lorafit.export.card.sentences import confusions, does, limits, same_answer, use, weights
from lorafit.export.card.snippets import lorafit_snippet, peft_snippet
from lorafit.export.card.text import escaped
from lorafit.run import atomic

FILE = "README.md"


def render(card: Card) -> str:
    """Returns the card as Markdown with YAML metadata."""
    environment = Environment(
        loader=PackageLoader("lorafit.export.card", "."),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters["cell"] = escaped
    values = card.task.to_dict()
    evaluation = card.evaluation
    tables = [] if evaluation is None else evaluation.tables
    return environment.get_template("card.md.j2").render(
        metadata=metadata(card).to_yaml().strip(),
        title=escaped(title(card)),
        method=method(card),
        article="An" if method(card)[:1] in "aeiouAEIO" else "A",
        base_link=base_link(card),
        does=does(card),
        weights=weights(card),
        classes=classes(tables),
        simple=same_answer(evaluation),
        confusions=confusions(tables),
        use=use(card),
        limits=limits(card),
        evaluation=evaluation,
        confidence=f"{100 * card.config.run.confidence:g} %",
        results=[] if evaluation is None else results(evaluation),
        handoff=handoff(evaluation),
        labels=values.get("label_names", []),
        facts=facts(card),
        peft_snippet=peft_snippet(card) if in_peft(card) else "",
        lorafit_snippet=lorafit_snippet(card),
    )


def write(card: Card, folder: Path) -> Path:
    """Writes ``README.md`` into the adapter's folder, all or nothing.

    Raises:
        RunError: It cannot be written.
    """
    path = folder / FILE
    atomic.write_text(path, render(card))
    return path
