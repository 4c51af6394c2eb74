"""lorafit: LoRA fine-tuning of Hugging Face models, configured by measurement.

>>> import lorafit
>>> run = lorafit.train("distilbert-base-uncased", "rotten_tomatoes")  # doctest: +SKIP

The names below are imported on first use: ``import lorafit`` itself loads nothing, so that
the command line answers at once.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as of `typing`, which is not loaded for it
if TYPE_CHECKING:
    from typing import Any

    from lorafit import peft
    from lorafit.adapt import Adapters
    from lorafit.adapt.weighted import add_weighted
    from lorafit.api import (
        compare,
        demo,
        evaluate,
        load,
        merge,
        plan,
        plan_comparison,
        predict,
        preview,
        shrink,
        train,
    )
    from lorafit.config import Config
    from lorafit.errors import (
        AdapterError,
        ConfigError,
        DataError,
        DivergenceError,
        HandoffError,
        LorafitError,
        ModelError,
        RunError,
        TargetError,
        TrainingError,
    )
    from lorafit.methods.lora import LoraConfig
    from lorafit.pipeline.tuned import Tuned
    from lorafit.result import Run
    from lorafit.trainer import Trainer, TrainerMixin

__version__ = "0.1.0"

_HOMES = {
    "Adapters": "lorafit.adapt",
    "Config": "lorafit.config",
    "LoraConfig": "lorafit.methods.lora",
    "Run": "lorafit.result",
    "add_weighted": "lorafit.adapt.weighted",
    **dict.fromkeys(
        (
            *("compare", "demo", "evaluate", "load", "merge", "plan", "predict", "preview"),
            *("plan_comparison", "shrink", "train"),
        ),
        "lorafit.api",
    ),
    "Trainer": "lorafit.trainer",
    "TrainerMixin": "lorafit.trainer",
    "Tuned": "lorafit.pipeline.tuned",
    **dict.fromkeys(
        (
            *("AdapterError", "ConfigError", "DataError", "DivergenceError", "HandoffError"),
            *("LorafitError", "ModelError", "RunError", "TargetError", "TrainingError"),
        ),
        "lorafit.errors",
    ),
}

__all__ = [
    "AdapterError",
    "Adapters",
    "Config",
    "ConfigError",
    "DataError",
    "DivergenceError",
    "HandoffError",
    "LoraConfig",
    "LorafitError",
    "ModelError",
    "Run",
    "RunError",
    "TargetError",
    "Trainer",
    "TrainerMixin",
    "TrainingError",
    "Tuned",
    "add_weighted",
    "compare",
    "demo",
    "evaluate",
    "load",
    "merge",
    "peft",
    "plan",
    "plan_comparison",
    "predict",
    "preview",
    "shrink",
    "train",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name == "peft":
        return importlib.import_module("lorafit.peft")
    if name not in _HOMES:
        raise AttributeError(f'module "lorafit" has no attribute "{name}"')
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, not the modules that happen to be loaded."""
    return sorted([*__all__, "__doc__", "__version__"])
