"""Checks on what the backward pass left behind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch.nn import Parameter

from lorafit.errors import DivergenceError, TrainingError
from lorafit.training.steps import Step

CHECKED_STEPS = 2
"""LoRA's ``A`` has no gradient in the first step, because ``B`` is still zero."""


class GradientCheck:
    """Makes sure within the first two steps that every trainable parameter is being trained.

    Args:
        trainable: Parameters by name.
    """

    def __init__(self, trainable: Mapping[str, Parameter]) -> None:
        self._trainable = trainable
        self._zero = set(trainable)
        self._seen = 0

    def __call__(self) -> None:
        """Looks at the gradients of one step, before they are clipped and applied.

        Raises:
            TrainingError: A parameter has no gradient, or none but zeros after two steps.
        """
        if self._seen == CHECKED_STEPS:
            return
        self._seen += 1
        missing = [name for name, p in self._trainable.items() if p.grad is None]
        if missing:
            raise TrainingError(
                f"{_names(missing)} of {len(self._trainable)} trainable parameters got no gradient:"
                " the loss does not depend on them. Leave these modules out of target_modules and "
                "modules_to_save, or report this if you did not choose them"
            )
        for name in sorted(self._zero):
            gradient = self._trainable[name].grad
            if gradient is not None and bool(gradient.any()):
                self._zero.remove(name)
        if self._seen == CHECKED_STEPS and self._zero:
            raise TrainingError(
                f"{_names(sorted(self._zero))} of {len(self._trainable)} trainable parameters got "
                f"only zero gradients in the first {CHECKED_STEPS} steps: they would never change. "
                "Their output does not reach the loss, or is multiplied by zero"
            )


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more + f" ({len(names)})"


def clip(parameters: Sequence[Parameter], max_norm: float | None) -> torch.Tensor:
    """Scales the gradients down to a total 2-norm of ``max_norm`` and returns the norm before.

    Args:
        parameters: The trainable parameters.
        max_norm: ``None``: only measure.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if max_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def check_finite(
    losses: Sequence[float],
    norm: float,
    step: Step,
    learning_rate: float,
    peak: float,
) -> None:
    """Stops a diverged run before its weights are spoiled.

    Args:
        losses: Summed loss of each micro batch.
        norm: Norm of the step's gradient.
        step: The step, with the example indices of each micro batch.
        learning_rate: Rate of the step.
        peak: ``train.learning_rate``.

    Raises:
        DivergenceError: A loss or the norm is NaN or infinite.
    """
    bad = [i for i, loss in enumerate(losses) if not math.isfinite(loss)]
    if not bad and math.isfinite(norm):
        return
    what = f"the loss is {losses[bad[0]]}" if bad else f"the norm of the gradient is {norm}"
    chosen = bad or range(len(step.batches))
    examples = [index for i in chosen for index in step.batches[i]]
    raise DivergenceError(
        f"{what} at step {step.number} (learning rate {learning_rate:.3g}), on training examples "
        f"{listed(examples)}. {advice(peak)}"
    )


def listed(examples: Sequence[int], most: int = 64) -> str:
    """Example indices as text, at most ``most`` of them."""
    text = ", ".join(str(index) for index in examples[:most])
    return text + (f" and {len(examples) - most} more" if len(examples) > most else "")


def advice(peak: float) -> str:
    """What to do about divergence, ``peak`` being ``train.learning_rate``."""
    return (
        f"Train again with a lower train.learning_rate (try {peak / 4:.2g}); if it "
        "happens at the first steps whatever the rate, look at these examples and at bf16"
    )
