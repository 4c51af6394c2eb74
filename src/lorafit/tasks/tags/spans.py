"""Tags of single words to spans, in every scheme: IOB1, IOB2, BIOES, BILOU.

The rules are those of conlleval, the CoNLL shared tasks' program, and so of seqeval's default:
what is not well formed (an ``I`` that follows nothing) still counts as the span it begins.
The tests hold this file to seqeval.
"""

from __future__ import annotations

from collections.abc import Sequence

OUTSIDE = "O"
PREFIXES = frozenset("BIESLUO")
"""Begin, inside, end, single; last and unit are BILOU's names of the last two."""

Span = tuple[str, int, int]
"""Type, first word, last word."""


def split_tag(tag: str) -> tuple[str, str]:
    """``B-PER`` to ``("B", "PER")``; a tag without a type is of the type ``_``."""
    prefix, dash, kind = tag.partition("-")
    if tag == OUTSIDE:
        return OUTSIDE, ""
    if not dash:
        return (tag, "_") if tag in PREFIXES else ("I", tag)
    prefix = {"L": "E", "U": "S"}.get(prefix, prefix)
    return prefix, kind


def scheme_of(tags: Sequence[str]) -> str | None:
    """Names the scheme of a set of tags; ``None``: they are single tags, not parts of spans."""
    if OUTSIDE not in tags and not any(tag.startswith(("B-", "I-")) for tag in tags):
        return None
    prefixes = {tag.partition("-")[0] for tag in tags}
    if any("-" not in tag for tag in tags if tag != OUTSIDE) or not prefixes <= PREFIXES:
        return None
    if prefixes & {"L", "U"}:
        return "BILOU"
    if prefixes & {"E", "S"}:
        return "BIOES"
    return "IOB"


def spans(tags: Sequence[str]) -> list[Span]:
    """The spans of one sentence."""
    found: list[Span] = []
    before, kind_before, start = OUTSIDE, "", 0
    for index, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = split_tag(tag)
        if _ends(before, prefix, kind_before, kind):
            found.append((kind_before, start, index - 1))
        if _starts(before, prefix, kind_before, kind):
            start = index
        before, kind_before = prefix, kind
    return found


def _ends(before: str, now: str, kind_before: str, kind: str) -> bool:
    """Whether a span ends between two tags."""
    if before == OUTSIDE:
        return False
    return before in "ES" or now in "BSO" or kind_before != kind


def _starts(before: str, now: str, kind_before: str, kind: str) -> bool:
    """Whether a span starts at the second of two tags."""
    if now == OUTSIDE:
        return False
    return now in "BS" or before in "ESO" or kind_before != kind


def check_iob1(sentences: Sequence[Sequence[str]]) -> bool:
    """Whether some span begins with ``I`` after ``O``: IOB1 rather than IOB2."""
    for tags in sentences:
        before = OUTSIDE
        for tag in tags:
            prefix = split_tag(tag)[0]
            if prefix == "I" and before == OUTSIDE:
                return True
            before = prefix
    return False
