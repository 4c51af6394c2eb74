from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lorafit.adapt import Adapters
from lorafit.errors import AdapterError, ConfigError, TargetError
from lorafit.methods.bottleneck import BottleneckConfig
from lorafit.methods.ia3 import IA3Config
from lorafit.methods.prompt import PromptConfig
from tests import tiny, tiny_text

IA3_TARGETS = {
    "bert": {"key", "value", "output.dense"},
    "distilbert": {"k_lin", "v_lin", "lin2"},
    "gpt2": {"c_attn", "c_proj"},
    "llama": {"k_proj", "v_proj", "down_proj"},
    "t5": {"k", "v", "wo"},
}


@pytest.mark.parametrize("family", IA3_TARGETS)
def test_ia3_finds_keys_values_and_mlp_outputs(family: str) -> None:
    adapters = Adapters(tiny.classifier(family))
    sites = adapters.add(IA3Config())
    names = {s.path.split(".", -1)[-1] for s in sites}
    assert names == {name.rpartition(".")[2] for name in IA3_TARGETS[family]}
    assert {s.role for s in sites} == {"attention", "mlp"}
    inputs = adapters.configs["default"].model_dump()["feedforward_modules"]
    assert inputs == {s.path for s in sites if s.role == "mlp"}
    assert not [path for path in inputs if "attn" in path or "attention" in path.lower()]


def test_several_ia3_adapters_multiply_live_and_merged() -> None:
    model = tiny.classifier("bert")
    adapters = Adapters(model)
    g = torch.Generator().manual_seed(0)
    for name in ("a", "b"):
        adapters.add(IA3Config(), name)
        with torch.no_grad():
            for parameter in adapters.parameters_of(name).values():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=g))
    adapters.set(["a", "b"])
    live = tiny.logits(model, "bert")
    adapters.merge(["a"])
    adapters.merge(["b"])
    torch.testing.assert_close(tiny.logits(model, "bert"), live, rtol=1e-5, atol=1e-5)
    adapters.unload()
    assert torch.equal(tiny.logits(model, "bert"), tiny.logits(tiny.classifier("bert"), "bert"))


def test_ia3_targets_that_are_not_there_are_an_error() -> None:
    with pytest.raises(TargetError, match=r"no layer of .* is called"):
        Adapters(tiny.classifier("bert")).add(IA3Config(target_modules={"keyy"}))
    with pytest.raises(ConfigError, match="none of the targets"):
        Adapters(tiny.classifier("bert")).add(
            IA3Config(target_modules={"key"}, feedforward_modules={"value"})
        )


PLACES = {
    "bert": ["attention.output.dense", "output.dense"],
    "distilbert": ["attention.out_lin", "ffn.lin2"],
    "gpt2": ["attn.c_proj", "mlp.c_proj"],
    "llama": ["self_attn.o_proj", "mlp.down_proj"],
}


@pytest.mark.parametrize("family", PLACES)
def test_houlsby_has_two_adapters_a_block_and_pfeiffer_one(family: str) -> None:
    houlsby, pfeiffer = (
        BottleneckConfig(placement="houlsby"),
        BottleneckConfig(placement="pfeiffer"),
    )
    for config, places in ((houlsby, PLACES[family]), (pfeiffer, PLACES[family][1:])):
        sites = Adapters(tiny.classifier(family)).add(config)
        assert len(sites) == 3 * len(places)
        assert all(any(s.path.endswith(place) for place in places) for s in sites)


def test_t5_has_an_adapter_after_each_of_its_five_sublayers() -> None:
    sites = Adapters(tiny.classifier("t5")).add(BottleneckConfig())
    assert len(sites) == 2 * 2 + 2 * 3
    assert {s.name for s in sites} == {"o", "wo"}


def test_a_bottleneck_adapter_computes_its_formula() -> None:
    adapters = Adapters(tiny.classifier("bert"))
    [site, *_] = adapters.add(BottleneckConfig(non_linearity="relu"))
    layer: Any = adapters.model.get_submodule(site.path)
    with torch.no_grad():
        for parameter in adapters.trainable().values():
            parameter.copy_(torch.randn(parameter.shape))
        x = torch.randn(5, site.d_in)
        h = layer.base_layer(x)
        down, up = layer.adapter_down["default"], layer.adapter_up["default"]
        expected = h + torch.relu(h @ down.weight.T + down.bias) @ up.weight.T + up.bias
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("config", [IA3Config(), BottleneckConfig()])
def test_a_model_without_blocks_is_refused(config: IA3Config | BottleneckConfig) -> None:
    with pytest.raises(ConfigError, match="finds no blocks"):
        Adapters(nn.Sequential(nn.Linear(3, 3))).add(config)


def prompted(model: nn.Module, n: int = 4) -> Adapters:
    adapters = Adapters(model)
    adapters.add(PromptConfig(num_virtual_tokens=n))
    return adapters


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "roberta"])
def test_padding_changes_nothing_behind_a_prompt(family: str) -> None:
    model: Any = prompted(tiny.classifier(family)).model
    pad = model.config.pad_token_id
    ids = torch.randint(3, tiny.VOCAB, (1, 6), generator=torch.Generator().manual_seed(0))
    padded = torch.cat([ids, torch.full((1, 3), pad)], dim=1)
    mask = torch.tensor([[1] * 6 + [0] * 3])
    with torch.no_grad():
        alone = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        torch.testing.assert_close(
            model(input_ids=padded, attention_mask=mask).logits, alone, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_language_model_keeps_its_shapes_and_generates_as_it_computes(family: str) -> None:
    model: Any = prompted(tiny.language_model(family)).model
    ids = tiny.inputs(family)["input_ids"][:1]
    output = model(input_ids=ids, labels=ids)
    assert output.logits.shape == (1, 7, tiny.VOCAB)
    # The labels of the virtual positions do not count: only the first token, which the last
    # virtual one predicts, comes on top of the usual losses.
    usual = nn.functional.cross_entropy(output.logits[0, :-1], ids[0, 1:], reduction="sum")
    assert output.loss.item() * 7 > usual.item()
    settings: dict[str, Any] = {
        "max_new_tokens": 5,
        "do_sample": False,
        "pad_token_id": 0,
        "eos_token_id": None,
    }
    generated = model.generate(ids, use_cache=False, **settings)
    plain = ids
    with torch.no_grad():
        for _ in range(5):
            following = model(input_ids=plain).logits[:, -1].argmax(-1, keepdim=True)
            plain = torch.cat([plain, following], dim=1)
    assert torch.equal(generated, plain)
    with pytest.raises(AdapterError, match="use_cache=False"):
        model.generate(ids, **settings)


def test_a_prompt_starts_from_a_text(tmp_path: Path) -> None:
    tiny_text.bert_tokenizer(tmp_path).save_pretrained(tmp_path)
    adapters = Adapters(tiny.classifier("bert"))
    config = PromptConfig(
        num_virtual_tokens=5,
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text="good film",
        tokenizer_name_or_path=str(tmp_path),
    )
    adapters.add(config)
    [prompt] = adapters.trainable().values()
    assert prompt.shape == (5, 32)
    assert torch.equal(prompt[0], prompt[2])
    assert torch.equal(prompt[1], prompt[3])
    model: Any = adapters.model
    table = model.get_input_embeddings().weight
    assert all(any(torch.equal(row, entry) for entry in table) for row in prompt)
    with pytest.raises(ValueError, match="belong together"):
        PromptConfig(prompt_tuning_init="TEXT")


def test_a_prompt_is_refused_where_it_does_not_fit() -> None:
    with pytest.raises(ConfigError, match="table of input embeddings"):
        Adapters(nn.Sequential(nn.Linear(3, 3))).add(PromptConfig())
    model = prompted(tiny.classifier("bert")).model
    with pytest.raises(AdapterError, match="called with input_ids"):
        model(inputs_embeds=torch.zeros(1, 2, 32))


def test_unloading_a_prompt_leaves_no_hooks() -> None:
    model = tiny.classifier("bert")
    adapters = prompted(model)
    assert model._forward_pre_hooks
    adapters.unload()
    assert not model._forward_pre_hooks
    assert not model._forward_hooks
