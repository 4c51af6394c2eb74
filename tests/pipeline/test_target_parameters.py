"""Weights that are no layers, such as experts, as a setting of a run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as hf
from datasets import DatasetDict

import lorafit
from lorafit.adapt import Adapters
from lorafit.config import Config
from lorafit.errors import AdapterError, ConfigError, LorafitError
from lorafit.methods.lora import LoraConfig
from lorafit.tune.bench.bench import Bench
from lorafit.tune.bench.rules import Rules
from lorafit.tune.bench.tunable import Tunable
from lorafit.tune.rise.strategy import RankTest
from tests import tiny, tiny_text
from tests.pipeline import endings

EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]
SETTINGS = endings.SETTINGS | {"learning_rate": 0.01}
hub: Any = hf


def qwen2_moe(folder: Path) -> Path:
    """A tiny Qwen2-MoE with its tokenizer."""
    torch.manual_seed(0)
    config = hub.Qwen2MoeConfig(
        vocab_size=tiny.VOCAB,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=40,
        moe_intermediate_size=24,
        shared_expert_intermediate_size=24,
        num_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=40,
        pad_token_id=0,
    )
    hub.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_text.gpt2_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text.save_language_model(tmp_path_factory.mktemp("base"), "mixtral")


@pytest.fixture(scope="module")
def data() -> DatasetDict:
    return endings.prompts()


def settings(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return SETTINGS | {"runs_dir": str(tmp_path / "runs"), "target_parameters": EXPERTS} | more


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("mixtral", {}),
        ("mixtral", {"method": "rslora", "target_modules": []}),
        ("mixtral", {"target_parameters": [*EXPERTS, "gate.weight"]}),
        ("mixtral", {"trainable_token_indices": [3, 7]}),
        ("qwen2_moe", {}),
    ],
)
def test_trained_saved_merged_and_in_peft_it_answers_the_same(
    family: str, more: dict[str, Any], base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    if family != "mixtral":
        base = qwen2_moe(tmp_path / "base")
    run = lorafit.train(base, data, **settings(tmp_path, **more))
    handoff = run.evaluation.handoff
    assert handoff is not None
    assert handoff.reloaded == 0.0
    assert handoff.merged is not None
    fields = json.loads((run.adapter / "adapter_config.json").read_text())
    assert fields["target_parameters"] == more.get("target_parameters", EXPERTS)
    assert fields["lora_dropout"] == 0

    tuned = lorafit.load(run)
    inputs = tuned.tokenizer("the film is good", return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    expected = endings.logits(tuned.model, inputs)
    with tuned.adapters.disabled():
        assert not torch.allclose(endings.logits(tuned.model, inputs), expected, atol=1e-4)
    out = lorafit.merge(run, tmp_path / "merged")
    merged = type(tuned.model).from_pretrained(out)
    assert torch.allclose(endings.logits(merged, inputs), expected, atol=1e-5)
    plain = type(tuned.model).from_pretrained(base)
    assert torch.allclose(
        endings.logits(peft.PeftModel.from_pretrained(plain, run.adapter), inputs),
        expected,
        atol=1e-5,
    )


def test_a_stopped_run_goes_on_bit_for_bit(
    base: Path, data: DatasetDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endings.stopped_and_resumed(base, data, settings(tmp_path), monkeypatch)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"target_parameters": ["experts.up_proj"]}, 'Did you mean "experts.'),
        ({"target_parameters": ["q_prj.weight"]}, 'Did you mean "q_proj.weight"'),
        ({"target_parameters": ["norm.weight"]}, "has to be a matrix"),
        ({"lora_dropout": 0.1}, "takes plain LoRA, without lora_dropout 0.1"),
        ({"method": "dora"}, "takes plain LoRA, without use_dora"),
        ({"method": "pissa"}, "takes plain LoRA, without init_lora_weights pissa"),
        ({"trainable_token_indices": [99]}, "from 0 to 98.*--add-tokens|from 0 to 98.*add_tokens"),
        ({"trainable_token_indices": [-1]}, "from 0 to 98"),
        ({"trainable_token_indices": ["seven"]}, "should be a whole number"),
        ({"trainable_token_indices": {"embeddings": [1]}}, "there is model.embed_tokens"),
        ({"method": "ia3"}, 'no setting "target_parameters"'),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    more: dict[str, Any], message: str, base: Path, data: DatasetDict, tmp_path: Path
) -> None:
    options = settings(tmp_path, **more)
    if more.get("method") == "ia3":
        del options["r"]
    with pytest.raises(LorafitError, match=message):
        lorafit.train(base, data, **options)
    assert not (tmp_path / "runs").exists()


def test_what_is_not_adapted_is_said_only_where_it_is_true(
    base: Path, data: DatasetDict, caplog: pytest.LogCaptureFixture
) -> None:
    def said(**more: Any) -> str:
        caplog.clear()
        with caplog.at_level(logging.INFO, "lorafit"):
            lorafit.plan(base, data, **(SETTINGS | more))
        return " ".join(caplog.messages)

    plain = said()
    assert "not adapted: gate.weight, experts.gate_up_proj, experts.down_proj" in plain
    named = '"gate.weight", "experts.gate_up_proj", "experts.down_proj"'
    assert f"target_parameters=[{named}]" in plain
    assert "not adapted" not in said(target_parameters=EXPERTS)
    part = said(target_parameters=EXPERTS[:1])
    assert "not adapted: gate.weight, experts.down_proj" in part
    one = said(target_parameters=["layers.0.mlp.experts.gate_up_proj", EXPERTS[1]])
    assert "experts.gate_up_proj" in one.partition("not adapted")[2]


@pytest.mark.parametrize("rslora", [False, True])
def test_a_grown_rank_computes_the_same_and_takes_a_step_everywhere(rslora: bool) -> None:
    model = tiny.language_model("mixtral")
    adapters = Adapters(model)
    adapters.add(
        LoraConfig(
            r=2,
            lora_alpha=4,
            use_rslora=rslora,
            target_modules={"q_proj"},
            target_parameters=[*EXPERTS, "gate.weight"],
            trainable_token_indices=[3, 7],
        )
    )
    config = Config.model_validate({"model": {"name_or_path": "m"}, "data": {"path": "d"}})
    tunable = Tunable(adapters, config, keeps_scaling=True)
    generator = torch.Generator().manual_seed(0)
    optimizer = tunable.load(tunable.start())
    for _ in range(2):
        for parameter in tunable.trainable().values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = 0.1
        optimizer.step()
    state = tunable.captured(2, tunable.shape, optimizer)
    expected = tiny.logits(model, "mixtral")

    tall = tunable.grown(state, 6)
    again = tunable.load(tall)
    torch.testing.assert_close(tiny.logits(model, "mixtral"), expected, atol=1e-5, rtol=1e-5)
    assert tall.factors == 3 * state.factors == state.factors_at(6)
    for name, parameter in tunable.trainable().items():
        step = again.state[parameter]["step"]
        old = (step == 2).sum()
        assert set(step.flatten().tolist()) <= {0.0, 2.0}, name
        assert "lora_" not in name or old * 3 == step.numel(), name
    tunable.load(state)
    torch.testing.assert_close(tiny.logits(model, "mixtral"), expected, atol=1e-6, rtol=1e-6)


def test_leaving_modules_out_leaves_the_experts_and_the_rows() -> None:
    config = Config.model_validate({"model": {"name_or_path": "m"}, "data": {"path": "d"}})
    model = tiny.language_model("mixtral")
    adapters = Adapters(model)
    adapters.add(
        LoraConfig(
            r=2,
            target_modules={"q_proj", "v_proj"},
            target_parameters=EXPERTS,
            trainable_token_indices=[3],
        )
    )
    tunable = Tunable(adapters, config, keeps_scaling=True)
    less = tunable.without(tunable.start(), frozenset({"v_proj"}))
    tunable.load(less)
    left = {(site.name, site.kind) for site in adapters.sites["default"]}
    assert left == {("q_proj", "linear"), ("experts", "parameter"), ("embed_tokens", "tokens")}


def test_the_search_rises_with_experts(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RankTest, "grows", True)
    # It begins low enough to grow in so small a model, and nothing is cut again.
    monkeypatch.setattr(Bench, "rules", Rules(first_rank=8, room=1.0, losable=0.0))
    rows = endings.prompts(60, 40, 8)
    options = settings(tmp_path, max_steps=320, per_device_train_batch_size=2, strategy="rise")
    del options["r"]
    run = lorafit.train(base, rows, **options | {"tune.budget": 2.0})
    assert run.config.adapter.settings["r"] > 8
    assert run.config.adapter.settings["target_parameters"] == EXPERTS
    assert run.evaluation.handoff.reloaded == 0.0  # type: ignore[union-attr]


def test_the_search_cuts_the_rank_of_experts_too(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bench, "rules", Rules(losable=10.0, losable_share=1e6, pruning=0.4))
    rows = endings.prompts(60, 40, 8)
    options = settings(tmp_path, max_steps=320, per_device_train_batch_size=2, strategy="rise")
    del options["r"]
    run = lorafit.train(base, rows, **options | {"tune.budget": 2.0})
    assert run.choices["r"].evidence["ranks"]
    assert run.config.adapter.settings["r"] == run.choices["r"].value == 1
    assert run.evaluation.handoff.reloaded == 0.0  # type: ignore[union-attr]


def test_shrink_refuses_and_says_what_to_do(base: Path, data: DatasetDict, tmp_path: Path) -> None:
    run = lorafit.train(base, data, **settings(tmp_path))
    with pytest.raises(AdapterError, match=r"weights that are no layers.*smaller"):
        lorafit.shrink(run, 1, out=tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_dropout_that_is_not_set_is_none_beside_experts(base: Path, data: DatasetDict) -> None:
    plan = lorafit.plan(base, data, **(SETTINGS | {"target_parameters": EXPERTS}))
    assert plan.config.adapter.settings["lora_dropout"] == 0
    assert lorafit.plan(base, data, **SETTINGS).config.adapter.settings["lora_dropout"] == 0.05
    with pytest.raises(ConfigError):
        lorafit.plan(base, data, lora_dropout=0.05, target_parameters=EXPERTS, **SETTINGS)
