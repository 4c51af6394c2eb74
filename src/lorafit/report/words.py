"""Words of the trade that a page uses, and what they mean."""

from __future__ import annotations

import re

WORDS = {
    "nats": (
        r"\bnats?\b",
        "The unit of the loss: a model that gave the truth the probability p pays -ln(p). Being "
        "certain and right costs nothing; being certain and wrong costs most.",
    ),
    "training loss": (
        r"[Tt]raining loss|\btraining, (as logged|smoothed)",
        "How surprised the model is by the examples it learns from. It falls as long as it learns, "
        "or as long as it learns them by heart.",
    ),
    "validation loss": (
        r"[Vv]alidation loss",
        "The same on examples that are not learned from. When it rises while the training loss "
        "falls, the model learns by heart (it over-fits).",
    ),
    "hand-off": (
        r"[Hh]and-off",
        "The check that the saved adapter, loaded by whoever gets it, computes what was trained.",
    ),
    "trunk": (
        r"\btrunk\b",
        "The one run that the search goes on with; what it tries are branches from a point of it.",
    ),
    "branch": (r"\bbranch", "A short piece of training that tries one value of a setting."),
    "selection set": (
        r"[Ss]election set",
        "The part of the validation examples on which settings are compared; the rest is kept for "
        "an honest look at the choice.",
    ),
    "logit": (
        r"\blogits?\b",
        "A number the model gives each answer before they are made probabilities.",
    ),
    "rank (r)": (
        r"\br = |\brank\b",
        "How many directions of each weight matrix the adapter can change: its size.",
    ),
    "precision, recall, F1": (
        r"\bprecision\b",
        "Precision: of those called so, how many are. Recall: of those that are, how many were "
        "called so. F1 balances the two.",
    ),
    "interval": (
        r"\binterval",
        "The range in which the value would lie on very many examples, as far as these tell.",
    ),
}
"""A pattern that finds the word in a page's text, and its meaning."""


def used(text: str) -> dict[str, str]:
    """The words that a text uses, with their meanings.

    Args:
        text: Of the page; markup is left out.
    """
    plain = re.sub(r"<(style|svg)\b.*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL)
    return {word: meaning for word, (found, meaning) in WORDS.items() if re.search(found, plain)}
