"""The model card: what the adapter is, how it was made, how good it is, how to load it.

Only facts that were measured or set are printed. The licence is left out unless it is known;
Hub ids go into the metadata only if they are Hub ids.
"""

from __future__ import annotations

from lorafit.export.card.card import Card
from lorafit.export.card.metadata import metadata
from lorafit.export.card.page import FILE, render, write
from lorafit.export.card.snippets import lorafit_snippet, peft_snippet

__all__ = ["FILE", "Card", "lorafit_snippet", "metadata", "peft_snippet", "render", "write"]
