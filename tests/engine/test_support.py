"""The fast engine refuses what it does not compute, and says why."""

from __future__ import annotations

import re

import pytest
import torch
import transformers as hf
from torch import nn

from lorafit.engine.encoder.support import unsupported
from tests.engine import helpers


def dora():
    return helpers.adapt(helpers.model("bert"), ["query"], use_dora=True)


def lora_bias():
    return helpers.adapt(helpers.model("bert"), ["query"], lora_bias=True)


def trained_biases():
    return helpers.adapt(helpers.model("bert"), ["query"], bias="lora_only")


def adapted_embeddings():
    return helpers.adapt(helpers.model("bert"), ["word_embeddings"])


def frozen_adapted_embeddings():
    adapted = helpers.adapt(helpers.model("bert"), ["word_embeddings", "query"])
    for name, parameter in adapted.named_parameters():
        if "embedding" in name:
            parameter.requires_grad_(False)
    return adapted


def trained_norm():
    return helpers.adapt(helpers.model("bert"), ["query"], modules_to_save=["LayerNorm"])


def full_fine_tuning():
    return helpers.model("bert")


def odd_activation():
    return helpers.model("bert", hidden_act="quick_gelu")


def decoder():
    return helpers.model("bert", is_decoder=True)


def wants_attentions():
    return helpers.model("bert", output_attentions=True)


def checkpointing():
    made = helpers.model("bert").requires_grad_(False)
    made.activation_checkpointing_enable()
    return made


def hooked():
    made = helpers.model("bert").requires_grad_(False)
    made.bert.encoder.layer[0].output.dense.register_forward_hook(lambda *_: None)
    return made


def other_linear():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    made = helpers.model("bert")
    made.bert.encoder.layer[1].output.dense = Doubled(52, 36)
    return made.requires_grad_(False)


def on_another_device():
    with torch.device("meta"):
        return helpers.model("bert").requires_grad_(False)


def own_class():
    class BertForSequenceClassification(hf.BertForSequenceClassification):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)

    return BertForSequenceClassification(helpers.config("bert")).requires_grad_(False)


def other_family():
    return hf.GPT2ForSequenceClassification(hf.GPT2Config(n_embd=8, n_layer=1, n_head=1))


REASONS = {
    dora: "plain LoRA",
    lora_bias: "bias",
    trained_biases: "bias is trained",
    adapted_embeddings: "embedding",
    frozen_adapted_embeddings: "an embedding is adapted",
    trained_norm: "normalization is a ModulesToSaveWrapper",
    full_fine_tuning: "is trained; only LoRA factors",
    odd_activation: "quick_gelu.*gelu_new",
    decoder: "decoder",
    wants_attentions: "output_attentions",
    checkpointing: "checkpointing",
    hooked: "hooks",
    other_linear: "Doubled",
    on_another_device: "meta",
    own_class: "no fast engine for BertForSequenceClassification",
    other_family: "no fast engine for GPT2",
}


@pytest.mark.parametrize("make", REASONS, ids=lambda make: make.__name__)
def test_what_cannot_run_is_refused_with_the_reason(make):
    reason = unsupported(make())
    assert reason is not None
    assert re.search(REASONS[make], reason), reason


@pytest.mark.parametrize("family", helpers.ALL)
def test_plain_lora_on_any_linear_layer_is_supported(family):
    assert unsupported(helpers.adapt(helpers.model(family), helpers.ALL[family])) is None
