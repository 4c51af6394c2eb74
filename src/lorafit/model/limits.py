"""How long an input may be: what is asked for, what the tokenizer and the model can take."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorafit.errors import ConfigError

DEFAULT_MAX_LENGTH = 512
"""Longest input in tokens when none is asked for; attention costs its square."""

_NO_LIMIT = 1_000_000
"""Tokenizers without a limit say 1e30 or 1e18."""


def max_length(
    asked: int | None,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    *,
    reserved: int = 0,
) -> int:
    """Returns the longest input in tokens, special tokens included.

    Args:
        asked: What the user set; ``None``: as long as model and tokenizer allow, at most 512.
        tokenizer: Its ``model_max_length`` counts where it is a real number.
        model: Its number of positions counts.
        reserved: Positions that the adapter takes (virtual tokens).

    Raises:
        ConfigError: More is asked for than the model or the tokenizer can take.
    """
    limits = {}
    if tokenizer.model_max_length < _NO_LIMIT:
        limits["its tokenizer"] = int(tokenizer.model_max_length)
    positions = _positions(model)
    if positions is not None:
        limits["the model"] = positions - reserved
    if not limits:
        return asked or DEFAULT_MAX_LENGTH
    who, limit = min(limits.items(), key=lambda item: item[1])
    if limit <= 0:
        raise ConfigError(
            f"the adapter's {reserved} virtual tokens leave no room in the model's "
            f"{limit + reserved} positions; take fewer."
        )
    if asked is None:
        return min(limit, DEFAULT_MAX_LENGTH)
    if asked > limit:
        raise ConfigError(
            f"max_length {asked} is too long: {who} takes at most {limit} tokens. "
            f"Set it to {limit} or less; longer texts are cut and counted."
        )
    return asked


def table_positions(model: PreTrainedModel) -> int | None:
    """How many tokens fit a model that looks their positions up in a table.

    One token more is an error there. ``None``: the model computes positions, and has no end.
    """
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(positions, int):
        return None
    words = set(model.get_input_embeddings().modules())
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m not in words]
    # OPT and BART have two rows more than positions.
    has = any(positions <= table.num_embeddings <= positions + 2 for table in tables)
    return _positions(model) if has else None


def _positions(model: PreTrainedModel) -> int | None:
    """How many tokens the model has positions for; ``None``: no limit is known."""
    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    words = model.get_input_embeddings()
    for module in model.modules():
        # RoBERTa counts positions from after the padding index, so that many are lost.
        if (
            isinstance(module, nn.Embedding)
            and module is not words
            and module.num_embeddings == positions
            and module.padding_idx is not None
        ):
            return positions - module.padding_idx - 1
    return positions
