"""Memory runs out in a step: it is taken again in smaller pieces, with the same effective batch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import lorafit
from lorafit.engine.eager import EagerEngine
from lorafit.engine.halving import is_out_of_memory
from lorafit.errors import TrainingError
from lorafit.training import checkpoint
from lorafit.training.parts import in_parts
from tests import tiny_text

Trained = Callable[..., lorafit.Run]
LIMIT = 3
"""Examples that have room."""


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    tiny_text.save_base(
        tmp_path / "model", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )

    def train(name: str, **settings: Any) -> lorafit.Run:
        given: dict[str, Any] = {
            "r": 2,
            "lora_dropout": 0.0,
            "max_steps": 6,
            "per_device_train_batch_size": 8,
            "max_length": 16,
            "learning_rate": 1e-3,
            "strategy": "none",
            "engine": "eager",
            "bf16": False,
            "eval_steps": 2,
            "progress": False,
        }
        model, rows = str(tmp_path / "model"), tiny_text.rows(60)
        runs = str(tmp_path / "runs")
        return lorafit.train(model, rows, name=name, runs_dir=runs, **given | settings)

    return train


class Small:
    """An engine's device that has room for a few examples, from a call on."""

    def __init__(self, patch: pytest.MonkeyPatch, most: int, after: int = 0) -> None:
        self.sizes: list[int] = []
        self.failures = 0
        whole = EagerEngine.forward_backward

        def small(engine: EagerEngine, batch: Any, scale: float) -> Any:
            n = len(batch["input_ids"])
            torch.rand(())  # dropout, until memory ran out
            if n > most and len(self.sizes) >= after:
                self.failures += 1
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            self.sizes.append(n)
            return whole(engine, batch, scale)

        patch.setattr(EagerEngine, "forward_backward", small)


def weights(run: lorafit.Run) -> dict[str, torch.Tensor]:
    return load_file(run.adapter / "adapter_model.safetensors")


def test_the_step_is_taken_again_in_halves_with_the_same_effective_batch(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # AdamW makes whole steps of the rounding of gradients next to zero: not with this epsilon.
    steady: dict[str, Any] = {"logging_steps": 1, "adam_epsilon": 1e-2}
    whole = trained("whole", **steady)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "lorafit"):
        device = Small(patch, LIMIT, after=2)
        run = trained("small", **steady)
    assert device.failures == 2  # eight, four; two have room
    assert device.sizes[:2] == [8, 8]
    assert set(device.sizes[2:]) <= {2, 1}
    said = [record.getMessage() for record in caplog.records if "memory" in record.getMessage()]
    assert len(said) == 2
    assert "micro batches of 2 examples" in said[1]
    for one, other in zip(run.metrics, whole.metrics, strict=True):
        for key in {"loss", "grad_norm"} & set(other):
            assert one[key] == pytest.approx(other[key], rel=1e-5)
    last = checkpoint.latest(run.checkpoints)
    assert last is not None
    assert last.state["parts"] == 4


def test_a_resumed_run_keeps_to_what_was_written_down_and_gets_the_same_bits(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        Small(patch, LIMIT)
        whole = weights(trained("whole"))

    class Stop:
        def __getattr__(self, name: str) -> Any:
            return lambda *args, **keywords: None

        def step(self, update: Any) -> None:
            if update.step == 5:
                raise RuntimeError("pulled the plug")

    with monkeypatch.context() as patch:
        Small(patch, LIMIT)
        with pytest.raises(RuntimeError, match="plug"):
            trained("stopped", progress=Stop())
    # Resumed where there is room for all: the pieces are those that were written down.
    with monkeypatch.context() as patch:
        device = Small(patch, 1_000)
        run = lorafit.train(
            resume=tmp_path / "runs" / "stopped", data=tiny_text.rows(60), progress=False
        )
    assert max(device.sizes) <= LIMIT
    for name, tensor in weights(run).items():
        assert torch.equal(tensor, whole[name])


def test_no_room_for_one_example_is_a_clear_error(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    Small(monkeypatch, 0)
    with pytest.raises(TrainingError, match="one example at a time"):
        trained("none")


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert is_out_of_memory(
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
    )


@pytest.mark.parametrize(("n", "parts"), [(8, 1), (8, 2), (7, 2), (3, 8), (1, 4)])
def test_parts_have_all_examples_in_their_order(n: int, parts: int) -> None:
    found = in_parts(list(range(n)), parts)
    assert [index for part in found for index in part] == list(range(n))
    assert len(found) <= parts
    assert max(map(len, found)) - min(map(len, found)) <= max(map(len, found)) - 1
