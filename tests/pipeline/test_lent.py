"""A model that is passed as an object comes back as it came, whatever the call and its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import lorafit
from lorafit.pipeline import handoff
from lorafit.pipeline.lent import lent
from lorafit.training import loop
from tests import tiny_text

GIVEN: dict[str, Any] = {
    "max_steps": 2, "batch_size": 8, "bf16": False, "strategy": "none", "progress": False,
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Any:
    base = tiny_text.save_base(tmp_path / "base", "bert")
    found = hf.AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    found.bert.embeddings.requires_grad_(False)
    return found.train()


def state(model: Any) -> dict[str, Any]:
    """Everything that a caller could see of a model."""
    return {
        "tensors": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "flags": {name: p.requires_grad for name, p in model.named_parameters()},
        "gradients": [name for name, p in model.named_parameters() if p.grad is not None],
        "modules": {name: id(module) for name, module in model.named_modules()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "hooks": sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()),
        "config": model.config.to_dict(),
    }


def assert_same(found: dict[str, Any], before: dict[str, Any]) -> None:
    tensors, expected = found.pop("tensors"), before.pop("tensors")
    assert found == before
    assert list(tensors) == list(expected)
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def tokenizer(tmp_path: Path) -> Any:
    return hf.AutoTokenizer.from_pretrained(tmp_path / "base")


@pytest.mark.parametrize("method", ["lora", "bitfit", "prompt"])
@pytest.mark.parametrize("call", [lorafit.plan, lorafit.preview])
def test_looking_leaves_nothing_behind(
    model: Any, tmp_path: Path, call: Callable[..., Any], method: str
) -> None:
    before = state(model)
    rows, own = tiny_text.rows(24), tokenizer(tmp_path)
    call(model, rows, tokenizer=own, method=method, **GIVEN)
    assert_same(state(model), before)


def stopping(*args: Any, **more: Any) -> Any:
    raise KeyboardInterrupt


def failing(*args: Any, **more: Any) -> Any:
    raise ValueError("of another kind")


@pytest.mark.parametrize(
    ("place", "name", "instead", "error"),
    [
        (loop, "Stepper", stopping, KeyboardInterrupt),
        (handoff, "check_handoff", failing, ValueError),
        (handoff, "sampled_logits", failing, ValueError),
        (None, "", None, None),
    ],
)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_leaves_nothing_behind_however_it_ends(
    model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: Any,
    name: str,
    instead: Any,
    error: Any,
    method: str,
) -> None:
    before, own = state(model), tokenizer(tmp_path)
    given = GIVEN | {"method": method, "run.dir": str(tmp_path / "runs")}
    if place is None:
        lorafit.train(model, tiny_text.rows(24), tokenizer=own, **given)
    else:
        monkeypatch.setattr(place, name, instead)
        with pytest.raises(error):
            lorafit.train(model, tiny_text.rows(24), tokenizer=own, **given)
    assert_same(state(model), before)


def test_a_shrunk_adapter_leaves_the_model_alone(model: Any, tmp_path: Path) -> None:
    own, rows = tokenizer(tmp_path), tiny_text.rows(24)
    given = GIVEN | {"run.dir": str(tmp_path / "runs"), "r": 4}
    run = lorafit.train(model, rows, tokenizer=own, **given)
    before = state(model)
    lorafit.shrink(
        run, 2, rows, tmp_path / "small", model=model, tokenizer=own, retrain_steps=1,
        progress=False, batch_size=8, bf16=False,
    )  # fmt: skip
    assert_same(state(model), before)


class Numbers:
    """A tensor on a device, as a build of torch for the CPU has none."""

    def __init__(self, device: str, grad: Numbers | None = None) -> None:
        self.device, self.requires_grad, self._grad = torch.device(device), True, grad

    @property
    def data(self) -> Numbers:
        return self

    @data.setter
    def data(self, other: Numbers) -> None:
        self.device = other.device

    @property
    def grad(self) -> Numbers | None:
        return self._grad

    @grad.setter
    def grad(self, grad: Numbers | None) -> None:
        if grad is not None and grad.device != self.device:
            raise RuntimeError("assigned grad has data located on a different device")
        self._grad = grad

    def to(self, device: torch.device) -> Numbers:
        return Numbers(str(device))

    def requires_grad_(self, wanted: bool) -> None:
        self.requires_grad = wanted


@pytest.mark.parametrize("moved", [("weight",), ("bias",), ("weight", "bias")])
@pytest.mark.parametrize("home", ["cpu", "cuda:1"])
@pytest.mark.parametrize("gradients", ["kept", "dropped"])
def test_what_was_moved_within_its_parameters_goes_home(
    model: Any, moved: tuple[str, ...], home: str, gradients: str
) -> None:
    table = model.classifier._parameters
    own = {name: Numbers(home, Numbers(home)) for name in ("weight", "bias")}
    kept = {name: number.grad for name, number in own.items()}
    numbers = [*own.values(), *(number.grad for number in own.values() if number.grad)]
    table.update(own)
    with lent(model):
        for name in moved:
            gradient = own[name].grad
            own[name].device = torch.device("cuda:0")
            if gradient is not None:
                gradient.device = torch.device("cuda:0")
            if gradients == "dropped":
                own[name].grad = None
    assert {name: table[name] for name in own} == own
    assert {name: number.grad for name, number in own.items()} == kept
    assert len(numbers) == 4
    assert {number.device for number in numbers} == {torch.device(home)}
