"""Adapters in folders: exact round trips, strict loading, nothing half-written."""

from __future__ import annotations

import errno
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from lorafit.adapt import Adapters
from lorafit.errors import AdapterError
from lorafit.export import peft, peft_source
from lorafit.export.peft_config import describe
from lorafit.methods.lora import LoraConfig
from tests import tiny

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def trained(family: str = "distilbert", name: str = "default", **settings: Any) -> Adapters:
    """Adapters with random weights on a tiny classifier."""
    values: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | settings
    adapters = Adapters(tiny.classifier(family))
    adapters.add(LoraConfig(**values), name)
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in adapters.parameters_of(name).values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return adapters


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A saved adapter with a head, trained on DistilBERT."""
    adapters = trained(
        target_modules={"q_lin", "v_lin"},
        modules_to_save=["classifier"],
        base_model_name_or_path="some/base",
    )
    return peft.save(adapters, tmp_path / "adapter")


def edit_config(folder: Path, **changes: Any) -> None:
    fields = json.loads((folder / CONFIG).read_text()) | changes
    (folder / CONFIG).write_text(json.dumps(fields))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


# Round trips ---------------------------------------------------------------------------


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize(
    "settings",
    [{}, {"use_dora": True}, {"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}],
)
def test_saved_and_loaded_computes_the_same(
    tmp_path: Path, family: str, settings: dict[str, Any]
) -> None:
    adapters = trained(family, **settings)
    expected = tiny.logits(adapters.model, family)
    peft.save(adapters, tmp_path / "a")
    again = peft.load(tiny.classifier(family), tmp_path / "a")
    difference = (tiny.logits(again.model, family) - expected).abs().max()
    assert difference <= 1e-5 * expected.abs().max()
    plain = tiny.logits(tiny.classifier(family), family)
    assert (plain - expected).abs().max() > 1e-3 * expected.abs().max()
    if not settings.get("init_lora_weights"):
        assert torch.equal(tiny.logits(again.model, family), expected)


def test_saving_what_was_loaded_gives_the_same_bytes(tmp_path: Path, saved: Path) -> None:
    again = peft.load(tiny.classifier("distilbert"), saved)
    peft.save(again, tmp_path / "again")
    for file in (CONFIG, WEIGHTS):
        assert (tmp_path / "again" / file).read_bytes() == (saved / file).read_bytes()


def test_the_adapter_may_have_any_name_on_either_side(tmp_path: Path) -> None:
    adapters = trained(name="mine", modules_to_save=["classifier"])
    peft.save(adapters, tmp_path / "a", "mine")
    assert not any("mine" in key for key in load_file(tmp_path / "a" / WEIGHTS))
    again = peft.load(tiny.classifier("distilbert"), tmp_path / "a", "yours")
    assert list(again.configs) == ["yours"]
    assert torch.equal(
        tiny.logits(again.model, "distilbert"), tiny.logits(adapters.model, "distilbert")
    )


def test_loaded_adapters_are_frozen_unless_asked_for(saved: Path) -> None:
    assert not peft.load(tiny.classifier("distilbert"), saved).trainable()
    assert peft.load(tiny.classifier("distilbert"), saved, trainable=True).trainable()


def test_loading_draws_no_random_numbers(saved: Path) -> None:
    model = tiny.classifier("distilbert")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    peft.load(model, saved)
    assert torch.equal(torch.rand(2), expected)


def test_a_second_adapter_joins_those_there(saved: Path) -> None:
    adapters = trained(target_modules={"k_lin"})
    before = tiny.logits(adapters.model, "distilbert")
    assert peft.load(adapters, saved, "second") is adapters
    assert adapters.active == ["default"]
    assert torch.equal(tiny.logits(adapters.model, "distilbert"), before)


# What the config says ------------------------------------------------------------------


def test_the_config_has_what_peft_and_vllm_read(saved: Path) -> None:
    fields = json.loads((saved / CONFIG).read_text())
    expected = {
        "peft_type": "LORA",
        "base_model_name_or_path": "some/base",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_lin", "v_lin"],
        "modules_to_save": ["classifier"],
        "bias": "none",
        "inference_mode": True,
        "fan_in_fan_out": False,
        "use_dora": False,
        "use_rslora": False,
        "init_lora_weights": True,
        "rank_pattern": {},
        "alpha_pattern": {},
        "lora_dropout": 0.0,
        "task_type": None,
    }
    assert fields | expected == fields
    assert fields["auto_mapping"]["base_model_class"] == "DistilBertForSequenceClassification"


def test_task_type_and_orientation_are_noted() -> None:
    fields = describe(trained("gpt2", task_type="SEQ_CLS"))
    assert fields["task_type"] == "SEQ_CLS"
    assert fields["auto_mapping"] is None
    assert fields["fan_in_fan_out"] is True


@pytest.mark.parametrize(
    ("settings", "targets"),
    [
        ({"target_modules": "all-linear"}, ["k_lin", "lin1", "lin2", "out_lin", "q_lin", "v_lin"]),
        ({"target_modules": None}, ["k_lin", "lin1", "lin2", "out_lin", "q_lin", "v_lin"]),
        # The expression also matches the attention module, which PEFT would choke on.
        (
            {"target_modules": r".*layer\.0\.attention.*"},
            [f"distilbert.transformer.layer.0.attention.{n}_lin" for n in ("k", "out", "q", "v")],
        ),
        (
            {"target_modules": r".*q_lin", "layers_to_transform": [1]},
            ["distilbert.transformer.layer.1.attention.q_lin"],
        ),
    ],
)
def test_layers_are_listed_where_peft_would_select_others(
    settings: dict[str, Any], targets: list[str]
) -> None:
    fields = describe(trained(**settings))
    assert fields["target_modules"] == targets
    assert fields["layers_to_transform"] is None


def test_a_selection_that_peft_reads_alike_is_kept() -> None:
    fields = describe(
        trained(target_modules={"q_lin", "lin1"}, layers_to_transform=[0, 2], exclude_modules=None)
    )
    assert fields["target_modules"] == ["lin1", "q_lin"]
    assert fields["layers_to_transform"] == [0, 2]


@pytest.mark.parametrize("rslora", [False, True])
def test_an_adapter_with_an_origin_is_saved_with_twice_the_rank(rslora: bool) -> None:
    adapters = trained(
        init_lora_weights="pissa",
        use_rslora=rslora,
        rank_pattern={"q_lin": 2},
        alpha_pattern={"v_lin": 3},
    )
    fields = describe(adapters)
    assert (fields["r"], fields["rank_pattern"]) == (8, {"q_lin": 4})
    assert fields["init_lora_weights"] is True
    config = LoraConfig(**{k: fields[k] for k in ("r", "lora_alpha", "use_rslora")})
    assert config.scaling("x") == pytest.approx(
        LoraConfig(r=4, lora_alpha=8, use_rslora=rslora).scaling("x")
    )


# Refused files -------------------------------------------------------------------------


def test_other_folders_and_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(AdapterError, match=r"no adapter_config\.json \(it has model\.bin\)"):
        peft.read_config(tmp_path)
    with pytest.raises(AdapterError, match=r"there is no folder .*not a Hub id"):
        peft.read_config(tmp_path / "does" / "not" / "exist")
    with pytest.raises(AdapterError, match="has no subfolder"):
        peft.read_config(tmp_path, subfolder="x")


def test_a_config_that_is_not_json_is_refused(saved: Path) -> None:
    (saved / CONFIG).write_text("{not json")
    with pytest.raises(AdapterError, match="cannot be read as JSON"):
        peft.read_config(saved)
    (saved / CONFIG).write_text("[]")
    with pytest.raises(AdapterError, match="not a JSON object"):
        peft.read_config(saved)
    (saved / CONFIG).write_bytes(b"\xff\xfe{}")
    with pytest.raises(AdapterError, match="cannot be read as JSON"):
        peft.read_config(saved)


@pytest.mark.parametrize("kind", ["NOWHERE", "P_TUNING", None])
def test_methods_that_are_not_here_are_refused(saved: Path, kind: str | None) -> None:
    edit_config(saved, peft_type=kind)
    with pytest.raises(AdapterError, match=r"cannot be loaded here: .*peft_type|peft_type.* LORA"):
        peft.read_config(saved)


@pytest.mark.parametrize(
    "option",
    [
        {"megatron_config": {"x": 1}},
        {"layer_replication": [[0, 2]]},
        {"alora_invocation_tokens": [3]},
        {"lora_bias": True},
        {"use_qalora": True},
        {"ensure_weight_tying": True},
        {"invented_in_2030": 1},
    ],
)
def test_options_that_we_do_not_have_are_refused(saved: Path, option: dict[str, Any]) -> None:
    edit_config(saved, **option)
    (name,) = option
    with pytest.raises(AdapterError, match=f"does not have: {name}="):
        peft.read_config(saved)


@pytest.mark.parametrize("init", ["loftq", "eva", "corda", "lora_ga"])
def test_initialisations_that_change_the_base_are_refused(saved: Path, init: str) -> None:
    edit_config(saved, init_lora_weights=init)
    with pytest.raises(AdapterError, match="init_lora_weights"):
        peft.read_config(saved)


def test_a_random_decomposition_of_the_base_is_refused(saved: Path) -> None:
    edit_config(saved, init_lora_weights="pissa_niter_4")
    with pytest.raises(AdapterError, match="random SVD"):
        peft.load(tiny.classifier("distilbert"), saved)


def test_unknown_fields_that_say_nothing_are_ignored(saved: Path) -> None:
    edit_config(
        saved,
        invented_in_2030=None,
        also_new=False,
        nothing={},
        peft_version="0.21.2",
        megatron_core="megatron.core",
        qalora_group_size=16,
    )
    assert peft.read_config(saved).model_dump()["r"] == 4


def test_wrong_values_are_named(saved: Path) -> None:
    edit_config(saved, r="many")
    with pytest.raises(AdapterError, match="not usable: r: "):
        peft.read_config(saved)


def test_pickled_weights_are_refused_unread(saved: Path) -> None:
    (saved / WEIGHTS).rename(saved / "adapter_model.bin")
    with pytest.raises(AdapterError, match="a pickle, which can run any code"):
        peft.load(tiny.classifier("distilbert"), saved)
    (saved / "adapter_model.bin").unlink()
    with pytest.raises(AdapterError, match="incomplete"):
        peft.load(tiny.classifier("distilbert"), saved)


@pytest.mark.parametrize("keep", [0, 7, 200, -1])
def test_damaged_weights_are_refused(saved: Path, keep: int) -> None:
    content = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(content[:keep])
    with pytest.raises(AdapterError, match="damaged"):
        peft.load(tiny.classifier("distilbert"), saved)


# Strictness ----------------------------------------------------------------------------

A = "base_model.model.distilbert.transformer.layer.0.attention.q_lin.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(A), r"missing: distilbert\.transformer\.layer\.0"),
        (lambda t: t.update({A.replace("q_lin", "k_lin"): t[A].clone()}), "unexpected: .*k_lin"),
        (lambda t: t.update({A: t[A][:2]}), r"shape of .*\(2, 32\), the model needs \(4, 32\)"),
        (lambda t: t.pop("base_model.model.classifier.bias"), r"missing: classifier\.bias"),
        (lambda t: t.update({"lora.weight": t.pop(A)}), "keys begin with base_model.model."),
    ],
)
def test_tensors_that_do_not_fit_are_listed_and_the_model_is_as_before(
    saved: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    edit_tensors(saved, change)
    model = tiny.classifier("distilbert")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    with pytest.raises(AdapterError, match=message):
        peft.load(model, saved)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags


def test_a_failed_load_leaves_the_adapters_there_alone(saved: Path) -> None:
    edit_tensors(saved, lambda t: t.pop(A))
    adapters = trained()
    expected = tiny.logits(adapters.model, "distilbert")
    with pytest.raises(AdapterError, match="missing"):
        peft.load(adapters, saved, "second")
    assert list(adapters.configs) == adapters.active == ["default"]
    assert torch.equal(tiny.logits(adapters.model, "distilbert"), expected)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_the_adapter_of_another_architecture_says_whose_it_is(saved: Path, family: str) -> None:
    with pytest.raises(AdapterError, match=r'not fit this model\. It was made for "some/base"'):
        peft.load(tiny.classifier(family), saved)


def test_the_adapter_of_another_size_says_whose_it_is(saved: Path) -> None:
    wide = hf.DistilBertForSequenceClassification(
        hf.DistilBertConfig(vocab_size=20, dim=16, n_layers=3, n_heads=2, hidden_dim=8)
    )
    with pytest.raises(AdapterError, match=r'made for "some/base"[\s\S]*shape of .*\(4, 16\)'):
        peft.load(wide, saved)
    with pytest.raises(AdapterError, match=r"shape of classifier"):
        peft.load(tiny.classifier("distilbert", num_labels=5), saved)


def test_names_in_peft_files_that_mean_nothing_are_dropped(saved: Path) -> None:
    expected = tiny.logits(peft.load(tiny.classifier("distilbert"), saved).model, "distilbert")
    edit_config(
        saved,
        modules_to_save=["classifier", "score", "classifier"],
        target_modules=["q_lin", "v_lin", "q_proj"],
        layers_to_transform=[0, 1, 2, 99],
        rank_pattern={"nothing": 3},
    )
    again = peft.load(tiny.classifier("distilbert"), saved)
    assert torch.equal(tiny.logits(again.model, "distilbert"), expected)


def test_biases_that_the_model_does_not_have_are_no_error(tmp_path: Path) -> None:
    adapters = trained("llama")
    peft.save(adapters, tmp_path)
    for bias in ("all", "lora_only"):
        edit_config(tmp_path, bias=bias)
        again = peft.load(tiny.classifier("llama"), tmp_path)
        assert torch.equal(tiny.logits(again.model, "llama"), tiny.logits(adapters.model, "llama"))


# Writing -------------------------------------------------------------------------------


def fail(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_old_adapter_and_no_traces(
    monkeypatch: pytest.MonkeyPatch, saved: Path
) -> None:
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    for step in ("safetensors.torch.save_file", "lorafit.export.peft.json.dumps"):
        with monkeypatch.context() as patch:
            patch.setattr(step, fail)
            with pytest.raises(AdapterError, match="No space left on device"):
                peft.save(trained(), saved)
            with pytest.raises(AdapterError, match="No space left on device"):
                peft.save(trained(), saved.parent / "new")
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]


def test_an_interrupted_save_leaves_no_traces(monkeypatch: pytest.MonkeyPatch, saved: Path) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    monkeypatch.setattr("safetensors.torch.save_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        peft.save(trained(), saved)
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before


def test_other_files_in_the_folder_stay(saved: Path) -> None:
    (saved / "optimizer.pt").write_text("state")
    adapters = trained(target_modules={"k_lin"})
    peft.save(adapters, saved)
    assert (saved / "optimizer.pt").read_text() == "state"
    again = peft.load(tiny.classifier("distilbert"), saved)
    assert torch.equal(
        tiny.logits(again.model, "distilbert"), tiny.logits(adapters.model, "distilbert")
    )


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AdapterError, match="is a file"):
        peft.save(trained(), tmp_path / "file")
    with pytest.raises(AdapterError, match="cannot write"):
        peft.save(trained(), tmp_path / "file" / "adapter")


# Embeddings ----------------------------------------------------------------------------


def test_targeted_embeddings_are_saved_with_their_base_as_peft_does(tmp_path: Path) -> None:
    adapters = trained("llama", target_modules={"embed_tokens", "q_proj"})
    peft.save(adapters, tmp_path / "a")
    keys = load_file(tmp_path / "a" / WEIGHTS)
    assert "base_model.model.model.embed_tokens.base_layer.weight" in keys
    assert keys["base_model.model.model.embed_tokens.lora_embedding_A"].shape == (4, tiny.VOCAB)
    again = peft.load(tiny.classifier("llama"), tmp_path / "a")
    assert torch.equal(tiny.logits(again.model, "llama"), tiny.logits(adapters.model, "llama"))
    peft.save(
        adapters,
        tmp_path / "b",
        tensors=peft.tensors_of(adapters, save_embedding_layers=False),
    )
    assert not any("base_layer" in key for key in load_file(tmp_path / "b" / WEIGHTS))
    peft.load(tiny.classifier("llama"), tmp_path / "b")


def test_resized_embeddings_are_saved_and_ask_to_be_resized(tmp_path: Path) -> None:
    base = tiny.language_model("llama")
    base.save_pretrained(tmp_path / "base")
    base.name_or_path = str(tmp_path / "base")
    base.resize_token_embeddings(tiny.VOCAB + 3, mean_resizing=False)
    adapters = Adapters(base)
    adapters.add(LoraConfig(target_modules={"q_proj"}))
    expected = tiny.logits(base, "llama")
    peft.save(adapters, tmp_path / "a")

    fresh = tiny.language_model("llama")
    with pytest.raises(AdapterError, match=r"resize_token_embeddings\(102\)"):
        peft.load(fresh, tmp_path / "a")
    fresh.resize_token_embeddings(tiny.VOCAB + 3, mean_resizing=False)
    peft.load(fresh, tmp_path / "a")
    assert torch.equal(tiny.logits(fresh, "llama"), expected)


# Hub -----------------------------------------------------------------------------------


def test_from_the_hub_only_the_two_files_are_fetched(
    monkeypatch: pytest.MonkeyPatch, saved: Path
) -> None:
    asked: dict[str, Any] = {}

    def download(repo: str, **arguments: Any) -> str:
        asked.update(arguments, repo=repo)
        return str(saved.parent)

    monkeypatch.setattr(peft_source, "snapshot_download", download)
    loaded = peft.load(
        tiny.classifier("distilbert"), "someone/adapter", subfolder="adapter", revision="v2"
    )
    assert list(loaded.configs) == ["default"]
    assert asked == {
        "repo": "someone/adapter",
        "revision": "v2",
        "allow_patterns": [f"adapter/{CONFIG}", f"adapter/{WEIGHTS}"],
    }


def test_a_hub_that_does_not_answer_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repo: str, **arguments: Any) -> str:
        raise LocalEntryNotFoundError("Cannot find the requested files.\nMore.")

    monkeypatch.setattr(peft_source, "snapshot_download", download)
    with pytest.raises(AdapterError) as caught:
        peft.load(tiny.classifier("distilbert"), "someone/adapter")
    assert str(caught.value) == (
        'there is no folder "someone/adapter", and as a Hub id it is not in the cache and the Hub '
        "cannot be reached (offline, or HF_HUB_OFFLINE is set). Check the spelling, or go online "
        "once."
    )


# Serving -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, None),
        ({"use_rslora": True}, None),
        ({"r": 8, "lora_alpha": 16, "rank_pattern": {"q": 4}, "alpha_pattern": {"q": 8}}, None),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["score"]}, r"modules_to_save \(score\)"),
        ({"r": 8, "rank_pattern": {"q": 4}}, "another scale"),
        ({"alpha_pattern": {"q": 5}}, "another scale"),
        ({"r": 4, "lora_alpha": 8, "rank_pattern": {"q": 8}, "alpha_pattern": {"q": 16}}, "above"),
    ],
)
def test_what_vllm_could_not_serve_is_said(settings: dict[str, Any], reason: str | None) -> None:
    reasons = " ".join(peft.servable(LoraConfig(**settings)))
    if reason is None:
        assert reasons == ""
    else:
        assert re.search(reason, reasons)


def test_it_is_said_when_saving(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="lorafit"):
        peft.save(trained(use_dora=True), tmp_path / "a")
    assert "vLLM does not have DoRA" in caplog.text
