"""How the model reads texts, for those who look over its shoulder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from lorafit.config import SpecialTokens
from lorafit.tasks.parts.control import read


@dataclass(frozen=True)
class Reader:
    """A tokenizer, and by what it reads.

    Attributes:
        tokenizer: The model's.
        max_length: Tokens at which inputs are cut; ``None``: never.
        special_tokens: What the name of a control token in a text is.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int | None = None
    special_tokens: SpecialTokens = "text"

    @property
    def cut_from(self) -> str:
        """The side on which too long inputs are cut, ``right`` or ``left``."""
        return str(getattr(self.tokenizer, "truncation_side", "right"))

    def cut(self, *texts: Sequence[str]) -> Any:
        """The encoding of texts, or of pairs of them, as long as the model reads them."""
        limit: dict[str, Any] = (
            {} if self.max_length is None else {"truncation": True, "max_length": self.max_length}
        )
        return self.read(*texts, **limit)

    def read(self, *texts: Sequence[str], **options: Any) -> Any:
        """The encoding of texts, or of pairs of them.

        Args:
            *texts: First texts, and second ones of pairs.
            **options: Of the tokenizer's call.
        """
        # verbose off: that a text is longer than the model reads is ours to say.
        return read(
            self.tokenizer, *texts, special_tokens=self.special_tokens, verbose=False, **options
        )
