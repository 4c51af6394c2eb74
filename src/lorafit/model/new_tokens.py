"""New tokens: added to the tokenizer, with rows for them in the model's embeddings.

A new row starts as the mean of the rows of the pieces that the tokenizer made of the token
before (Gee et al. 2022, arXiv 2402.09977): the model reads it nearly as it read the pieces, and
every load gives the same row, whatever is drawn at random.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorafit.errors import ConfigError, ModelError
from lorafit.model.sites import output_embeddings
from lorafit.tasks.parts import control

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewTokens:
    """What was added to a tokenizer.

    Attributes:
        ids: Token to its id, which is its row in the embeddings.
        resized_to: Rows that the embeddings have now; ``None``: they had some to spare.
    """

    ids: Mapping[str, int] = field(default_factory=dict)
    resized_to: int | None = None


def add_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]
) -> NewTokens:
    """Adds tokens to a tokenizer, and rows for them to its model; both are changed in place.

    They are ordinary tokens: texts that hold one are read with it, and nothing leaves them out
    of what is written.

    Args:
        model: Without adapters.
        tokenizer: Of the model.
        tokens: Different from one another, and not empty.

    Raises:
        ConfigError: The tokenizer has one already, or would not read texts with it.
        ModelError: The model's embeddings cannot get rows.
    """
    if not tokens:
        return NewTokens()
    for token in tokens:
        _check_new(token, tokenizer)
    unknown = tokenizer.unk_token_id
    pieces = [[i for i in row if i != unknown] for row in _read(tokenizer, tokens)]
    taken = set(tokenizer.get_vocab().values())
    tokenizer.add_tokens(list(tokens))
    ids: Any = tokenizer.convert_tokens_to_ids(list(tokens))
    _check_read(tokenizer, tokens, ids)
    words = model.get_input_embeddings()
    if not isinstance(words, nn.Embedding) or taken & set(ids):
        raise ModelError(
            f"add_tokens: {type(model).__name__} has no table of embeddings that new tokens could "
            "be added to."
        )
    before = words.num_embeddings
    wanted = max(ids) + 1
    if wanted > before:
        try:
            model.resize_token_embeddings(wanted, mean_resizing=False)
        except (NotImplementedError, ValueError, AttributeError) as error:
            raise ModelError(
                f"add_tokens: {type(model).__name__} cannot get more embeddings: {error}"
            ) from error
    rows = [row or list(range(min(before, len(taken)))) for row in pieces]
    _start(model, dict(zip(ids, rows, strict=True)))
    new = NewTokens(dict(zip(tokens, ids, strict=True)), wanted if wanted > before else None)
    log.info(
        "new tokens: %s; each starts as the mean of the pieces it was read as before%s",
        ", ".join(f"{token} ({i})" for token, i in new.ids.items()),
        "" if wanted > before else "; the model had embeddings to spare for them",
    )
    return new


def _check_new(token: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a token that the tokenizer has.

    Raises:
        ConfigError: It has, or the chat template writes the token.
    """
    known = tokenizer.get_vocab().get(token)
    if known is None and len(row := _read(tokenizer, [token])[0]) == 1:
        known = row[0] if row[0] != tokenizer.unk_token_id else None
    if known is not None:
        kind = "a control token" if token in control.control_names(tokenizer) else "one token"
        raise ConfigError(
            f'add_tokens: "{token}" is {kind} of this tokenizer already (id {known}). Leave it '
            "out; --trainable-token-indices trains the rows of tokens that are there."
        )
    if token in str(tokenizer.chat_template or ""):
        raise ConfigError(
            f'add_tokens: "{token}" stands in the chat template, which would be read differently '
            "with it. Choose another spelling."
        )


def _check_read(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str], ids: Sequence[int]
) -> None:
    """Refuses tokens with which texts are not read.

    Raises:
        ConfigError: There is one.
    """
    for token, own, row in zip(tokens, ids, _read(tokenizer, tokens), strict=True):
        other = next((t for t, i in zip(tokens, ids, strict=True) if i != own and i in row), None)
        if other is not None:
            # Which of the two texts are read as differs from one tokenizer to the next.
            one, same = sorted((token, other), key=tokens.index)
            raise ConfigError(
                f'add_tokens: "{one}" and "{same}" would be read as one token in texts. Leave one '
                "of them out."
            )
        if own not in row:
            raise ConfigError(
                f'add_tokens: "{token}" would not be read by {type(tokenizer).__name__} in texts. '
                "Choose another spelling."
            )


def _read(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of texts, without those that mark their beginning and end."""
    encoded: Any = control.read(tokenizer, texts, add_special_tokens=False)["input_ids"]
    return [list(row) for row in encoded]


@torch.no_grad()
def _start(model: PreTrainedModel, rows: Mapping[int, Sequence[int]]) -> None:
    """Sets new rows of the embeddings and the output embeddings to means of other rows."""
    tables: dict[int, torch.Tensor] = {}
    for module in (model.get_input_embeddings(), output_embeddings(model)):
        for name in ("weight", "bias"):
            table = getattr(module, name, None)
            if isinstance(table, torch.Tensor):
                tables[table.data_ptr()] = table
    for table in tables.values():
        for new, others in rows.items():
            table[new] = table[list(others)].float().mean(0).to(table.dtype)
