"""Which columns hold a prompt and which the answer: by name."""

from __future__ import annotations

import json
from dataclasses import dataclass

from datasets import Dataset

from lorafit.config import DataConfig
from lorafit.data.columns.choose import by_name, described, kind_of, label_columns
from lorafit.data.columns.labelled import find_labels, is_prose
from lorafit.data.columns.values import column_values, features_of
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
NEVER_LABELS = (
    *("output", "outputs", "completion", "completions", "response", "responses"),
    *("summary", "highlights"),
)
"""Columns beside a prompt that are surely meant to be written, even if they were asked for."""
ANSWERS = (*NEVER_LABELS, "answer", "answers")
"""Columns beside a prompt that are meant to be written."""
PROMPTS = ("prompt", "instruction", "question", "query", "input", "inputs")
"""Columns that are surely meant to be answered."""
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
    texts = [name for name, feature in features_of(rows).items() if kind_of(feature) == "text"]
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


def refuse_preferences(rows: Dataset, config: DataConfig) -> None:
    """Refuses pairs of a better and a worse answer, which are not learned from here.

    Raises:
        DataError: There are such columns and none were named.
    """
    if config.text or config.label:
        return
    lower = {name.lower(): name for name in rows.column_names}
    if not {"chosen", "rejected"} <= lower.keys():
        return
    chosen, prompts = lower["chosen"], by_name(rows.column_names, ("prompt", "instruction"))
    prompts = prompts or by_name(rows.column_names, ("question", "input"))
    text = kind_of(features_of(rows)[chosen]) == "text"
    pair = text and prompts
    instead = f"--text {prompts[0]} --label {chosen}" if pair else f"--text {chosen}"
    raise DataError(
        f"these are preferences: an answer in {chosen} that is better than the one in "
        f"{lower['rejected']}. lorafit teaches answers, not preferences between them (DPO, reward "
        f"models). To teach the better ones alone: {instead}."
    )


def refuse_other_answers(rows: Dataset, config: DataConfig, *, guessing: bool = False) -> None:
    """Refuses answers that are objects, lists or numbers where a model is to write them.

    Args:
        rows: The data.
        config: ``text`` and ``label`` count.
        guessing: The task is not known yet, so a column that was asked for may be a label: it is
            refused only if its name and that of the prompt say that it is none.

    Raises:
        DataError: The answers that were asked for, or that stand beside a prompt by their
            names, are no text, or there is none.
    """
    texts = [name for name, feature in features_of(rows).items() if kind_of(feature) == "text"]
    asked = label_columns(config.label)
    clear = by_name(config.text or texts, PROMPTS)
    if asked:
        named = clear and by_name(asked, NEVER_LABELS)
        answers = list(asked) if len(asked) == 1 and (named or not guessing) else []
    else:
        pairs = [pair for pair in PAIRS if by_name(texts, (pair[0],)) and pair[1] in ANSWERS]
        names = [answer for _, answer in pairs]
        answers = by_name(rows.column_names, [*names, *(ANSWERS if clear else ())])
    for answer in answers:
        feature = features_of(rows).get(answer)
        kind = "text" if feature is None else kind_of(feature)
        labelled = not asked and any(label.certain for label in find_labels(rows, config))
        if kind == "empty" and clear and not labelled:
            raise DataError(
                f'the answers in "{answer}" are all empty, so there is nothing to learn. There '
                f"are {described(rows)}. To learn from the texts of {clear[0]} alone: --text "
                f"{clear[0]}."
            )
        if kind in ("text", "bool", "class label", "empty") and not (asked and kind == "bool"):
            continue
        first = next((v for v in column_values(rows, answer) if v is not None), None)
        shown = json.dumps(first, ensure_ascii=False, default=str)
        nested = kind in ("nested", "list")
        what = {"nested": "objects", "list": "lists"}.get(kind, f"numbers ({kind})")
        raise DataError(
            f'the answers in "{answer}" are {what}, such as {shown[:60]}, and a model writes text. '
            f"Make them text{' (json.dumps)' if nested else ''}"
            + (
                f", or name another column: --label COLUMN. There are {described(rows)}."
                if nested or (asked and not guessing)
                else f"; or, to predict them as labels: --task sequence_classification --label "
                f"{answer}."
            )
        )


def choose_prompt(rows: Dataset, config: DataConfig) -> PromptColumns:
    """As `find_prompt`.

    Raises:
        DataError: There are no such columns.
    """
    found = find_prompt(rows, config)
    if found is None:
        refuse_preferences(rows, config)
        refuse_other_answers(rows, config)
        raise DataError(
            "no columns with a prompt and an answer (both text) were found. There are "
            f"{described(rows)}. Name them: --text PROMPT --label ANSWER."
        )
    return found
