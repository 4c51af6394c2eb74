"""Settings of LoRA and what they come to at each layer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from lorafit.methods.base import MethodConfig
from lorafit.model import expressions

LARGEST_ALPHA = 1e9
"""Far above any in use; beyond about 1e30 an update is no number in float32 any more."""
_INITS = ("gaussian", "orthogonal", "olora", "pissa")


class LoraConfig(MethodConfig):
    """Settings of LoRA, with PEFT's names, meanings and defaults."""

    peft_type: str = "LORA"
    r: int = Field(default=8, gt=0)
    """Rank."""
    lora_alpha: int | float = Field(default=8, gt=0)
    """The update is multiplied by ``lora_alpha / r`` (``/ sqrt(r)`` with ``use_rslora``)."""
    target_modules: set[str] | str | None = None
    """Names, a regular expression that matches whole paths, or ``"all-linear"`` (also ``None``)."""
    exclude_modules: set[str] | str | None = None
    """Names, or a regular expression that matches whole paths, left out of the targets."""
    lora_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on the input of ``A`` only."""
    fan_in_fan_out: bool = False
    """Kept for PEFT's files; the orientation of a weight is read off its layer."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases are trained: none, all of the model's, or the adapted layers'."""
    use_rslora: bool = False
    """Scale by ``lora_alpha / sqrt(r)``, so that a larger rank takes the same learning rate."""
    use_dora: bool = False
    """Also train the length of each row of the weight (DoRA)."""
    init_lora_weights: bool | str = True
    """``True`` (Kaiming A, zero B), ``"gaussian"``, ``"orthogonal"``, ``"olora"``, ``"pissa"``
    (``"pissa_niter_16"``: fast SVD), or ``False`` (both random: does not start at the base)."""
    layers_to_transform: list[int] | int | None = None
    """Numbers of the blocks to adapt, from 0; ``None``: all."""
    layers_pattern: list[str] | str | None = None
    """Names of the block lists that these numbers count in, e.g. ``h``; ``None``: all."""
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    """Module name or expression to rank, where it differs from ``r``."""
    alpha_pattern: dict[str, float] = Field(default_factory=dict)
    """Module name or expression to ``lora_alpha``, where it differs."""
    target_parameters: list[str] | None = None
    """Weights that are no layers, such as the experts of a mixture (``experts.down_proj``), adapted
    beside the target modules; without dropout."""
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None
    """Rows of the input embeddings trained whole (ids of tokens), or rows by the name of an
    embedding."""

    @field_validator("init_lora_weights")
    @classmethod
    def _known_init(cls, value: bool | str) -> bool | str:
        if isinstance(value, str) and value not in _INITS:
            if re.fullmatch(r"pissa_niter_\d+", value):
                return value
            raise ValueError(
                f'"{value}" is not an initialisation; there is True, False, {", ".join(_INITS)}'
            )
        return value

    @field_validator("rank_pattern")
    @classmethod
    def _positive_ranks(cls, value: dict[str, int]) -> dict[str, int]:
        if any(r <= 0 for r in value.values()):
            raise ValueError(f"ranks have to be positive, got {value}")
        return value

    @field_validator("alpha_pattern")
    @classmethod
    def _positive_alphas(cls, value: dict[str, float]) -> dict[str, float]:
        if not all(alpha > 0 and math.isfinite(alpha) for alpha in value.values()):
            raise ValueError(f"lora_alpha has to be positive and finite, got {value}")
        return value

    @model_validator(mode="after")
    def _finite_scales(self) -> Self:
        if not all(a <= LARGEST_ALPHA for a in (self.lora_alpha, *self.alpha_pattern.values())):
            raise ValueError(f"lora_alpha is not a number up to {LARGEST_ALPHA:g}")
        return self

    @model_validator(mode="after")
    def _orthogonal_rank(self) -> Self:
        if self.init_lora_weights == "orthogonal" and any(
            r % 2 for r in (self.r, *self.rank_pattern.values())
        ):
            raise ValueError("orthogonal initialisation takes an even r")
        return self

    @model_validator(mode="after")
    def _plain_for_parameters(self) -> Self:
        apart = {
            "use_dora": self.use_dora,
            f"lora_dropout {self.lora_dropout:g}": self.lora_dropout,
            f"init_lora_weights {self.init_lora_weights}": self.has_origin,
        }
        wrong = [name for name, is_set in apart.items() if is_set]
        if self.target_parameters and wrong:
            raise ValueError(f"target_parameters takes plain LoRA, without {' or '.join(wrong)}")
        return self

    def rank(self, path: str) -> int:
        """The rank at a module path."""
        return int(_by_pattern(self.rank_pattern, path, self.r))

    def alpha(self, path: str) -> float:
        """``lora_alpha`` at a module path."""
        return _by_pattern(self.alpha_pattern, path, self.lora_alpha)

    def scaling(self, path: str) -> float:
        """The factor ``s`` of the update at a module path."""
        r = self.rank(path)
        return self.alpha(path) / (math.sqrt(r) if self.use_rslora else r)

    @property
    def has_origin(self) -> bool:
        """Whether the start is a non-zero product that is subtracted (``olora``, ``pissa``)."""
        init = self.init_lora_weights
        return isinstance(init, str) and (init == "olora" or init.startswith("pissa"))


def _by_pattern(patterns: Mapping[str, float], path: str, default: float) -> float:
    """PEFT's rule: the first pattern that matches the last parts of the path."""
    for pattern, value in patterns.items():
        if expressions.names(pattern, path):
            return float(value)
    return default
