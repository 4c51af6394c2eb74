"""The engine that answers: the model's own answers, with the adapter merged into a copy."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import lorafit
from lorafit.adapt import Adapters
from lorafit.engine import inference
from lorafit.engine.adapted import MergedLinear
from lorafit.engine.base import Engine
from lorafit.engine.eager import EagerEngine
from lorafit.engine.inference import Inference, answering_engine
from lorafit.errors import ConfigError
from lorafit.machine.memory import Memory
from lorafit.methods import methods
from lorafit.testing.subject import Subject, subject, tokenizer_for
from tests.conformance import test_tasks

CPU = torch.device("cpu")
ROWS = test_tasks.TestSequenceClassification().rows(6, seed=3, odd=True)


@pytest.fixture
def bert() -> Subject:
    task = test_tasks.TestSequenceClassification().made()
    return subject(task, "bert", tokenizer_for("bert"), ["eager"])


def engine_of(found: Subject, dtype: torch.dtype | None = None) -> Engine:
    tuned = found.tuned
    return tuned.inference.engine(tuned.model, tuned.task, tuned.tokenizer, CPU, dtype)


def logits(engine: Engine, found: Subject) -> torch.Tensor:
    tuned = found.tuned
    examples = list(tuned.task.encode(ROWS, tuned.tokenizer, tuned.max_length))
    return engine.logits(engine.collate(examples))


def assert_follows(found: Subject) -> None:
    """What answers now is what plain torch computes now."""
    tuned = found.tuned
    plain = EagerEngine(tuned.model, tuned.task, tuned.tokenizer, CPU)
    torch.testing.assert_close(
        logits(engine_of(found), found), logits(plain, found), rtol=1e-5, atol=1e-5
    )


def test_it_is_kept_while_the_model_is_what_it_was(bert: Subject) -> None:
    first = engine_of(bert)
    assert first.name == "fast"
    assert engine_of(bert) is first
    assert engine_of(bert, torch.bfloat16) is not first


def test_it_follows_every_change_of_the_model(bert: Subject) -> None:
    model: Any = bert.tuned.model
    layers: dict[str, Any] = dict(model.named_modules())
    adapters = bert.tuned.adapters
    assert_follows(bert)
    attention = "bert.encoder.layer.0.attention"
    with torch.no_grad():
        layers[f"{attention}.self.query"].lora_B["default"].weight.mul_(3)
        assert_follows(bert)
        layers[f"{attention}.output.dense"].base_layer.bias.add_(1)
        assert_follows(bert)
        layers[f"{attention}.output.LayerNorm"].weight = nn.Parameter(torch.rand(32) + 0.5)
        assert_follows(bert)
    layers[f"{attention}.self.value"].scaling["default"] = 5.0
    assert_follows(bert)
    model.classifier.weight = nn.Parameter(model.classifier.weight.detach() * 2)
    assert_follows(bert)
    adapters.merge()
    assert_follows(bert)
    adapters.unload()
    assert_follows(bert)


def test_a_hook_is_not_passed_over(bert: Subject) -> None:
    before = logits(engine_of(bert), bert)
    model: Any = bert.tuned.model
    layer = model.bert.encoder.layer[0].attention.output.LayerNorm
    handle = layer.register_forward_hook(lambda _module, _inputs, output: output * 2)
    assert_follows(bert)
    assert not torch.allclose(logits(engine_of(bert), bert), before, atol=1e-3)
    handle.remove()
    torch.testing.assert_close(logits(engine_of(bert), bert), before)


@pytest.mark.parametrize("name", sorted(methods))
def test_every_method_is_answered_as_plain_torch_does(name: str) -> None:
    task = test_tasks.TestSequenceClassification().made()
    found = subject(task, "bert", tokenizer_for("bert"), ["eager"])
    found.tuned.adapters.unload()
    config = methods[name].config_class()
    adapters = Adapters(found.tuned.model)
    generator = torch.Generator().manual_seed(2)
    adapters.add(config)
    with torch.no_grad():
        for parameter in adapters.trainable().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    found.tuned.adapters = adapters
    found.tuned.model.eval()
    for _ in range(2):
        assert_follows(found)
        with adapters.disabled():
            assert_follows(found)


def test_a_copy_has_no_engine_yet(bert: Subject) -> None:
    engine_of(bert)
    assert isinstance(pickle.loads(pickle.dumps(bert.tuned.inference)), Inference)
    twin = copy.deepcopy(bert.tuned)
    model: Any = twin.model
    with torch.no_grad():
        model.classifier.bias[0] += 1
    assert twin.predict(["good"]) != bert.tuned.predict(["good"])


def test_an_engine_that_answers_does_not_train(bert: Subject) -> None:
    tuned = bert.tuned
    examples = list(tuned.task.encode(ROWS, tuned.tokenizer, tuned.max_length))
    for family in ("bert", "gpt2"):
        found = subject(tuned.task, family, tokenizer_for(family), ["eager"])
        engine = engine_of(found)
        with pytest.raises(ValueError, match="was made to answer; it does not train"):
            engine.forward_backward(engine.collate(examples), 1.0)


def test_without_room_for_a_copy_plain_torch_answers(
    bert: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = bert.tuned
    full = Memory(total=1 << 20, available=1 << 10)
    monkeypatch.setattr(inference, "memory", lambda: full)
    engine = answering_engine(tuned.model, tuned.task, tuned.tokenizer, CPU)
    assert engine.name == "eager"


def test_weights_in_bfloat16_are_left_to_plain_torch(bert: Subject) -> None:
    nn.Module.to(bert.tuned.model, torch.bfloat16)
    assert engine_of(bert).name == "eager"
    assert engine_of(bert, torch.float32).name != "eager"


def test_bfloat16_is_near(bert: Subject) -> None:
    exact, near = logits(engine_of(bert), bert), logits(engine_of(bert, torch.bfloat16), bert)
    assert 0 < (near - exact).norm() < 5e-2 * exact.norm()


def test_a_type_that_is_none_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match='float32 or bfloat16, not in "int4"'):
        lorafit.load(tmp_path, dtype="int4")


def test_merging_follows_the_order_of_layers() -> None:
    layers = [nn.Linear(4, 4), nn.Linear(4, 4)]
    frozen = MergedLinear(layers, torch.float32)
    x = torch.randn(3, 4)
    expected = torch.cat([layer(x) for layer in layers], dim=1)
    torch.testing.assert_close(frozen.forward(x), expected.detach())
