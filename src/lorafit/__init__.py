"""lorafit: LoRA fine-tuning of Hugging Face models, configured by measurement.

>>> import lorafit
>>> run = lorafit.train("distilbert-base-uncased", "rotten_tomatoes")  # doctest: +SKIP

The names below are imported on first use: ``import lorafit`` itself loads nothing, so that
the command line answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorafit.adapt import Adapters
    from lorafit.api import (
        compare,
        demo,
        evaluate,
        merge,
        plan,
        predict,
        preview,
        shrink,
        train,
    )
    from lorafit.config import Config
    from lorafit.errors import LorafitError
    from lorafit.methods.lora import LoraConfig
    from lorafit.run import Run
    from lorafit.tuned import Tuned, load
    from lorafit.weighted import add_weighted

__version__ = "0.1.0"

_HOMES = {
    "Adapters": "lorafit.adapt",
    "Config": "lorafit.config",
    "LoraConfig": "lorafit.methods.lora",
    "LorafitError": "lorafit.errors",
    "Run": "lorafit.run",
    "add_weighted": "lorafit.weighted",
    **dict.fromkeys(
        (
            *("compare", "demo", "evaluate", "merge", "plan", "predict", "preview", "shrink"),
            "train",
        ),
        "lorafit.api",
    ),
    **dict.fromkeys(("Tuned", "load"), "lorafit.tuned"),
}

__all__ = [
    "Adapters",
    "Config",
    "LoraConfig",
    "LorafitError",
    "Run",
    "Tuned",
    "add_weighted",
    "compare",
    "demo",
    "evaluate",
    "load",
    "merge",
    "plan",
    "predict",
    "preview",
    "shrink",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f'module "lorafit" has no attribute "{name}"')
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
