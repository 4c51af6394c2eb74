"""Which columns hold a prompt and which the answer: by name."""

from __future__ import annotations

from dataclasses import dataclass

from datasets import Dataset

from lorafit.config import DataConfig
from lorafit.data.columns import by_name, described, kind_of, label_columns
from lorafit.data.labelled import is_prose
from lorafit.errors import DataError

PAIRS = (
    *(("prompt", "completion"), ("prompt", "response"), ("prompt", "output")),
    *(("prompt", "answer"), ("instruction", "output"), ("instruction", "response")),
    *(("instruction", "completion"), ("question", "answer"), ("question", "response")),
    *(("query", "response"), ("query", "answer"), ("input", "output"), ("input", "target")),
    *(("inputs", "targets"), ("source", "target"), ("src", "tgt"), ("document", "summary")),
    *(("article", "highlights"), ("article", "summary"), ("dialogue", "summary")),
    *(("text", "summary"), ("text", "completion"), ("meaning_representation", "human_reference")),
)
"""In order of preference."""
MORE = {"instruction": ("input", "context")}
"""Columns that go on with a prompt where they are there."""


@dataclass(frozen=True)
class PromptColumns:
    """The columns.

    Attributes:
        prompt: One column or more; their texts follow each other.
        answer: What the model is to write.
        reason: Why these.
    """

    prompt: tuple[str, ...]
    answer: str
    reason: str


def find_prompt(rows: Dataset, config: DataConfig) -> PromptColumns | None:
    """Returns the prompt and answer columns that were asked for, or that names tell."""
    texts = [name for name, feature in rows.features.items() if kind_of(feature) == "text"]
    asked = label_columns(config.label)
    if len(asked) > 1:
        return None
    if config.text and asked:
        if not all(name in texts for name in (*config.text, *asked)):
            return None
        return PromptColumns(tuple(config.text), asked[0], "as asked")
    for prompt, answer in PAIRS:
        first, second = by_name(texts, (prompt,)), by_name(texts, (answer,))
        if not (first and second):
            continue
        if (config.text and config.text[0] != first[0]) or (asked and asked[0] != second[0]):
            continue
        more = by_name(texts, MORE.get(prompt, ()))[:1]
        return PromptColumns(tuple(config.text or (*first, *more)), second[0], "names")
    others = [name for name in texts if name not in asked]
    if asked and asked[0] in texts and len(others) == 1 and is_prose(rows, asked[0]):
        return PromptColumns((others[0],), asked[0], "as asked; the only other text")
    return None


def choose_prompt(rows: Dataset, config: DataConfig) -> PromptColumns:
    """As `find_prompt`.

    Raises:
        DataError: There are no such columns.
    """
    found = find_prompt(rows, config)
    if found is None:
        raise DataError(
            "no columns with a prompt and an answer (both text) were found. There are "
            f"{described(rows)}. Name them: --text PROMPT --label ANSWER."
        )
    return found
