"""What the kernels and their PyTorch twins are both called with."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Residual:
    """What is added before a normalization: ``x``, or ``gamma * x + beta``.

    The second form takes the xhat of the previous normalization, whose output then needs
    no copy in float32.
    """

    x: Tensor
    gamma: Tensor | None = None
    beta: Tensor | None = None

    def value(self) -> Tensor:
        """The residual stream ``(n, width)`` itself."""
        if self.gamma is None or self.beta is None:
            return self.x
        return self.x * self.gamma + self.beta


@dataclass(frozen=True)
class Heads:
    """The shape of an attention.

    Attributes:
        heads: Query heads.
        kv_heads: Key and value heads; divides ``heads`` (grouped-query attention).
        head_dim: Width of a head.
        scale: What scores are multiplied by.
        causal: Whether a token sees only itself and those before it.
        first_only: Only the first token of each sequence asks; q and the output then have
            one row per sequence.
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    causal: bool = False
    first_only: bool = False

    def __post_init__(self) -> None:
        if min(self.heads, self.kv_heads, self.head_dim) < 1 or self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key/value heads")
        if self.causal and self.first_only:
            raise ValueError("the first token of a causal sequence sees only itself")
