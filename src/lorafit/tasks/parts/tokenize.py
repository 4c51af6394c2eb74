"""Texts to token ids, in pieces that do not depend on the size of the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from lorafit.config import SpecialTokens
from lorafit.data.findings import UNKEPT, Findings
from lorafit.errors import ConfigError
from lorafit.tasks.parts.clip import beginnings
from lorafit.tasks.parts.control import read, say_control
from lorafit.tasks.parts.portions import portions

_MANY = 0.05
"""Share of truncated texts from which on it is a warning."""


def tokenize(
    texts: Sequence[tuple[str, ...]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    special_tokens: SpecialTokens = "text",
    findings: Findings = UNKEPT,
) -> pa.Table:
    """Tokenizes texts or pairs of texts, and cuts them to ``max_length``.

    Of a pair, the longer text is cut first. Texts that lose tokens are counted and said.

    Args:
        texts: ``(n,)`` tuples of one text or of two; at least one.
        tokenizer: The model's tokenizer.
        max_length: Longest result in tokens, special tokens included.
        special_tokens: What the name of a control token in a text is.
        findings: Takes how many are cut, and how many hold names of control tokens.

    Returns:
        ``input_ids`` and what else the model reads, except the attention mask (it is all
        ones before padding), as lists of int32; and ``truncated`` (bool).

    Raises:
        ConfigError: ``max_length`` leaves no room for text.
    """
    special = tokenizer.num_special_tokens_to_add(pair=len(texts[0]) == 2)
    if max_length <= special:
        raise ConfigError(
            f"max_length {max_length} leaves no room for text: this tokenizer adds {special} "
            f"special tokens. Give at least {special + len(texts[0])}."
        )
    begun = _begun(texts, tokenizer, max_length, special)
    pieces = [
        _tokenize(begun[at], tokenizer, max_length, special_tokens)
        for at in portions([sum(map(len, row)) for row in begun])
    ]
    table = pa.concat_tables(pieces)
    _say_truncated(np.asarray(table.column("truncated")), max_length, findings)
    if special_tokens == "text":
        say_control(texts, tokenizer, findings)
    return table


def _tokenize(
    texts: Sequence[tuple[str, ...]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    special_tokens: SpecialTokens,
) -> pa.Table:
    encoded = read(
        tokenizer,
        *_columns(texts),
        special_tokens=special_tokens,
        truncation=True,
        max_length=max_length,
        return_attention_mask=False,
        verbose=False,
    )
    lengths = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)
    # Only a text that fills all the room can have lost something.
    full = np.flatnonzero(lengths >= max_length)
    truncated = np.zeros(len(texts), dtype=bool)
    if len(full):
        whole = read(
            tokenizer,
            *_columns([texts[index] for index in full.tolist()]),
            special_tokens=special_tokens,
            truncation=False,
            verbose=False,
        )
        truncated[full] = [len(ids) > max_length for ids in whole["input_ids"]]
    columns = {
        name: pa.array(values, type=pa.list_(pa.int32())) for name, values in encoded.items()
    }
    return pa.table(columns | {"truncated": pa.array(truncated)})


def _begun(
    texts: Sequence[tuple[str, ...]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    special: int,
) -> list[tuple[str, ...]]:
    """The rows, very long texts cut, of which the tokenizer makes the same."""
    columns = (beginnings(column, tokenizer, max_length) for column in _columns(texts))
    begun = list(zip(*columns, strict=True))
    if len(texts[0]) == 2 and (max_length - special) % 2:
        # Of two that are both too long the longer one keeps the odd token: both have to be read.
        for at, (row, whole) in enumerate(zip(begun, texts, strict=True)):
            if row != whole:
                ids = tokenizer(list(row), add_special_tokens=False, verbose=False)["input_ids"]
                if min(map(len, ids)) > max_length:
                    begun[at] = whole
    return begun


def _columns(texts: Sequence[tuple[str, ...]]) -> list[list[str]]:
    """First texts, and second texts if they are pairs."""
    return [list(column) for column in zip(*texts, strict=True)]


def _say_truncated(truncated: np.ndarray, max_length: int, findings: Findings) -> None:
    count = int(truncated.sum())
    if count:
        share = count / len(truncated)
        findings.warn_or_note(
            share > _MANY,
            f"{count:,} of {len(truncated):,} texts ({100 * share:.1f} %) are longer than "
            f"{max_length} tokens and are cut there",
        )
