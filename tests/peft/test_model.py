"""The parts of the facade that peer tests do not reach: errors, promises of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import lorafit.peft as api
from lorafit.errors import AdapterError, ConfigError, TargetError
from tests import tiny


def model(family: str = "distilbert", **settings: Any) -> api.PeftModel:
    values: dict[str, Any] = {"r": 4, "target_modules": ["q_lin", "v_lin"], "task_type": "SEQ_CLS"}
    torch.manual_seed(0)
    wrapped = api.get_peft_model(tiny.classifier(family), api.LoraConfig(**values | settings))
    return filled(wrapped)


def filled(wrapped: api.PeftModel) -> api.PeftModel:
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return wrapped


# Making --------------------------------------------------------------------------------


def test_a_misspelled_target_is_an_error_and_the_model_is_as_before() -> None:
    base = tiny.classifier("distilbert")
    keys = base.state_dict().keys()
    with pytest.raises(TargetError, match=r'called "q_proj"[\s\S]*q_lin'):
        api.get_peft_model(base, api.LoraConfig(target_modules=["q_proj", "v_lin"]))
    assert base.state_dict().keys() == keys
    assert all(p.requires_grad for p in base.parameters())
    assert not hasattr(base, "peft_config")


def test_wrapping_twice_is_an_error() -> None:
    wrapped = model()
    for again in (wrapped, wrapped.get_base_model()):
        with pytest.raises(AdapterError, match="has adapters already"):
            api.get_peft_model(again, api.LoraConfig(target_modules=["k_lin"]))


def test_a_configuration_of_peft_is_refused_by_name() -> None:
    theirs: Any = peft.LoraConfig(target_modules=["q_lin"])
    with pytest.raises(ConfigError, match=r"peft\.tuners\.lora\.config\.LoraConfig"):
        api.get_peft_model(tiny.classifier("distilbert"), theirs)


def test_an_untrained_head_of_another_name_is_said(caplog: pytest.LogCaptureFixture) -> None:
    api.get_peft_model(
        tiny.classifier("t5"), api.LoraConfig(target_modules=["q"], task_type="SEQ_CLS")
    )
    assert "no module called classifier or score, so no head is trained" in caplog.text


def test_same_seed_same_adapter() -> None:
    def state() -> dict[str, torch.Tensor]:
        torch.manual_seed(11)
        config = api.LoraConfig(target_modules=["q_lin"])
        return api.get_peft_model(tiny.classifier("distilbert"), config).state_dict()

    first, second = state(), state()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_the_source_of_the_base_is_noted() -> None:
    base = tiny.classifier("distilbert")
    base.name_or_path = "someone/base"
    config = api.LoraConfig(target_modules=["q_lin"], base_model_name_or_path="other")
    with pytest.warns(UserWarning, match="renamed from 'other' to 'someone/base'"):
        config = api.get_peft_model(base, config, revision="v2").peft_config["default"]
    assert (config.base_model_name_or_path, config.revision) == ("someone/base", "v2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"mixed": True}, "mixed"), ({"peft_config": None}, "takes its own LoraConfig")],
)
def test_what_cannot_be_wrapped_is_refused(arguments: dict[str, Any], message: str) -> None:
    values = {"peft_config": api.LoraConfig(target_modules=["q_lin"])} | arguments
    with pytest.raises(ConfigError, match=message):
        api.get_peft_model(tiny.classifier("distilbert"), **values)


# Running -------------------------------------------------------------------------------


def test_mixing_adapters_in_a_batch_is_refused() -> None:
    batch = tiny.inputs("distilbert")
    wrapped = model().eval()
    with pytest.raises(ConfigError, match="adapter_names"):
        wrapped(**batch, adapter_names=["default"] * 3)
    assert torch.equal(
        wrapped(**batch, adapter_names=None).logits, tiny.logits(wrapped, "distilbert")
    )


def test_missing_attributes_name_the_model() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = model().nonsense
    assert not hasattr(model(), "nonsense")


def test_several_adapters_add_up_when_set_on_the_tuner() -> None:
    wrapped = model(task_type=None)
    wrapped.add_adapter("b", api.LoraConfig(target_modules=["k_lin"], init_lora_weights=False))
    wrapped.base_model.set_adapter(["default", "b"])
    assert wrapped.active_adapters == wrapped.active_adapter == ["default", "b"]
    both = tiny.logits(wrapped, "distilbert")
    wrapped.set_adapter("b")
    assert not torch.allclose(tiny.logits(wrapped, "distilbert"), both)


def test_setting_an_adapter_while_merged_warns_and_unmerges() -> None:
    wrapped = model()
    expected = tiny.logits(wrapped, "distilbert")
    wrapped.merge_adapter()
    with pytest.warns(UserWarning, match="when the model is merged"):
        wrapped.set_adapter("default")
    assert torch.equal(tiny.logits(wrapped, "distilbert"), expected)


def test_safe_merge_refuses_what_is_not_finite() -> None:
    wrapped = model()
    plain = {k: v.clone() for k, v in wrapped.state_dict().items() if "base_layer" in k}
    tuned: Any = wrapped.base_model.model
    layer = tuned.distilbert.transformer.layer[2].attention.v_lin
    nn.init.constant_(layer.lora_B["default"].weight, float("nan"))
    with pytest.raises(AdapterError, match="not finite"):
        wrapped.merge_and_unload(safe_merge=True)
    state = wrapped.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in plain.items())


def test_named_adapters_are_merged() -> None:
    wrapped = model(task_type=None)
    wrapped.add_adapter("b", api.LoraConfig(target_modules=["k_lin"], init_lora_weights=False))
    wrapped.set_adapter("b")
    expected = tiny.logits(wrapped, "distilbert")
    wrapped.set_adapter("default")
    merged = wrapped.merge_and_unload(adapter_names=["b"])
    assert torch.allclose(tiny.logits(merged, "distilbert"), expected, atol=1e-6)


def test_the_status_shows_what_is_on() -> None:
    wrapped = model(task_type=None)
    status = wrapped.get_model_status()
    assert (status.enabled, status.merged_adapters, status.requires_grad) == (
        True,
        [],
        {"default": True},
    )
    with wrapped.disable_adapter():
        assert wrapped.get_model_status().enabled is False
    tuned: Any = wrapped.base_model.model
    layer = tuned.distilbert.transformer.layer[0].attention.q_lin
    layer.merge()
    assert wrapped.get_model_status().merged_adapters == "irregular"
    assert api.get_layer_status(wrapped)[0].merged_adapters == ["default"]
    with pytest.raises(AdapterError, match="has no adapters"):
        api.get_layer_status(tiny.classifier("bert"))


# Saving and loading --------------------------------------------------------------------


def test_pickles_and_unknown_adapters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="safetensors only"):
        model().save_pretrained(tmp_path / "a", safe_serialization=False)
    with pytest.raises(AdapterError, match=r'no adapter "defualt".*Did you mean "default"'):
        model().save_pretrained(tmp_path / "a", selected_adapters=["defualt"])
    model().save_pretrained(tmp_path / "a", is_main_process=False)
    assert not (tmp_path / "a").exists()


def test_a_gathered_state_is_what_is_written(tmp_path: Path) -> None:
    """Trainers that shard the model gather its state and hand it over."""
    wrapped = model(use_dora=True)
    state = {key: value + 1.0 for key, value in wrapped.state_dict().items()}
    wrapped.save_pretrained(tmp_path / "a", state_dict=state)
    saved = load_file(tmp_path / "a" / "adapter_model.safetensors")
    for key, value in api.get_peft_model_state_dict(wrapped).items():
        assert torch.equal(saved[key], value + 1.0), key


def test_loading_is_strict_and_leaves_the_base_alone(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path / "a")
    base = tiny.classifier("bert")
    keys = base.state_dict().keys()
    with pytest.raises(AdapterError, match="does not fit this model"):
        api.PeftModel.from_pretrained(base, tmp_path / "a")
    assert base.state_dict().keys() == keys
    wrapped = model(target_modules=["k_lin"])
    expected = tiny.logits(wrapped, "distilbert")
    with pytest.raises(AdapterError, match="missing"):
        wrapped.load_adapter(tmp_path / "a", "default")
    assert torch.equal(tiny.logits(wrapped, "distilbert"), expected)


def test_a_given_configuration_takes_the_place_of_the_saved_one(tmp_path: Path) -> None:
    wrapped = model()
    wrapped.save_pretrained(tmp_path / "a")
    config: Any = api.PeftConfig.from_pretrained(tmp_path / "a")
    config.lora_alpha = 80
    loaded = api.PeftModel.from_pretrained(
        tiny.classifier("distilbert"), tmp_path / "a", config=config
    )
    tuned: Any = loaded.base_model.model
    layer = tuned.distilbert.transformer.layer[0].attention.q_lin
    assert layer.scaling["default"] == 20


def test_the_text_of_a_model_card_is_kept(tmp_path: Path) -> None:
    wrapped = model()
    wrapped.save_pretrained(tmp_path)
    card = tmp_path / "README.md"
    text = (
        card.read_text().replace("# LoRA adapter", "# My adapter").replace("lora\n", "lora\n- x\n")
    )
    card.write_text(text)
    wrapped.save_pretrained(tmp_path)
    assert "# My adapter" in card.read_text()
    assert "- x\n" in card.read_text()
    assert "library_name: peft" in card.read_text()


def test_pushing_uploads_the_adapter_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.utils import hub

    uploaded: list[str] = []

    class Hub:
        def create_repo(self, repo_id: str, **kwargs: Any) -> Any:
            return type("Repo", (), {"repo_id": repo_id})

        def create_commit(self, operations: list[Any], **kwargs: Any) -> str:
            uploaded.extend(operation.path_in_repo for operation in operations)
            return "done"

    card = type("Card", (), {"save": lambda self, path: Path(path).write_text("card")})()
    monkeypatch.setattr(hub, "hf_api", Hub)
    monkeypatch.setattr(hub, "create_and_tag_model_card", lambda *a, **k: card)
    assert model().push_to_hub("someone/adapter") == "done"
    assert sorted(uploaded) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.parametrize("auto", [api.AutoPeftModel, api.AutoPeftModelForSequenceClassification])
def test_auto_classes_load_base_and_adapter(tmp_path: Path, auto: Any) -> None:
    tiny.classifier("distilbert").save_pretrained(tmp_path / "base")
    wrapped = model()
    base: Any = wrapped.get_base_model()
    base.name_or_path = str(tmp_path / "base")
    wrapped.save_pretrained(tmp_path / "a")
    loaded = auto.from_pretrained(tmp_path / "a")
    assert type(loaded) is api.PeftModelForSequenceClassification
    # Loaded, the base computes its attention by another kernel.
    difference = tiny.logits(loaded, "distilbert") - tiny.logits(wrapped, "distilbert")
    assert difference.abs().max() < 1e-5
    with pytest.raises(OSError, match="from_pretrained"):
        auto()


def test_auto_classes_want_to_know_the_base(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path / "a")
    with pytest.raises(AdapterError, match="does not say what its base model is"):
        api.AutoPeftModel.from_pretrained(tmp_path / "a")


def test_partial_states_are_reported(tmp_path: Path) -> None:
    wrapped = model(task_type=None)
    state = api.get_peft_model_state_dict(wrapped)
    key = next(iter(state))
    del state[key]
    result = api.set_peft_model_state_dict(wrapped, state | {"base_model.model.x": torch.ones(1)})
    assert (result.missing_keys, result.unexpected_keys) == ([key], ["base_model.model.x"])
    wrong = {k: v[:1] for k, v in state.items()}
    with pytest.raises(AdapterError, match="shape"):
        api.set_peft_model_state_dict(wrapped, wrong)
    api.set_peft_model_state_dict(wrapped, wrong, ignore_mismatched_sizes=True)


def test_injected_adapters_train_without_a_wrapper() -> None:
    base = tiny.classifier("bert")
    config = api.LoraConfig(target_modules="all-linear")
    assert api.inject_adapter_in_model(config, base) is base
    api.inject_adapter_in_model(api.LoraConfig(target_modules=["key"]), base, "second")
    assert {n for n, p in base.named_parameters() if p.requires_grad} == {
        n for n, _ in base.named_parameters() if "lora_" in n and ".default." in n
    }
    state = api.get_peft_model_state_dict(base, adapter_name="second")
    assert len(state) == 6
    assert not any(key.startswith("base_model") for key in state)
    assert api.set_peft_model_state_dict(base, state, "second").missing_keys == []


# Preparing -----------------------------------------------------------------------------


def test_kbit_preparation_freezes_and_casts() -> None:
    base: Any = tiny.classifier("llama")
    base.to(torch.bfloat16)
    assert api.prepare_model_for_kbit_training(base) is base
    assert not any(p.requires_grad for p in base.parameters())
    assert {p.dtype for p in base.parameters()} == {torch.float32}


def test_kbit_preparation_of_quantized_models_saves_memory() -> None:
    base: Any = tiny.classifier("llama")
    base.is_quantized = True
    with pytest.warns(FutureWarning):
        api.prepare_model_for_kbit_training(base)
    assert base.is_activation_checkpointing


def test_a_base_inside_an_installed_package_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "a_package_with_a_model"
    tiny.classifier("distilbert").save_pretrained(package / "model")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    wrapped = model()
    expected = tiny.logits(wrapped, "distilbert")
    wrapped.peft_config["default"].base_model_name_or_path = f"package:{package.name}/model"
    wrapped.save_pretrained(tmp_path / "saved")
    kind = api.AutoPeftModelForSequenceClassification
    loaded = kind.from_pretrained(tmp_path / "saved", num_labels=3)
    torch.testing.assert_close(tiny.logits(loaded, "distilbert"), expected)
    wrapped.peft_config["default"].base_model_name_or_path = "package:no_such_package/model"
    wrapped.save_pretrained(tmp_path / "saved")
    with pytest.raises(AdapterError, match="no_such_package"):
        kind.from_pretrained(tmp_path / "saved")
