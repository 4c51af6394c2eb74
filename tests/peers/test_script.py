"""One script, written for peft, run with peft and with lorafit.peft."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import peft
import pytest
import torch

import lorafit.peft as ours_api
from tests import tiny
from tests.peers.pair import assert_close, logits, ours, randomised


def script(api: ModuleType, folder: Path) -> dict[str, Any]:
    """Uses what PEFT documents, in memory and on disk; returns all that it saw."""
    seen: dict[str, Any] = {}
    config = api.LoraConfig(
        r=8,
        lora_alpha=32,
        target_modules=["q_lin", "v_lin"],
        lora_dropout=0.05,
        bias="none",
        task_type=api.TaskType.SEQ_CLS,
    )
    base = tiny.classifier("distilbert")
    model = api.get_peft_model(base, config)
    seen["class"] = type(model).__name__
    seen["counts"] = model.get_nb_trainable_parameters()
    seen["modules_to_save"] = "classifier" in model.modules_to_save
    seen["targets"] = model.peft_config["default"].target_modules
    seen["same config"] = model.peft_config["default"] is config
    seen["task"] = config.task_type == "SEQ_CLS" == api.TaskType.SEQ_CLS
    seen["type"] = config.peft_type.value, config.peft_type == api.PeftType.LORA
    seen["dict"] = {k: v for k, v in config.to_dict().items() if k in ("r", "lora_alpha", "bias")}
    seen["base"] = model.get_base_model() is base, model.base_model.model is base
    seen["forwarded"] = model.config is base.config, model.device, model.num_labels
    seen["active"] = model.active_adapter, model.active_adapters
    randomised(model)

    layer = model.base_model.model.distilbert.transformer.layer[0].attention.q_lin
    seen["is layer"] = isinstance(layer, api.LoraModel) or hasattr(layer, "base_layer")
    seen["shapes"] = (
        tuple(layer.lora_A["default"].weight.shape),
        tuple(layer.lora_B["default"].weight.shape),
        tuple(layer.base_layer.weight.shape),
        tuple(layer.weight.shape),
        layer.in_features,
        layer.out_features,
    )
    seen["numbers"] = layer.scaling["default"], layer.r["default"], layer.lora_alpha["default"]
    seen["dropout"] = layer.lora_dropout["default"].p
    seen["state"] = layer.active_adapters, layer.merged_adapters, layer.merged
    seen["delta"] = layer.get_delta_weight("default").detach().clone()
    head = model.base_model.model.classifier
    seen["head"] = sorted(head.modules_to_save), tuple(head.original_module.weight.shape)
    seen["head attribute"] = tuple(head.weight.shape)
    seen["trainable"] = sorted(n for n, p in model.named_parameters() if p.requires_grad)

    seen["logits"] = logits(model, "distilbert")
    with model.disable_adapter():
        seen["disabled"] = logits(model, "distilbert")
    model.merge_adapter()
    seen["merged"] = layer.merged, list(layer.merged_adapters), logits(model, "distilbert")
    model.unmerge_adapter()
    seen["unmerged"] = layer.merged, logits(model, "distilbert")

    second = api.LoraConfig(r=2, target_modules=["q_lin", "k_lin"], task_type="SEQ_CLS")
    model.add_adapter("second", second)
    seen["after add"] = model.active_adapters, sorted(model.peft_config)
    model.set_adapter("second")
    seen["switched"] = sorted(n for n, p in model.named_parameters() if p.requires_grad)
    randomised(model)
    seen["second"] = logits(model, "distilbert")
    model.save_pretrained(folder)
    seen["files"] = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
    model.set_adapter("default")
    with pytest.warns(UserWarning, match="now deleted"):
        model.delete_adapter("default")
    seen["after delete"] = model.active_adapters, sorted(model.peft_config)

    seen["config"] = api.PeftConfig.from_pretrained(folder).r
    loaded = api.PeftModel.from_pretrained(tiny.classifier("distilbert"), folder)
    seen["loaded"] = type(loaded).__name__, loaded.training, logits(loaded, "distilbert")
    seen["frozen"] = loaded.get_nb_trainable_parameters()
    seen["inference"] = loaded.peft_config["default"].inference_mode
    loaded.load_adapter(folder / "second", adapter_name="second")
    seen["loaded second"] = loaded.active_adapters, sorted(loaded.peft_config)
    loaded.set_adapter("second")
    seen["switched to second"] = logits(loaded, "distilbert")
    status = loaded.get_model_status()
    seen["status"] = status.enabled, status.available_adapters, status.num_adapter_layers
    seen["status types"] = status.active_adapters, status.merged_adapters, status.base_model_type
    merged = loaded.merge_and_unload()
    seen["merged class"] = type(merged).__name__
    seen["merged logits"] = logits(merged, "distilbert")
    seen["merged keys"] = sorted(merged.state_dict())

    again = api.PeftModel.from_pretrained(
        tiny.classifier("distilbert"), str(folder), adapter_name="mine", is_trainable=True
    )
    seen["trainable again"] = again.get_nb_trainable_parameters(), again.active_adapter
    seen["unloaded"] = type(again.unload()).__name__

    plain = api.get_peft_model(tiny.classifier("bert"), api.LoraConfig(target_modules=["key"]))
    seen["without task"] = type(plain).__name__, plain.get_nb_trainable_parameters()
    injected = api.inject_adapter_in_model(
        api.LoraConfig(target_modules=["key"], init_lora_weights=False), tiny.classifier("bert")
    )
    seen["injected"] = sorted(api.get_peft_model_state_dict(injected))
    lm = api.get_peft_model(
        tiny.language_model("llama"),
        api.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]),
    )
    randomised(lm)
    ids = tiny.inputs("llama")["input_ids"][:1]
    seen["generated"] = lm.generate(input_ids=ids, max_new_tokens=4, do_sample=False)
    return seen


def test_the_script_sees_the_same_with_both(tmp_path: Path) -> None:
    mine, other = script(ours_api, tmp_path / "ours"), script(peft, tmp_path / "theirs")
    assert mine.keys() == other.keys()
    # Here a configuration is copied, so that its use does not change it.
    assert (mine.pop("same config"), other.pop("same config")) == (False, True)
    different = [key for key in other if not same(mine[key], other[key])]
    assert not different, {key: (mine[key], other[key]) for key in different}


def same(a: Any, b: Any) -> bool:
    if isinstance(b, torch.Tensor):
        assert_close(a, b)
        return True
    if isinstance(b, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def test_unloading_gives_the_base_back() -> None:
    """peft says so too, but leaves the trained head in."""
    plain = logits(tiny.classifier("distilbert"), "distilbert")
    assert torch.equal(logits(ours("distilbert").unload(), "distilbert"), plain)


@pytest.mark.parametrize("name", ["PrefixTuningConfig", "IA3Config"])
def test_names_that_are_not_here_say_so(name: str) -> None:
    with pytest.raises(AttributeError, match=f"lorafit.peft has no {name}"):
        getattr(ours_api, name)
    with pytest.raises(ImportError, match=f"lorafit.peft has no {name}"):
        exec(f"from lorafit.peft import {name}")
    assert not hasattr(ours_api, "nonsense")
