"""Padding for tokenizers that have no padding token, as most language models' have none."""

from __future__ import annotations

import logging

from transformers import PreTrainedTokenizerBase

from lorafit.errors import ModelError

log = logging.getLogger(__name__)


def ensure_pad_token(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Makes the end-of-sequence token the padding token if there is none, and says so.

    Padding is masked, so the choice does not change what the model computes; a new token
    would need a new embedding row.

    Returns:
        Whether the tokenizer was changed.

    Raises:
        ModelError: There is no end-of-sequence token either.
    """
    if tokenizer.pad_token_id is not None:
        return False
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer {type(tokenizer).__name__} has neither a padding nor an "
            'end-of-sequence token. Set one: tokenizer.pad_token = "..." (a token it knows).'
        )
    tokenizer.pad_token = tokenizer.eos_token
    log.info(
        'the tokenizer has no padding token: "%s" (end of sequence) is used for padding',
        tokenizer.eos_token,
    )
    return True
