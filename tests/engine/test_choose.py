from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from lorafit.engine import choose
from lorafit.engine.decoder.layout import find_layout as decoder_layout
from lorafit.engine.encoder.support import find_layout as encoder_layout
from lorafit.engine.support import Unsupported
from lorafit.errors import ConfigError
from tests import tiny
from tests.engine import helpers


def chosen(setting: Any, adapted: Any, **kwargs: Any):
    task: Any = helpers.PlainTask()
    tokenizer: Any = helpers.PlainTokenizer()
    return choose.choose_engine(setting, adapted, task, tokenizer, choose.Computing(**kwargs))


def test_auto_takes_the_fast_engine_and_says_so(caplog):
    with caplog.at_level(logging.INFO):
        engine = chosen("auto", helpers.adapt(helpers.model("bert"), ["query"]))
    assert engine.name == "fast"
    assert "BertForSequenceClassification" in engine.reason
    assert "engine: fast" in caplog.text


def test_auto_falls_back_and_says_why(caplog):
    with caplog.at_level(logging.INFO):
        engine = chosen("auto", helpers.adapt(helpers.model("bert"), ["query"], use_dora=True))
    assert engine.name == "generic"
    assert "DoRA" in engine.reason
    assert "engine: generic" in caplog.text


def test_fast_that_cannot_run_is_an_error():
    with pytest.raises(ConfigError, match=r"DoRA.*eager"):
        chosen("fast", helpers.adapt(helpers.model("bert"), ["query"], use_dora=True))


def test_eager_is_eager():
    assert chosen("eager", helpers.adapt(helpers.model("bert"), ["query"])).name == "eager"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_model_that_computes_something_else_is_noticed(dtype):
    adapted = helpers.adapt(helpers.model("bert"), ["query"])
    layer = adapted.bert.encoder.layer[1]
    original = layer.forward
    layer.forward = lambda *args, **kwargs: original(*args, **kwargs) * 1.5
    engine = chosen("auto", adapted, dtype=dtype)
    assert engine.name == "generic"
    assert "differ" in engine.reason


@pytest.mark.parametrize("device", ["cuda", "mps", "meta"])
@pytest.mark.parametrize("family", ["roberta", "llama"])
def test_other_device_gets_the_eager_engine(family, device, monkeypatch):
    adapted, moved = tiny.classifier(family).requires_grad_(False), []

    def to(where):
        moved.append(where)
        return adapted

    monkeypatch.setattr(adapted, "to", to)
    engine = chosen("auto", adapted, device=torch.device(device))
    assert engine.name == "eager"
    assert f"there is {device}" in engine.reason
    assert moved == [torch.device(device)]
    with pytest.raises(ConfigError, match=f"there is {device}.*eager"):
        chosen("fast", adapted, device=torch.device(device))


def test_model_on_another_device_is_not_for_the_fast_engine():
    for find in (encoder_layout, decoder_layout):
        family = "roberta" if find is encoder_layout else "llama"
        moved: Any = tiny.classifier(family).requires_grad_(False)
        moved.to("meta")
        with pytest.raises(Unsupported, match="it is on meta"):
            find(moved)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_llama_like_models_get_the_fast_engine(family, dtype):
    for made in (tiny.classifier(family), tiny.language_model(family)):
        assert chosen("auto", made.requires_grad_(False), dtype=dtype).name == "fast"


def test_a_classifier_whose_padding_is_not_token_zero_gets_the_fast_engine():
    """It reads the last token that is not padding, by the number of that token."""
    made = tiny.classifier("llama").requires_grad_(False)
    made.config.pad_token_id = 2
    assert chosen("auto", made, dtype=torch.float32).name == "fast"


@pytest.mark.parametrize("family", ["gpt2", "t5"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_families_get_the_generic_engine(family, dtype):
    adapted = tiny.classifier(family).requires_grad_(False)
    assert chosen("auto", adapted, dtype=dtype).name == "generic"


@pytest.mark.parametrize("family", helpers.ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_family_agrees_with_itself(family, dtype):
    adapted = helpers.adapt(helpers.model(family, dropout=0.1), helpers.ALL[family])
    assert chosen("auto", adapted, dtype=dtype).name == "fast"


def test_choice_leaves_no_trace():
    adapted = helpers.adapt(helpers.model("bert", dropout=0.1), ["query"]).train()
    state = torch.get_rng_state()
    chosen("auto", adapted)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in adapted.modules())
    assert all(parameter.grad is None for parameter in adapted.parameters())


def test_encoder_decoders_are_compared_too():
    made: Any = tiny.classifier("t5").requires_grad_(False)
    block = made.transformer.encoder.block[0].layer[0].SelfAttention.o
    original = block.forward
    block.forward = lambda x: original(x) if torch.is_autocast_enabled("cpu") else original(x) * 3
    assert chosen("auto", made, dtype=torch.bfloat16).name == "eager"
