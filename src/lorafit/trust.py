"""Whose code may run: said by the caller of each call, never by a file.

A model may come with Python code (``auto_map`` in the config of the model or the tokenizer), and
an attention may be a kernel that is fetched from the Hub and run. What a run folder or an adapter
records of either (`recorded`) says what its maker allowed on another machine. It counts here only
once the caller has allowed it again (`granted`); until then such a model is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from lorafit.config import ModelConfig
from lorafit.errors import ConfigError, ModelError

BUILT_IN = frozenset({"eager", "flex_attention", "sdpa"})
"""Attentions of transformers and torch themselves: these names run nobody else's code."""

REMOTE_CODE = "model.trust_remote_code"
ATTENTION = "model.attn_implementation"


class TrustKeywords(TypedDict, total=False):
    """What a caller allows of code that comes with the base model: see `lorafit.load`."""

    trust_remote_code: bool
    """Whether Python code of the model may run."""
    attn_implementation: str | None
    """The attention to compute with."""


@dataclass(frozen=True)
class Trust:
    """What the caller of one call allows.

    Attributes:
        remote_code: Python code that comes with the base model or its tokenizer may run.
        attention: The attention to compute with; ``None``: the one on record, where it is
            built in.
    """

    remote_code: bool = False
    attention: str | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Trust:
        """What the keyword settings of a call allow."""
        code, attention = (
            settings.get(key.rpartition(".")[2], settings.get(key))
            for key in (REMOTE_CODE, ATTENTION)
        )
        return cls(code is True, attention)


NO_TRUST = Trust()
"""No code of anybody else."""


def recorded(model: ModelConfig, source: str) -> ModelConfig:
    """The model as a file names it: what the file says of trust is a record, and no more.

    Args:
        model: What the file says; it is not changed.
        source: What to call the file in messages.
    """
    model = model.model_copy()
    if model.trust_remote_code or not built_in(model.attn_implementation):
        model._recorded_in = source  # noqa: SLF001 kept there for this module
    return model


def granted(model: ModelConfig, trust: Trust) -> ModelConfig:
    """The model of a record, loaded as the caller of this call allows.

    Raises:
        ModelError: The record needs code that the caller did not allow.
    """
    source = record_of(model)
    allowed = model.model_copy(
        update={
            "trust_remote_code": trust.remote_code,
            "attn_implementation": trust.attention or model.attn_implementation,
        }
    )
    if source is not None:
        if model.trust_remote_code and not trust.remote_code:
            raise ModelError(_code_wanted(model, source))
        if trust.attention is None and not built_in(model.attn_implementation):
            raise ModelError(_kernel_wanted(model, source))
        allowed._recorded_in = None  # noqa: SLF001
    return allowed


def check_granted(model: ModelConfig) -> None:
    """Refuses a model whose record asks for trust that nobody has granted.

    Raises:
        ModelError: As `granted`.
    """
    if record_of(model) is not None:
        granted(model, Trust())


def record_of(model: ModelConfig) -> str | None:
    """The file that asks for trust in this model; ``None``: none does, or the caller granted it."""
    return model._recorded_in  # noqa: SLF001 kept there for this module


def check_settings(model: ModelConfig, from_files: Mapping[str, str]) -> None:
    """Refuses trust that a file of settings asks for.

    Args:
        model: The resolved settings.
        from_files: Which of `REMOTE_CODE` and `ATTENTION` come from a file, and from where.

    Raises:
        ModelError: One of them would run code.
    """
    if REMOTE_CODE in from_files and model.trust_remote_code:
        raise ModelError(_code_wanted(model, from_files[REMOTE_CODE]))
    if ATTENTION in from_files and not built_in(model.attn_implementation):
        raise ModelError(_kernel_wanted(model, from_files[ATTENTION]))


def check_same(model: ModelConfig, trust: Trust, source: str) -> None:
    """Refuses another attention than the one that a run began with.

    Raises:
        ConfigError: The caller asks for another one.
    """
    if trust.attention not in (None, model.attn_implementation):
        raise ConfigError(
            f'"{source}" began with the attention {model.attn_implementation or "of its model"}, '
            f"and goes on with the same. Leave --attn-implementation {trust.attention} out."
        )


def built_in(attention: str | None) -> bool:
    """Whether the name of an attention runs no code but that of transformers and torch."""
    return attention is None or attention in BUILT_IN


def _code_wanted(model: ModelConfig, source: str) -> str:
    return (
        f"{source} asks for Python code that comes with the base model "
        f'"{model.name_or_path}" to be run. A file cannot allow that. Read the code; if you trust '
        "it, give --trust-remote-code."
    )


def _kernel_wanted(model: ModelConfig, source: str) -> str:
    wanted = model.attn_implementation
    return (
        f'{source} asks for the attention "{wanted}" with the base model '
        f'"{model.name_or_path}", which is code that may be fetched and run. A file cannot allow '
        f"that. If you trust it, give --attn-implementation {wanted}; sdpa and eager are built in."
    )
