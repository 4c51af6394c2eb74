"""Adapters that are saved, loaded again, unloaded, compiled or pickled."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import lorafit.peft as api
from lorafit.errors import AdapterError, ConfigError
from tests import tiny


def made(base: nn.Module | None = None, seed: int = 0, **settings: Any) -> api.PeftModel:
    """A model with an adapter that is not zero."""
    values = {"r": 4, "target_modules": ["query", "value"], "init_lora_weights": False} | settings
    base = tiny.classifier("bert") if base is None else base
    torch.manual_seed(seed)
    model = api.get_peft_model(base, api.LoraConfig(**values))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    return model


def computed(model: nn.Module) -> torch.Tensor:
    """Logits, reckoned in float64: what differs then differs in the weights, not by rounding."""
    model.double()
    logits = tiny.logits(model, "bert")
    model.float()
    return logits


# Into a name that is there ---------------------------------------------------------------

OTHERS: list[dict[str, Any]] = [
    {"lora_alpha": 32},
    {"lora_alpha": 32, "use_rslora": True},
    {"lora_alpha": 32, "alpha_pattern": {r"layer\.1\..*query": 3.0}},
    {"lora_alpha": 32, "init_lora_weights": "pissa"},
    {"lora_alpha": 32, "init_lora_weights": "olora", "use_rslora": True},
]


@pytest.mark.parametrize("second", OTHERS)
@pytest.mark.parametrize("first", [*OTHERS, {"lora_alpha": 8}])
def test_an_adapter_loaded_into_another_computes_what_was_saved(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    starts = ("pissa", "olora")
    if (first.get("init_lora_weights") in starts) != (second.get("init_lora_weights") in starts):
        # An adapter with a start of its own has twice the rank on disk: that is refused.
        made(**second).save_pretrained(tmp_path)
        with pytest.raises(AdapterError, match="shape of"):
            made(**first).load_adapter(tmp_path, "default")
        return
    saved = made(**second)
    expected = computed(saved)
    saved.save_pretrained(tmp_path / "saved")
    model = made(seed=1, **first)
    assert not torch.allclose(computed(model), expected)
    model.load_adapter(tmp_path / "saved", "default")
    torch.testing.assert_close(computed(model), expected)
    model.save_pretrained(tmp_path / "again")
    again = api.PeftModel.from_pretrained(tiny.classifier("bert"), tmp_path / "again")
    torch.testing.assert_close(computed(again), expected)


def test_nothing_is_loaded_while_an_adapter_is_merged(tmp_path: Path) -> None:
    made(lora_alpha=32).save_pretrained(tmp_path)
    model = made(lora_alpha=8)
    before = tiny.logits(model, "bert")
    state = {k: v.clone() for k, v in api.get_peft_model_state_dict(model).items()}
    model.merge_adapter()
    with pytest.raises(AdapterError, match="default is merged; unmerge before you load"):
        model.load_adapter(tmp_path, "default")
    with pytest.raises(AdapterError, match="merged"):
        api.set_peft_model_state_dict(model, {k: v + 1 for k, v in state.items()})
    model.unmerge_adapter()
    assert torch.equal(tiny.logits(model, "bert"), before)


# After unloading -------------------------------------------------------------------------


def test_saving_after_merge_and_unload_says_what_to_save(tmp_path: Path) -> None:
    for take_off in ("merge_and_unload", "unload"):
        model = made()
        plain = getattr(model, take_off)()
        with pytest.raises(AdapterError, match=r"no adapter left to save.*own `save_pretrained`"):
            model.save_pretrained(tmp_path / "x")
        assert not (tmp_path / "x").exists()
        with pytest.raises(AdapterError, match='no adapter "default"'):
            api.get_peft_model_state_dict(model)
        with pytest.raises(AdapterError, match="no adapter left"):
            _ = model.active_peft_config
        plain.save_pretrained(tmp_path / take_off)
        assert (tmp_path / take_off / "model.safetensors").is_file()


# Compiled models -------------------------------------------------------------------------


def test_the_state_of_a_compiled_model_is_what_is_saved(tmp_path: Path) -> None:
    cases: list[dict[str, Any]] = [
        {},
        {"task_type": "SEQ_CLS", "use_dora": True, "bias": "all"},
        {"init_lora_weights": "pissa"},
    ]
    for number, settings in enumerate(cases):
        model = made(**settings)
        expected = computed(model)
        compiled: Any = torch.compile(model, backend="eager")
        state = {key: value.clone() for key, value in compiled.state_dict().items()}
        assert all(key.startswith("_orig_mod.") for key in state)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.zero_()
        folder = tmp_path / str(number)
        model.save_pretrained(folder, state_dict=state)
        loaded = api.PeftModel.from_pretrained(tiny.classifier("bert"), folder)
        torch.testing.assert_close(computed(loaded), expected)


def test_a_state_of_another_model_is_refused(tmp_path: Path) -> None:
    model = made()
    with pytest.raises(AdapterError, match=r"no base_model\.model\.bert.*not a state of this"):
        model.save_pretrained(tmp_path, state_dict=tiny.classifier("bert").state_dict())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    "settings",
    # All layers changed as much as the others' few would magnify the rounding of merged weights.
    [
        {"task_type": "SEQ_CLS"},
        {"target_modules": "all-linear", "lora_alpha": 0.1},
        {"bias": "all"},
    ],
)
def test_an_adapter_on_a_compiled_base_fits_a_plain_one_and_back(
    tmp_path: Path, inside: bool, settings: dict[str, Any]
) -> None:
    def compiled() -> Any:
        base: Any = tiny.classifier("bert")
        if not inside:
            return torch.compile(base, backend="eager")
        layers = base.bert.encoder.layer
        layers[1] = torch.compile(layers[1], backend="eager")
        return base

    model = made(base=compiled(), **settings)
    expected = computed(model)
    assert not torch.allclose(expected, computed(tiny.classifier("bert")), atol=1e-3)
    model.save_pretrained(tmp_path / "one")
    keys = load_file(tmp_path / "one" / "adapter_model.safetensors").keys()
    assert not any("_orig_mod" in key for key in keys)
    assert "_orig_mod" not in (tmp_path / "one" / "adapter_config.json").read_text()
    plain = api.PeftModel.from_pretrained(tiny.classifier("bert"), tmp_path / "one")
    torch.testing.assert_close(computed(plain), expected)
    plain.save_pretrained(tmp_path / "two")
    back = api.PeftModel.from_pretrained(compiled(), tmp_path / "two")
    torch.testing.assert_close(computed(back), expected)
    merged = back.merge_and_unload()
    # Merged weights are rounded to float32.
    torch.testing.assert_close(computed(merged).float(), expected.float())


# Pickle, generation ----------------------------------------------------------------------


def test_a_model_with_gradient_checkpointing_can_be_pickled() -> None:
    base = tiny.classifier("bert")
    base.activation_checkpointing_enable({"use_reentrant": True})
    model = made(base=base)
    copy = pickle.loads(pickle.dumps(model))
    assert torch.equal(tiny.logits(copy, "bert"), tiny.logits(model, "bert"))
    for each in (model, copy):
        each.train()
        each(**tiny.inputs("bert")).logits.sum().backward()
        assert all(p.grad is not None for p in each.parameters() if p.requires_grad)
    base.disable_input_require_grads()
    assert not base.get_input_embeddings()._forward_hooks


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_model_whose_input_asks_for_gradients_can_be_pickled(wrapped: bool) -> None:
    base: Any = tiny.classifier("bert")
    if not wrapped:
        base.enable_input_require_grads()
    model = made(base=base)
    if wrapped:
        model.enable_input_require_grads()
    copy = pickle.loads(pickle.dumps(model))
    assert torch.equal(tiny.logits(copy, "bert"), tiny.logits(model, "bert"))
    for each in (model, copy):
        assert each.get_input_embeddings()(torch.tensor([[3]])).requires_grad
    model.disable_input_require_grads()
    assert not model.get_input_embeddings()(torch.tensor([[3]])).requires_grad


def test_generating_for_several_adapters_in_a_batch_is_refused_in_our_words() -> None:
    model = made(base=tiny.language_model("llama"), target_modules=["q_proj"])
    ids = tiny.inputs("llama")["input_ids"]
    with pytest.raises(ConfigError, match="lorafit does not mix adapters in one batch"):
        model.generate(input_ids=ids, adapter_names=["default"] * 3)
    tuner: Any = model.base_model
    for call in (model, tuner, tuner.generate):
        with pytest.raises(ConfigError, match="lorafit does not mix adapters in one batch"):
            call(input_ids=ids, adapter_names=["default"] * 3)
    assert model.generate(input_ids=ids, adapter_names=None, max_new_tokens=2).shape[1] >= 8
