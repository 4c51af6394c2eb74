"""The contract of design section "Invariants", over every registered method and variant.

A new method is covered by being registered: it is run with its recommended settings.
Variants of LoRA are listed, since they are settings and not methods.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from lorafit.adapt import Adapters
from lorafit.methods import methods
from lorafit.methods.base import MethodConfig
from tests import tiny

LORA_VARIANTS: dict[str, dict[str, Any]] = {
    "lora-default": {},
    "lora-r1": {"r": 1},
    "lora-rslora": {"use_rslora": True, "lora_alpha": 16},
    "lora-dora": {"use_dora": True},
    "lora-gaussian": {"init_lora_weights": "gaussian"},
    "lora-orthogonal": {"init_lora_weights": "orthogonal"},
    "lora-olora": {"init_lora_weights": "olora"},
    "lora-pissa": {"init_lora_weights": "pissa"},
    "lora-pissa-fast": {"init_lora_weights": "pissa_niter_8"},
    "lora-pissa-dora": {"init_lora_weights": "pissa", "use_dora": True},
    "lora-bias-all": {"bias": "all"},
    "lora-bias-lora-only": {"bias": "lora_only"},
    "lora-dropout": {"lora_dropout": 0.3},
    "lora-ranks": {"rank_pattern": {".*1\\..*": 2}, "alpha_pattern": {".*0\\..*": 32}},
}

# B A of an orthogonal start is zero only up to rounding; every other start is exact.
START_TOLERANCE = {"lora-orthogonal": 1e-6}

# One family with Linear layers, one with Conv1D, one with grouped heads, one with two stacks.
FAMILIES = ["distilbert", "gpt2", "llama", "t5"]


def _cases() -> dict[str, tuple[str, dict[str, Any]]]:
    cases = {name: (name, dict(methods[name].recommended)) for name in methods}
    cases |= {
        name: ("lora", {"target_modules": "all-linear"} | settings)
        for name, settings in LORA_VARIANTS.items()
    }
    return cases


CASES = _cases()


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def config_of(case: str, family: str) -> MethodConfig:
    method, settings = CASES[case]
    heads = {
        "distilbert": ["pre_classifier", "classifier"],
        "gpt2": ["score"],
        "llama": ["score"],
        "t5": ["classification_head"],
    }
    return methods[method].config_class(**settings, modules_to_save=heads[family])


def adapted(
    case: str, family: str, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[nn.Module, Adapters]:
    if family in ("llama", "t5") and CASES[case][1].get("bias", "none") != "none":
        family = "gpt2"  # the others have no biases to train, which is refused
    model = tiny.classifier(family).to(dtype)
    torch.manual_seed(seed)
    adapters = Adapters(model)
    adapters.add(config_of(case, family))
    return model, adapters


def family_of(model: nn.Module) -> str:
    return model.config.model_type


def perturb(adapters: Adapters, seed: int = 3) -> None:
    """Stands in for training: every trainable parameter moves."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapters.trainable().values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=g))


def test_training_starts_at_the_base_model(case: str, family: str) -> None:
    model, _ = adapted(case, family)
    base = tiny.logits(tiny.classifier(family_of(model)), family_of(model))
    start = tiny.logits(model, family_of(model))
    tolerance = START_TOLERANCE.get(case, 0.0)
    torch.testing.assert_close(start, base, rtol=tolerance, atol=tolerance)


def test_merged_model_computes_the_same_and_unmerging_restores_the_base_bit_for_bit(
    case: str, family: str
) -> None:
    model, adapters = adapted(case, family)
    weights = {p: layer.base_layer.weight.clone() for p, layer in _layers(model)}
    perturb(adapters)
    live = tiny.logits(model, family_of(model))
    adapters.merge(safe_merge=True)
    merged = tiny.logits(model, family_of(model))
    torch.testing.assert_close(merged, live, rtol=1e-5, atol=1e-5 * live.abs().max().item())
    adapters.unmerge()
    for path, layer in _layers(model):
        assert torch.equal(layer.base_layer.weight, weights[path])
    assert torch.equal(tiny.logits(model, family_of(model)), live)


def test_unmerging_restores_the_base_bit_for_bit_in_bfloat16(case: str) -> None:
    model, adapters = adapted(case, "distilbert", dtype=torch.bfloat16)
    weights = {p: layer.base_layer.weight.clone() for p, layer in _layers(model)}
    perturb(adapters)
    assert {p.dtype for p in adapters.trainable().values()} == {torch.float32} or "bias" in case
    adapters.merge()
    adapters.unmerge()
    for path, layer in _layers(model):
        assert torch.equal(layer.base_layer.weight, weights[path])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_base_runs_with_its_float32_adapter(case: str, dtype: torch.dtype) -> None:
    model, adapters = adapted(case, "distilbert", dtype=dtype)
    perturb(adapters)
    live = tiny.logits(model, "distilbert")
    assert live.dtype == dtype
    adapters.merge()
    scale = live.float().abs().max().item()
    merged = tiny.logits(model, "distilbert")
    torch.testing.assert_close(merged.float(), live.float(), rtol=5e-2, atol=5e-2 * scale)


def test_only_the_adapter_and_the_head_train_and_all_of_it_gets_a_gradient(
    case: str, family: str
) -> None:
    model, adapters = adapted(case, family)
    trainable = adapters.trainable()
    assert {id(p) for p in model.parameters() if p.requires_grad} == {
        id(p) for p in trainable.values()
    }
    optimizer = torch.optim.SGD(trainable.values(), lr=0.1)
    seen: set[str] = set()
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        batch = tiny.inputs(family_of(model))
        logits = model(**batch).logits
        nn.functional.cross_entropy(logits, torch.arange(len(logits)) % 3).backward()
        seen |= {n for n, p in trainable.items() if p.grad is not None and p.grad.abs().sum() > 0}
        optimizer.step()
    # A key's bias shifts all scores of a query alike: softmax does not see it.
    blind = {n for n in trainable if n.endswith("k_lin.base_layer.bias")}
    assert seen >= set(trainable) - blind


def test_saved_tensors_loaded_into_a_fresh_model_compute_the_same(case: str, family: str) -> None:
    model, adapters = adapted(case, family)
    base = tiny.logits(model, family_of(model))
    perturb(adapters)
    live = tiny.logits(model, family_of(model))
    assert not torch.allclose(live, base, atol=1e-4), "the change has to be visible"
    tensors = {name: t.clone() for name, t in adapters.state_dict().items()}
    other, others = adapted(case, family, seed=1)
    others.load_state_dict("default", tensors)
    assert torch.equal(tiny.logits(other, family_of(other)), live)


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(case: str) -> None:
    first = adapted(case, "distilbert", seed=0)[1].state_dict()
    again = adapted(case, "distilbert", seed=0)[1].state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    if "olora" in case or "pissa" in case:
        return  # these starts are decompositions of the weight: nothing random
    other = adapted(case, "distilbert", seed=1)[1].state_dict()
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_disabled_adapters_compute_what_the_base_computes(case: str, family: str) -> None:
    model, adapters = adapted(case, family)
    base = tiny.logits(tiny.classifier(family_of(model)), family_of(model))
    perturb(adapters)
    live = tiny.logits(model, family_of(model))
    with adapters.disabled():
        assert torch.equal(tiny.logits(model, family_of(model)), base)
    assert torch.equal(tiny.logits(model, family_of(model)), live)
    adapters.merge()
    with adapters.disabled():
        assert torch.equal(tiny.logits(model, family_of(model)), base)
    torch.testing.assert_close(
        tiny.logits(model, family_of(model)), live, rtol=1e-5, atol=1e-5 * live.abs().max().item()
    )


def test_unloading_gives_the_model_back_as_it_came(case: str, family: str) -> None:
    model, adapters = adapted(case, family)
    plain = tiny.classifier(family_of(model))
    perturb(adapters)
    adapters.unload()
    ours, theirs = model.state_dict(), plain.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(p.requires_grad for p in model.parameters())


def test_unloading_merged_leaves_a_plain_model_that_computes_the_same(
    case: str, family: str
) -> None:
    model, adapters = adapted(case, family)
    perturb(adapters)
    live = tiny.logits(model, family_of(model))
    merged = adapters.unload(merge=True)
    assert list(merged.state_dict()) == list(tiny.classifier(family_of(model)).state_dict())
    torch.testing.assert_close(
        tiny.logits(merged, family_of(model)), live, rtol=1e-5, atol=1e-5 * live.abs().max().item()
    )


def test_trainable_parameter_count_equals_the_formula(family: str) -> None:
    model, adapters = adapted("lora-default", family)
    r = adapters.configs["default"].r
    low_rank = sum(r * (s.d_in + s.d_out) for s in adapters.sites["default"])
    head = sum(
        p.numel()
        for wrapper in model.modules()
        if type(wrapper).__name__ == "ModulesToSaveWrapper"
        for p in wrapper.original_module.parameters()
    )
    assert sum(p.numel() for p in adapters.trainable().values()) == low_rank + head


def test_a_copied_adapted_model_is_independent(case: str) -> None:
    _, adapters = adapted(case, "distilbert")
    twin = copy.deepcopy(adapters)
    before = tiny.logits(adapters.model, "distilbert")
    perturb(twin)
    assert torch.equal(tiny.logits(adapters.model, "distilbert"), before)
    assert not torch.allclose(tiny.logits(twin.model, "distilbert"), before, atol=1e-4)


def _layers(model: nn.Module) -> list[tuple[str, Any]]:
    from lorafit.methods.base import AdapterLayer

    return [(p, m) for p, m in model.named_modules() if isinstance(m, AdapterLayer)]
