"""The tiny models of `lorafit.testing.tiny`, which method authors use too."""

from __future__ import annotations

from lorafit.testing.tiny import (
    ARCHITECTURES,
    CLASSIFIERS,
    FAMILIES,
    VOCAB,
    WRITERS,
    classifier,
    inputs,
    language_model,
    logits,
)
from lorafit.testing.tiny import CONFIGS as _CONFIGS

__all__ = [
    "ARCHITECTURES",
    "CLASSIFIERS",
    "FAMILIES",
    "VOCAB",
    "WRITERS",
    "_CONFIGS",
    "classifier",
    "inputs",
    "language_model",
    "logits",
]
