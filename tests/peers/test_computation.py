"""What an adapter computes, and its gradients, are peft's."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import nn

import lorafit.peft as ours_api
from tests import tiny
from tests.peers.pair import EMBEDDINGS, TARGETS, assert_close, logits, ours, randomised, theirs

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True, "rank_pattern": {"0": 2}},
    "dora": {"use_dora": True},
    "bias_all": {"bias": "all"},
    "embeddings": {},
}


def pair(family: str, name: str) -> tuple[ours_api.PeftModel, peft.PeftModel]:
    changes = dict(VARIANTS[name])
    if name == "embeddings":
        changes["target_modules"] = [EMBEDDINGS[family], *TARGETS[family]]
    if name == "rslora":
        changes["rank_pattern"] = {TARGETS[family][0]: 2}
    if name == "bias_all" and family in ("llama", "qwen3", "t5"):
        changes = {}
    mine, other = ours(family, **changes), theirs(family, **changes)
    other.load_state_dict(mine.state_dict())
    return mine, other


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_loss_and_gradients_are_those_of_peft(family: str, name: str) -> None:
    gradients = []
    for model in pair(family, name):
        # No dropout: the two draw it at different moments.
        model.eval()
        loss = model(**tiny.inputs(family), labels=torch.tensor([0, 1, 2])).loss
        loss.backward()
        found = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        gradients.append((loss.detach(), found))
    (loss, mine), (other_loss, other) = gradients
    assert_close(loss, other_loss)
    assert mine.keys() == other.keys()
    largest = max(g.abs().max() for g in other.values() if g is not None)
    for key, gradient in other.items():
        if gradient is None:
            assert mine[key] is None
        else:
            own = mine[key]
            assert own is not None
            assert (own - gradient).abs().max() <= 1e-5 * largest, key


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_merged_models_are_those_of_peft(family: str, name: str) -> None:
    mine, other = pair(family, name)
    adapted = logits(mine, family)
    assert_close(adapted, logits(other, family))
    merged, other_merged = mine.merge_and_unload(), other.merge_and_unload()
    assert_close(logits(merged, family), adapted)
    if (family, name) == ("t5", "embeddings"):
        # T5 only reads copies tied to `shared`. peft changes them too, and then the merged
        # model computes something else than the adapted one; ours does not.
        return
    assert type(merged) is type(other_merged)
    state, other_state = merged.state_dict(), other_merged.state_dict()
    assert state.keys() == other_state.keys()
    for key, value in other_state.items():
        assert_close(state[key], value)
    assert not hasattr(merged, "peft_config")


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_state_dict_keys_are_those_of_peft(family: str) -> None:
    for changes in ({}, {"use_dora": True}, {"target_modules": [EMBEDDINGS[family]]}):
        mine, other = ours(family, **changes), theirs(family, **changes)
        assert mine.state_dict().keys() == other.state_dict().keys()
        assert dict(mine.named_parameters()).keys() == dict(other.named_parameters()).keys()
        assert (
            ours_api.get_peft_model_state_dict(mine).keys()
            == peft.get_peft_model_state_dict(other).keys()
        )


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_states_can_be_exchanged_in_memory(family: str) -> None:
    mine, other = ours(family), theirs(family)
    state = {k: v + 0.1 for k, v in peft.get_peft_model_state_dict(other).items()}
    result = ours_api.set_peft_model_state_dict(mine, state)
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    peft.set_peft_model_state_dict(other, ours_api.get_peft_model_state_dict(mine))
    assert_close(logits(mine, family), logits(other, family))


COMBINATIONS = [
    ("linear", {}),
    ("cat", {}),
    ("svd", {"svd_rank": 3}),
    ("ties", {"density": 0.5}),
    ("ties_svd", {"density": 0.5}),
    ("ties_svd", {"density": 0.5, "majority_sign_method": "frequency"}),
    ("magnitude_prune", {"density": 0.4}),
    ("magnitude_prune_svd", {"density": 0.4}),
]


@pytest.mark.parametrize("rank", [4, 2])
@pytest.mark.parametrize(("kind", "options"), COMBINATIONS)
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_weighted_combinations_are_those_of_peft(
    tmp_path: Path, family: str, kind: str, options: dict[str, Any], rank: int
) -> None:
    models: list[Any] = []
    for api in (ours_api, peft):
        values: dict[str, Any] = {
            "r": 4,
            "target_modules": TARGETS[family],
            "fan_in_fan_out": family == "gpt2",
            "rank_pattern": {TARGETS[family][0]: rank} if rank != 4 else {},
        }
        model = api.get_peft_model(tiny.classifier(family), api.LoraConfig(**values))
        model.add_adapter("other", api.LoraConfig(**values | {"lora_alpha": 12}))
        model.set_requires_grad(["default", "other"])
        randomised(model)
        if models:
            model.load_state_dict(models[0], strict=False)
        models.append(copy.deepcopy(model.state_dict()))
        model.add_weighted_adapter(
            ["default", "other"], [0.7, -0.4], "mixed", combination_type=kind, **options
        )
        model.set_adapter("mixed")
        models.append(model)
    _, mine, _, other = models
    for a, b in zip(delta(mine), delta(other), strict=True):
        assert_close(a, b, 1e-4)
    assert mine.peft_config["mixed"].r == other.peft_config["mixed"].r
    assert_close(logits(mine, family), logits(other, family), 1e-4)
    # peft cannot read what it writes itself of an adapter with ranks of their own.
    mine.save_pretrained(tmp_path, selected_adapters=["mixed"])
    for api in (ours_api, peft):
        back = api.PeftModel.from_pretrained(tiny.classifier(family), tmp_path / "mixed")
        assert_close(logits(back, family), logits(mine, family))


def delta(model: nn.Module) -> list[torch.Tensor]:
    layers: list[Any] = [m for m in model.modules() if hasattr(m, "lora_embedding_A")]
    return [layer.get_delta_weight("mixed") for layer in layers]


def test_scale_methods_are_those_of_peft() -> None:
    for model in (ours("bert"), theirs("bert")):
        tuned: Any = model.base_model
        layer = tuned.model.bert.encoder.layer[0].attention.self.query
        start = layer.scaling["default"]
        layer.scale_layer(2.0)
        assert layer.scaling["default"] == 2 * start
        layer.unscale_layer(2.0)
        layer.set_scale("default", 3.0)
        assert layer.scaling["default"] == 3 * start
        layer.unscale_layer()
        assert layer.scaling["default"] == start


def test_disabled_is_the_base_and_unmerging_restores_it_bit_for_bit() -> None:
    model = ours("qwen2")
    before = copy.deepcopy(model.state_dict())
    plain = logits(tiny.classifier("qwen2"), "qwen2")
    adapted = logits(model, "qwen2")
    with model.disable_adapter():
        assert torch.equal(logits(model, "qwen2"), plain)
        with model.disable_adapter():
            assert torch.equal(logits(model, "qwen2"), plain)
        assert torch.equal(logits(model, "qwen2"), plain)
    assert torch.equal(logits(model, "qwen2"), adapted)
    model.merge_adapter()
    assert_close(logits(model, "qwen2"), adapted)
    model.unmerge_adapter()
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
