"""What is asked of runs that train more than layers: new tokens, experts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import DatasetDict
from safetensors.torch import load_file

import lorafit
from lorafit.training.stepper import Stepper
from tests import tiny_text

SETTINGS: dict[str, Any] = {
    "max_steps": 3,
    "learning_rate": 0.05,
    "per_device_train_batch_size": 8,
    "strategy": "none",
    "bf16": False,
    "progress": False,
    "max_new_tokens": 4,
    "r": 2,
}
"""Of a run that takes a second."""


def prompts(train: int = 24, validation: int = 6, test: int = 6) -> DatasetDict:
    """Prompts with answers, so many in each split."""
    sizes = {"train": train, "validation": validation, "test": test}
    return DatasetDict({n: tiny_text.prompts(k, i) for i, (n, k) in enumerate(sizes.items())})


@torch.no_grad()
def logits(model: Any, inputs: Any) -> torch.Tensor:
    """What a model computes of tokens, in evaluation mode."""
    found: torch.Tensor = model.eval()(**inputs).logits
    return found


def stopped_and_resumed(
    base: Path, data: DatasetDict, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> lorafit.Run:
    """Stops a run in its fifth step and goes on; its adapter has to be that of an unstopped one.

    Args:
        base: The model.
        data: Its data.
        options: With ``runs_dir``; steps are set here.
        monkeypatch: Stops it.
    """
    options = options | {"max_steps": 6, "eval_steps": 2}
    whole = lorafit.train(base, data, name="whole", **options)
    take = Stepper.take

    def stopping(self: Stepper, step: Any) -> Any:
        if step.number == 5:
            raise MemoryError("stopped")
        return take(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "take", stopping)
        with pytest.raises(MemoryError):
            lorafit.train(base, data, name="stopped", **options)
    folder = Path(options["runs_dir"]) / "stopped"
    resumed = lorafit.train(resume=folder, data=data, progress=False)
    one, other = (load_file(r.adapter / "adapter_model.safetensors") for r in (whole, resumed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    return resumed
