"""The test examples worth reading: the surest mistakes, and what tuning changed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from lorafit.evidence.json import Json
from lorafit.evidence.predictions import TEXTS, Predictions
from lorafit.report import numbers
from lorafit.report.numbers import element, is_number

COLUMNS = (
    *("row", *TEXTS, "label", "base", "tuned", "base_right", "tuned_right"),
    *("base_probability", "tuned_probability", "base_loss", "tuned_loss"),
)
"""What the page shows; the probabilities of every label are left in the file."""

MOST_MISTAKES = 20
MOST_FLIPS = 6
"""Of each kind."""
MOST_CELLS = 40
"""Cells of the confusion matrix that have examples: the fullest ones."""
MOST_IN_CELL = 4
"""Examples of each."""
LONGEST = 400
"""Characters of a text that are shown."""
MOST_NAMES = 40
"""Labels of one answer that are shown."""


@dataclass(frozen=True)
class Side:
    """What one model said.

    Attributes:
        answer: For people.
        sure: How sure it was, as a number with its unit, or how far off; empty: not known.
    """

    answer: str
    sure: Markup


@dataclass(frozen=True)
class Example:
    """One test example.

    Attributes:
        row: Its place in the test split.
        text: Its beginning; ``None``: the texts were not kept.
        cut: Whether it goes on.
        label: What is right.
        base: What the untuned model said; ``None``: not known.
        tuned: What the tuned one said.
    """

    row: Any
    text: str | None
    cut: bool
    label: str
    base: Side | None
    tuned: Side


@dataclass(frozen=True)
class Cell:
    """The mistakes of one cell of the confusion matrix.

    Attributes:
        anchor: Where on the page they are.
        label: The true class.
        answer: What the tuned model called it.
        n: How many there are.
        examples: The surest of them.
    """

    anchor: str
    label: str
    answer: str
    n: int
    examples: list[Example]


@dataclass(frozen=True)
class Shown:
    """What the page shows of the predictions.

    Attributes:
        kind: Answers, numbers or texts.
        n: Test examples.
        wrong: How many of them the tuned model gets wrong.
        mistakes: The surest of these; of numbers and texts the worst.
        gained: How many tuning set right.
        lost: How many it spoiled.
        gains: Some of the first.
        losses: Some of the others.
        has_text: Whether the texts were kept.
        cells: The mistakes by true class and answer, the most frequent pair first; none where an
            answer is not one class.
    """

    kind: str
    n: int
    wrong: int
    mistakes: list[Example]
    gained: int
    lost: int
    gains: list[Example]
    losses: list[Example]
    has_text: bool
    cells: list[Cell]

    @property
    def anchors(self) -> dict[tuple[str, str], str]:
        """Where the mistakes of a true class and an answer are."""
        return {(cell.label, cell.answer): cell.anchor for cell in self.cells}


def shown(found: Predictions | None) -> Shown | None:
    """The examples worth reading; ``None``: the run kept no predictions."""
    if found is None or not len(found.table) or "tuned" not in found.table.column_names:
        return None
    wrong, (gained, lost) = found.mistakes(), found.flips()
    kind = found.kind
    if kind == "texts":  # only those that were written can be read
        written = found.table.column("tuned").is_valid().to_pylist()
        wrong = wrong[[written[place] for place in wrong]]
        wrong = _different(found, wrong)

    def examples(places: Iterable[int]) -> list[Example]:
        return [_example(row, kind) for row in found.rows(list(places))]

    return Shown(
        kind=kind,
        n=len(found.table),
        wrong=len(wrong),
        mistakes=examples(wrong[:MOST_MISTAKES]),
        gained=len(gained),
        lost=len(lost),
        gains=examples(gained[:MOST_FLIPS]),
        losses=examples(lost[:MOST_FLIPS]),
        has_text=bool(found.text_columns),
        cells=_cells(found, wrong) if kind == "answers" else [],
    )


def _cells(found: Predictions, wrong: np.ndarray) -> list[Cell]:
    """The mistakes by true class and answer; the places of the surest come first."""
    if not {"label", "tuned"} <= set(found.table.column_names):
        return []
    labels, answers = (found.table.column(name).to_pylist() for name in ("label", "tuned"))
    places: dict[tuple[str, str], list[int]] = {}
    for place in wrong.tolist():
        label, answer = labels[place], answers[place]
        if isinstance(label, list) or isinstance(answer, list):
            return []
        places.setdefault((str(label), str(answer)), []).append(place)
    fullest = sorted(places.items(), key=lambda item: -len(item[1]))[:MOST_CELLS]
    return [
        Cell(
            anchor=f"cell-{at}",
            label=label,
            answer=answer,
            n=len(listed),
            examples=[_example(row, found.kind) for row in found.rows(listed[:MOST_IN_CELL])],
        )
        for at, ((label, answer), listed) in enumerate(fullest, start=1)
    ]


def _different(found: Predictions, places: np.ndarray) -> np.ndarray:
    """The first place of each pair of text and label: a prompt may stand in the data often."""
    names = [name for name in (*found.text_columns, "label") if name in found.table.column_names]
    rows = zip(*(found.table.column(name).to_pylist() for name in names), strict=True)
    keys = [str(row) for row in rows]
    first: dict[str, int] = {}
    for place in places.tolist():
        first.setdefault(keys[place] if keys else str(place), place)
    return np.array(list(first.values()), dtype=np.int64)


def _example(row: Json, kind: str) -> Example:
    text, cut = _text(row)
    words, label, tuned = _text_parts(row), row.get("label"), row.get("tuned")
    named = said(label)
    tags = [one for one in (label, tuned) if isinstance(one, list)]
    if words and [len(one) for one in tags] == [len(words), len(words)]:
        named = _tags(words, *tags)
    return Example(
        row=row.get("row"),
        text=text,
        cut=cut,
        label=named,
        base=_side(row, "base", kind) if row.get("base") is not None else None,
        tuned=_side(row, "tuned", kind),
    )


def _side(row: Json, name: str, kind: str) -> Side:
    answer, sure = row.get(name), Markup("")
    label = row.get("label")
    if kind == "answers" and is_number(row.get(f"{name}_probability")):
        sure = element(row[f"{name}_probability"], _probability)
    elif kind == "numbers" and is_number(answer) and is_number(label):
        sure = Markup("off by {}").format(element(answer - label, numbers.signed(numbers.general)))
    elif kind == "texts" and is_number(row.get(f"{name}_loss")):
        sure = Markup("({} nats per token)").format(element(row[f"{name}_loss"], numbers.decimals))
    if is_number(answer):
        return Side("", element(answer, numbers.general) + Markup(", ") + sure if sure else sure)
    if kind == "answers" and isinstance(answer, list) and isinstance(label, list):
        words = _text_parts(row)
        if len(words) == len(answer) == len(label) and words:
            return Side(_tags(words, answer, label), sure)
    return Side(said(answer) or "(nothing)", sure)


def _probability(value: float) -> str:
    """A probability in percent; never a hundred of what is less."""
    if value > 0.999:
        return f"> 99.9{numbers.THIN}%"
    return numbers.percent(value)


def said(value: Any) -> str:
    """An answer or a label in words."""
    if value is None:
        return ""
    if isinstance(value, list):
        names = [str(one) for one in value]
        more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
        return (", ".join(names[:MOST_NAMES]) + more) if names else "none"
    if is_number(value):
        return numbers.general(value)
    return _beginning(str(value))[0]


def _tags(words: list[str], tags: list[str], others: list[str]) -> str:
    """Only the words whose tags differ: all would bury them."""
    different = [
        f"{word}: {tag}"
        for word, tag, other in zip(words, tags, others, strict=True)
        if tag != other
    ]
    return ", ".join(different[:MOST_NAMES]) or "the same tags"


def _text_parts(row: Json) -> list[str]:
    text = row.get("text")
    return [str(word) for word in text] if isinstance(text, list) else []


def _text(row: Json) -> tuple[str | None, bool]:
    parts = [row[name] for name in TEXTS if row.get(name) is not None]
    if not parts:
        return None, False
    joined = [
        " ".join(map(str, part)) if isinstance(part, list) else readable(part) for part in parts
    ]
    return _beginning("\n".join(joined))


def readable(part: Any) -> str:
    """A text; of a conversation who says what, less the answer, which stands beside it."""
    text = str(part)
    if not text.startswith("[{"):
        return text
    try:
        turns = json.loads(text)
        lines = [f"{turn['role']}: {turn['content']}" for turn in turns]
    except (ValueError, TypeError, KeyError):
        return text
    return "\n".join(lines[:-1] if turns[-1]["role"] == "assistant" else lines)


def _beginning(text: str) -> tuple[str, bool]:
    """A text's beginning, and whether it goes on."""
    plain = "\n".join(" ".join(line.split()) for line in text.split("\n") if line.strip())
    if len(plain) <= LONGEST:
        return plain, False
    return plain[:LONGEST].rstrip(), True
