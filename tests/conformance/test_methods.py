"""The contract of design section "Invariants", over every registered method and variant.

A new method is covered by being registered: it is run with its recommended settings.
Variants of LoRA are listed, since they are settings and not methods.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lorafit.adapt import Adapters
from lorafit.errors import AdapterError, ConfigError, TargetError
from lorafit.export import peft as peft_format
from lorafit.methods import methods
from lorafit.methods.base import AdapterLayer, MethodConfig, ModulesToSaveWrapper
from tests import tiny

Parameters = dict[str, nn.Parameter]

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
    cases["bottleneck-pfeiffer"] = ("bottleneck", {"placement": "pfeiffer", "reduction_factor": 4})
    cases["prefix-random"] = ("prefix", {"num_virtual_tokens": 3})
    cases["prefix-projected"] = ("prefix", {"num_virtual_tokens": 3, "prefix_projection": True})
    cases["prompt-random"] = ("prompt", {"num_virtual_tokens": 3})
    cases["ia3-all-linear"] = ("ia3", {"target_modules": "all-linear"})
    cases["sparse-dense"] = ("sparse", {"density": 0.3})
    cases |= {
        name: ("lora", {"target_modules": "all-linear"} | settings)
        for name, settings in LORA_VARIANTS.items()
    }
    return cases


CASES = _cases()

# What does not fit, and what the refusal says.
MISFITS = {
    **{(case, "t5"): "two inputs" for case in ("prompt", "prompt-random")},
    **{
        (case, "distilbert"): "takes no past keys and values"
        for case in ("prefix", "prefix-random", "prefix-projected")
    },
    ("bitfit", "llama"): "has none",
    ("bitfit", "t5"): "has none",
    ("lora-bias-all", "llama"): "no such biases",
    ("lora-bias-all", "t5"): "no such biases",
    ("lora-bias-lora-only", "llama"): "no such biases",
    ("lora-bias-lora-only", "t5"): "no such biases",
}
PAIRS = [(c, f) for c in CASES for f in FAMILIES if (c, f) not in MISFITS]

# Nothing random in them: decompositions, starts that are the base's own, ones.
SEEDLESS = {
    *("lora-olora", "full", "head", "bitfit", "layernorm", "last_layers"),
    "ia3",
}


def every_pair(function: Any) -> Any:
    return pytest.mark.parametrize(("case", "family"), PAIRS)(function)


def home(case: str) -> str:
    """A family that a method fits, for promises that hold of any."""
    return "gpt2" if (case, "distilbert") in MISFITS else "distilbert"


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
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


@every_pair
def test_training_starts_at_the_base_model(case: str, family: str) -> None:
    model, _ = adapted(case, family)
    base = tiny.logits(tiny.classifier(family_of(model)), family_of(model))
    start = tiny.logits(model, family_of(model))
    if not methods[CASES[case][0]].starts_at_base:
        assert torch.isfinite(start).all()
        assert not torch.equal(start, base)
        return
    tolerance = START_TOLERANCE.get(case, 0.0)
    torch.testing.assert_close(start, base, rtol=tolerance, atol=tolerance)


@every_pair
def test_merged_model_computes_the_same_and_unmerging_restores_the_base_bit_for_bit(
    case: str, family: str
) -> None:
    model, adapters = adapted(case, family)
    weights = {p: layer.base_layer.weight.clone() for p, layer in _layers(model)}
    perturb(adapters)
    live = tiny.logits(model, family_of(model))
    if adapters.unmergeable():
        with pytest.raises(AdapterError, match="cannot be merged: "):
            adapters.merge()
        assert not adapters.merged
        assert torch.equal(tiny.logits(model, family_of(model)), live)
        return
    adapters.merge(safe_merge=True)
    merged = tiny.logits(model, family_of(model))
    torch.testing.assert_close(merged, live, rtol=1e-5, atol=1e-5 * live.abs().max().item())
    adapters.unmerge()
    for path, layer in _layers(model):
        assert torch.equal(layer.base_layer.weight, weights[path])
    assert torch.equal(tiny.logits(model, family_of(model)), live)


def test_unmerging_restores_the_base_bit_for_bit_in_bfloat16(case: str) -> None:
    model, adapters = adapted(case, home(case), dtype=torch.bfloat16)
    weights = {p: layer.base_layer.weight.clone() for p, layer in _layers(model)}
    perturb(adapters)
    # Copies of base parameters have the base's format; everything else is float32.
    copies = {id(p) for p in model.parameters() if p.dtype == torch.bfloat16}
    added = {p.dtype for p in adapters.trainable().values() if id(p) not in copies}
    assert added == {torch.float32}
    if not adapters.unmergeable():
        adapters.merge()
        adapters.unmerge()
    for path, layer in _layers(model):
        assert torch.equal(layer.base_layer.weight, weights[path])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_base_runs_with_its_float32_adapter(case: str, dtype: torch.dtype) -> None:
    model, adapters = adapted(case, home(case), dtype=dtype)
    perturb(adapters)
    live = tiny.logits(model, home(case))
    assert live.dtype == dtype
    if adapters.unmergeable():
        return
    adapters.merge()
    scale = live.float().abs().max().item()
    merged = tiny.logits(model, home(case))
    torch.testing.assert_close(merged.float(), live.float(), rtol=5e-2, atol=5e-2 * scale)


@every_pair
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
    blind = {n for n in trainable if re.search(r"\bk_lin\.(base_layer\.)?bias$", n)}
    assert seen >= set(trainable) - blind


@every_pair
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
    first = adapted(case, home(case), seed=0)[1].state_dict()
    again = adapted(case, home(case), seed=0)[1].state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = adapted(case, home(case), seed=1)[1].state_dict()
    if "pissa" in case:
        return  # nothing random, but for the fast decomposition
    if any(case.startswith(name) for name in SEEDLESS):
        assert all(torch.equal(t, first[name]) for name, t in other.items() if _own(name))
        return
    assert any(not torch.equal(first[name], other[name]) for name in first)


@every_pair
def test_disabled_adapters_compute_what_the_base_computes(case: str, family: str) -> None:
    model, adapters = adapted(case, family)
    base = tiny.logits(tiny.classifier(family_of(model)), family_of(model))
    perturb(adapters)
    live = tiny.logits(model, family_of(model))
    with adapters.disabled():
        assert torch.equal(tiny.logits(model, family_of(model)), base)
    assert torch.equal(tiny.logits(model, family_of(model)), live)
    if adapters.unmergeable():
        return
    adapters.merge()
    with adapters.disabled():
        assert torch.equal(tiny.logits(model, family_of(model)), base)
    torch.testing.assert_close(
        tiny.logits(model, family_of(model)), live, rtol=1e-5, atol=1e-5 * live.abs().max().item()
    )


@every_pair
def test_unloading_gives_the_model_back_as_it_came(case: str, family: str) -> None:
    model, adapters = adapted(case, family)
    plain = tiny.classifier(family_of(model))
    perturb(adapters)
    adapters.unload()
    ours, theirs = model.state_dict(), plain.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(p.requires_grad for p in model.parameters())


@every_pair
def test_unloading_merged_leaves_a_plain_model_that_computes_the_same(
    case: str, family: str
) -> None:
    model, adapters = adapted(case, family)
    perturb(adapters)
    live = tiny.logits(model, family_of(model))
    if adapters.unmergeable():
        with pytest.raises(AdapterError, match="cannot be merged: "):
            adapters.unload(merge=True)
        assert torch.equal(tiny.logits(model, family_of(model)), live)
        return
    merged = adapters.unload(merge=True)
    assert list(merged.state_dict()) == list(tiny.classifier(family_of(model)).state_dict())
    torch.testing.assert_close(
        tiny.logits(merged, family_of(model)), live, rtol=1e-5, atol=1e-5 * live.abs().max().item()
    )


@every_pair
def test_trainable_parameter_count_equals_the_formula(case: str, family: str) -> None:
    model, adapters = adapted(case, family)
    method, _ = CASES[case]
    head = sum(
        p.numel()
        for wrapper in model.modules()
        if isinstance(wrapper, ModulesToSaveWrapper)
        for p in wrapper.original_module.parameters()
    )
    # Shapes of the plain model, less what is trained whole.
    whole = tuple(f"{path}." for path, m in model.named_modules() if _is_whole(m))
    plain = tiny.classifier(family)
    base = {n: p for n, p in plain.named_parameters() if not n.startswith(whole)}
    expected = COUNTS[method](plain, base, adapters)
    assert sum(p.numel() for p in adapters.trainable().values()) == expected + head


def _is_whole(module: nn.Module) -> bool:
    return isinstance(module, ModulesToSaveWrapper)


def _lora_count(model: Any, base: Parameters, adapters: Adapters) -> int:
    config = adapters.configs["default"]
    ranks = {site: config.rank(site.path) for site in adapters.sites["default"]}
    count = sum(r * (site.d_in + site.d_out) for site, r in ranks.items())
    if config.use_dora:
        count += sum(site.d_out for site in ranks)
    if config.bias == "all":
        count += _bias_count(model, base, adapters)
    if config.bias == "lora_only":
        count += sum(base[f"{site.path}.bias"].numel() for site in ranks)
    return count


def _bias_count(model: Any, base: Parameters, adapters: Adapters) -> int:
    return sum(p.numel() for n, p in base.items() if n.endswith(".bias"))


def _prefix_count(model: Any, adapters: Adapters) -> int:
    """Keys and values of every layer, or the MLP that makes them."""
    settings, config = model.config, adapters.configs["default"]
    grouped = getattr(settings, "num_key_value_heads", settings.num_attention_heads)
    d = settings.hidden_size * grouped // settings.num_attention_heads
    width, n = 2 * settings.num_hidden_layers * d, config.num_virtual_tokens
    return n * d + d * d + d + d * width + width if config.prefix_projection else n * width


TOP = {
    "distilbert": ("distilbert.transformer.layer", []),
    "gpt2": ("transformer.h", ["transformer.ln_f"]),
    "llama": ("model.layers", ["model.norm"]),
    "t5": ("transformer.decoder.block", ["transformer.decoder.final_layer_norm"]),
}


def _last_layers_count(model: Any, base: Parameters, adapters: Adapters) -> int:
    stack, above = TOP[model.config.model_type]
    blocks = list(model.get_submodule(stack))[-adapters.configs["default"].k :]
    modules = [*blocks, *map(model.get_submodule, above)]
    return sum(p.numel() for module in modules for p in module.parameters())


# The formula of each method: plain model, its parameters outside of the head, adapters.
COUNTS: dict[str, Callable[[Any, Parameters, Adapters], int]] = {
    "lora": _lora_count,
    "rslora": _lora_count,
    "dora": _lora_count,
    "pissa": _lora_count,
    "full": lambda model, base, adapters: sum(p.numel() for p in base.values()),
    "head": lambda model, base, adapters: 0,
    "bitfit": _bias_count,
    # Vectors that are not biases of matrices: what normalisations have.
    "layernorm": lambda model, base, adapters: sum(
        p.numel() for n, p in base.items() if re.search(r"(norm|ln_\w+)\.(weight|bias)$", n.lower())
    ),
    "last_layers": _last_layers_count,
    "sparse": lambda model, base, adapters: sum(
        max(1, round(adapters.configs["default"].density * s.d_in * s.d_out))
        for s in adapters.sites["default"]
    ),
    "ia3": lambda model, base, adapters: sum(
        s.d_in if s.path in adapters.configs["default"].feedforward_modules else s.d_out
        for s in adapters.sites["default"]
    ),
    "prefix": lambda model, base, adapters: _prefix_count(model, adapters),
    "prompt": lambda model, base, adapters: (
        adapters.configs["default"].num_virtual_tokens * adapters.sites["default"][0].d_out
    ),
    "bottleneck": lambda model, base, adapters: sum(
        2 * m * s.d_out + m + s.d_out
        for s in adapters.sites["default"]
        for m in [adapters.configs["default"].width(s)]
    ),
}


def test_every_method_has_its_formula() -> None:
    assert set(COUNTS) == set(methods)


@pytest.mark.parametrize(("case", "family"), MISFITS)
def test_a_method_that_does_not_fit_is_refused_with_the_reason_and_changes_nothing(
    case: str, family: str
) -> None:
    model = tiny.classifier(family)
    before = tiny.logits(model, family)
    with pytest.raises((ConfigError, TargetError), match=MISFITS[case, family]):
        Adapters(model).add(config_of(case, family))
    assert list(model.state_dict()) == list(tiny.classifier(family).state_dict())
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(tiny.logits(model, family), before)


@every_pair
def test_written_and_read_back_it_computes_the_same(case: str, family: str, tmp_path: Path) -> None:
    model, adapters = adapted(case, family)
    perturb(adapters)
    live = tiny.logits(model, family)
    peft_format.save(adapters, tmp_path / "adapter")
    fresh = tiny.classifier(family)
    loaded = peft_format.load(fresh, tmp_path / "adapter")
    # PiSSA and OLoRA are written as one LoRA of twice the rank, which is summed differently.
    tolerance = 1e-5 if "pissa" in case or "olora" in case else 0.0
    torch.testing.assert_close(tiny.logits(fresh, family), live, rtol=tolerance, atol=tolerance)
    assert not loaded.trainable()
    loaded.unload()
    assert torch.equal(tiny.logits(fresh, family), tiny.logits(tiny.classifier(family), family))


@pytest.mark.parametrize(
    "method", [name for name in methods if name != "lora" and methods[name].preset_of != "lora"]
)
def test_a_method_goes_beside_lora_and_leaves_again(method: str) -> None:
    family = home(method)
    model, adapters = adapted(method, family)
    perturb(adapters)
    own = tiny.logits(model, family)
    targets = {"q_lin", "lin1"} if family == "distilbert" else {"c_attn"}
    lora = methods["lora"].config_class(target_modules=targets, r=2)
    if adapters.sites["default"] and targets & {s.name for s in adapters.sites["default"]}:
        with pytest.raises(AdapterError, match="cannot share a layer"):
            adapters.add(lora, "lora")
        return
    adapters.add(lora, "lora")
    adapters.set(["default", "lora"])
    perturb(adapters)
    both = tiny.logits(model, family)
    assert not torch.allclose(both, own, atol=1e-4)
    adapters.set(["lora"])
    adapters.delete("default")
    adapters.delete("lora")
    adapters.unload()
    base = tiny.classifier(family)
    assert list(model.state_dict()) == list(base.state_dict())
    assert torch.equal(tiny.logits(model, family), tiny.logits(base, family))


def test_a_copied_adapted_model_is_independent(case: str) -> None:
    _, adapters = adapted(case, home(case))
    twin = copy.deepcopy(adapters)
    before = tiny.logits(adapters.model, home(case))
    perturb(twin)
    assert torch.equal(tiny.logits(adapters.model, home(case)), before)
    assert not torch.allclose(tiny.logits(twin.model, home(case)), before, atol=1e-4)


def _layers(model: nn.Module) -> list[tuple[str, Any]]:
    return [(p, m) for p, m in model.named_modules() if isinstance(m, AdapterLayer)]


def _own(name: str) -> bool:
    """Whether a saved tensor is not of the head."""
    return "classifier" not in name
