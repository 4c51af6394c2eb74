"""transformers' Trainer on lorafit's engines: change the import line of an existing script.

``from lorafit import Trainer`` instead of ``from transformers import Trainer``. The loop,
optimizer, callbacks, logs, checkpoints and metrics are the parent's; only the forward and
backward pass of a batch is ours, wherever it can be shown to be the same (see `packed`).
"""

from lorafit.trainer.trainer import Trainer, TrainerMixin

__all__ = ["Trainer", "TrainerMixin"]
