"""Words to tokens: which token begins which word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from lorafit.config import SpecialTokens
from lorafit.data.findings import UNKEPT, Findings
from lorafit.errors import ConfigError, ModelError
from lorafit.tasks.parts.control import read, say_control

_AT_ONCE = 1_000


@dataclass(frozen=True)
class Aligned:
    """One sentence as the model reads it.

    Attributes:
        input_ids: Tokens, special ones included, cut to the longest length.
        words: For each token the word it begins; -1 for all other tokens.
        truncated: Whether tokens were cut off.
        whole: Tokens before the cut.
    """

    input_ids: list[int]
    words: list[int]
    truncated: bool
    whole: int


def align(
    sentences: Sequence[Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    special_tokens: SpecialTokens = "text",
    findings: Findings = UNKEPT,
) -> list[Aligned]:
    """Tokenizes sentences of words.

    The words are joined by spaces, as they stand in a text, and found again by their place in
    it; that works with every fast tokenizer, also those that join a space to the word after it.

    Args:
        sentences: Words of each.
        tokenizer: The model's tokenizer.
        max_length: Longest result in tokens; what is beyond is cut off at the end.
        special_tokens: What the name of a control token among the words is.
        findings: Takes how many hold one.

    Raises:
        ModelError: The tokenizer does not know where in a text its tokens are.
        ConfigError: ``max_length`` leaves no room for text.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            f"token classification needs a fast tokenizer, which knows where in the text its "
            f"tokens are; this is a {type(tokenizer).__name__}. Use a model with a tokenizer.json."
        )
    special = tokenizer.num_special_tokens_to_add(pair=False)
    if max_length <= special:
        raise ConfigError(
            f"max_length {max_length} leaves no room for text: this tokenizer adds {special} "
            f"special tokens. Give at least {special + 1}."
        )
    found: list[Aligned] = []
    for at in range(0, len(sentences), _AT_ONCE):
        found += _align(sentences[at : at + _AT_ONCE], tokenizer, max_length, special_tokens)
    if special_tokens == "text":
        say_control(sentences, tokenizer, findings)
    return found


def _align(
    sentences: Sequence[Sequence[str]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    special_tokens: SpecialTokens,
) -> list[Aligned]:
    texts = [" ".join(words) for words in sentences]
    encoded = read(
        tokenizer,
        texts,
        special_tokens=special_tokens,
        truncation=True,
        max_length=max_length,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    full = [i for i, ids in enumerate(encoded["input_ids"]) if len(ids) >= max_length]
    whole = {i: len(ids) for i, ids in enumerate(encoded["input_ids"])}
    if full:
        again = read(
            tokenizer,
            [texts[i] for i in full],
            special_tokens=special_tokens,
            truncation=False,
            verbose=False,
        )
        whole |= {i: len(ids) for i, ids in zip(full, again["input_ids"], strict=True)}
    result = []
    for index, words in enumerate(sentences):
        ids = encoded["input_ids"][index]
        starts = _word_starts(words, texts[index], encoded["offset_mapping"][index])
        result.append(Aligned(ids, starts, whole[index] > len(ids), whole[index]))
    return result


def _word_starts(words: Sequence[str], text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """For each token the word of which it is the first token, or -1."""
    owner: list[int] = []  # of each character; -1: the space between two words
    for index, word in enumerate(words):
        owner += [index] * len(word) + [-1]
    result: list[int] = []
    last = -1
    for start, end in offsets:
        # The space before a word may be part of its token, so the last character decides.
        found = owner[end - 1] if end > start and text[start:end].strip() else -1
        result.append(found if found > last else -1)
        last = max(last, found)
    return result
