"""The tiny models of `lorafit.testing.tiny`, which method authors use too."""

from __future__ import annotations

from lorafit.testing.tiny import (
    ARCHITECTURES,
    CLASSIFIERS,
    CONFIGS,
    FAMILIES,
    VOCAB,
    WRITERS,
    classifier,
    inputs,
    language_model,
    logits,
)

__all__ = [
    "ARCHITECTURES",
    "CLASSIFIERS",
    "CONFIGS",
    "FAMILIES",
    "VOCAB",
    "WRITERS",
    "classifier",
    "inputs",
    "language_model",
    "logits",
]
