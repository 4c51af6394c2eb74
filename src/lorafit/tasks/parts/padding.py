"""Padding: with which token, and on which side."""

from __future__ import annotations

from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from lorafit.data.findings import UNKEPT, Findings
from lorafit.errors import ModelError

Side = Literal["right", "left"]


def side_of(config: Any) -> Side:
    """The side on which padding leaves a model's answers as they are.

    On the right every text begins at the first position, where heads look for its first token
    and absolute positions are counted from. XLNet's classifier reads the last position, whatever
    stands there, and counts positions from one another: it needs padding on the left.

    Args:
        config: The model's configuration.
    """
    return "left" if getattr(config, "summary_type", None) == "last" else "right"


def set_side(tokenizer: PreTrainedTokenizerBase, side: Side, findings: Findings) -> None:
    """Makes the tokenizer pad on this side, and says so if it did not."""
    if tokenizer.padding_side != side:
        findings.note(
            f"the tokenizer pads on the {tokenizer.padding_side}; the model reads texts that are "
            f"padded on the {side}"
        )
        tokenizer.padding_side = side


def ensure_pad_token(tokenizer: PreTrainedTokenizerBase, findings: Findings = UNKEPT) -> bool:
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
    findings.note(
        f'the tokenizer has no padding token: "{tokenizer.eos_token}" (end of sequence) is used '
        "for padding"
    )
    return True
