"""The beginning of a very long text, where only its first tokens are wanted.

A tokenizer reads a whole text before it cuts it: of 50 MB these are minutes, and gigabytes of
tokens. The beginning has the same first tokens if the rest cannot change them. So a text is cut
between two words, at a single space between ASCII letters, and only where no token reaches over
such a place: not one of the vocabulary has a letter, a space and a letter in a row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

_BETWEEN = re.compile(r"[A-Za-z] (?=[A-Za-z])")
_OVER = re.compile(r"[A-Za-z][ \u0120\u2581][A-Za-z]")
"""A letter, a space and a letter; byte-level vocabularies write a space as U+0120, SentencePiece as
U+2581."""


@dataclass(frozen=True)
class Cut:
    """Where a text is cut, in characters.

    Attributes:
        short: Texts up to this length are left as they are.
        of_a_token: For each token that is wanted; where they are not enough, twice as many are
            taken.
        looked: In which a place to cut is looked for.
    """

    short: int = 1 << 16
    of_a_token: int = 12
    looked: int = 4_096


CUT = Cut()


def beginnings(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int, cut: Cut = CUT
) -> list[str]:
    """Texts, the very long ones cut, with the same first ``max_length`` tokens.

    What is cut still has more tokens than that. Tokenizers that keep the end of a text, or that may
    have a token over two words, get the texts as they are.

    Args:
        texts: Of any length.
        tokenizer: Reads them.
        max_length: How many tokens are wanted, special ones not counted.
        cut: Where they are cut.
    """
    shortest = max(cut.short, cut.of_a_token * (max_length + 1))
    long = [number for number, text in enumerate(texts) if len(text) > shortest]
    found = list(texts)
    if long and _is_local(tokenizer):
        for number in long:
            found[number] = _beginning(found[number], tokenizer, max_length, cut)
    return found


def _beginning(text: str, tokenizer: PreTrainedTokenizerBase, max_length: int, cut: Cut) -> str:
    room = cut.of_a_token * (max_length + 1)
    while room < len(text):
        low = max(0, room - cut.looked)
        places = [found.start() + 1 for found in _BETWEEN.finditer(text[low:room])]
        if places:
            part = text[: low + places[-1]]
            # Names of control tokens count as one each here, so it is not more than are read.
            ids = tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]
            if len(ids) > max_length:
                return part
        room *= 2
    return text


def _is_local(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether no token reaches over a single space between letters."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or tokenizer.truncation_side != "right":
        return False
    tokens = tokenizer.get_vocab()
    splits = backend.pre_tokenizer is not None or "\u2581" in tokens
    added = (token.content for token in tokenizer.added_tokens_decoder.values())
    return splits and not any(map(_OVER.search, tokens)) and not any(map(_OVER.search, added))
