"""Weights that are no layers and rows of embeddings, in lorafit and in peft."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from torch import nn

import lorafit.peft as ours_api
from lorafit.adapt import Adapters
from lorafit.errors import AdapterError, ConfigError, TargetError
from lorafit.export import peft as on_disk
from tests import tiny
from tests.peers.pair import assert_close, base, randomised

EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]
TOKENS = [90, 3, 7]

CASES: list[tuple[str, dict[str, Any]]] = [
    ("mixtral", {"target_parameters": EXPERTS}),
    ("mixtral", {"target_parameters": EXPERTS[1:], "target_modules": ["q_proj"]}),
    ("mixtral", {"target_parameters": [*EXPERTS, "gate.weight"], "target_modules": []}),
    ("mixtral", {"target_parameters": EXPERTS, "rank_pattern": {"experts.down_proj": 2}}),
    ("mixtral", {"target_parameters": ["model.layers.1.mlp.experts.down_proj"]}),
    ("llama", {"target_parameters": ["q_proj.weight"], "target_modules": ["v_proj"]}),
    ("llama", {"trainable_token_indices": TOKENS, "target_modules": ["q_proj"]}),
    ("llama", {"trainable_token_indices": {"embed_tokens": [7]}, "target_modules": ["q_proj"]}),
    (
        "llama",
        {
            "trainable_token_indices": {"embed_tokens": TOKENS, "lm_head": [3, 7]},
            "target_modules": ["q_proj"],
        },
    ),
    ("gpt2", {"trainable_token_indices": TOKENS, "target_modules": ["c_attn"]}),
    ("qwen2", {"trainable_token_indices": TOKENS, "target_modules": ["q_proj"]}),
    ("gemma3", {"trainable_token_indices": TOKENS, "target_modules": ["q_proj"]}),
    ("bert", {"trainable_token_indices": TOKENS, "target_modules": ["query"]}),
    ("mixtral", {"trainable_token_indices": [4], "target_parameters": EXPERTS}),
]


def task_of(family: str) -> str:
    return "SEQ_CLS" if family == "bert" else "CAUSAL_LM"


def plain(family: str) -> Any:
    """A base in which the tokens occur."""
    torch.manual_seed(0)
    return base(family, task_of(family))


def pair(family: str, settings: dict[str, Any]) -> tuple[Any, Any]:
    values: dict[str, Any] = {"r": 4, "lora_alpha": 6, "task_type": task_of(family)} | settings
    values["fan_in_fan_out"] = family == "gpt2"
    mine: Any = ours_api.get_peft_model(plain(family), ours_api.LoraConfig(**values))
    other: Any = peft.get_peft_model(plain(family), peft.LoraConfig(**values))
    randomised(other)
    # Attribute names differ inside of these wrappers, so ours gets the values from the file.
    result = ours_api.set_peft_model_state_dict(mine, peft.get_peft_model_state_dict(other))
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    return mine, other


def results(model: nn.Module, family: str) -> torch.Tensor:
    with torch.no_grad():
        batch = tiny.inputs(family)
        batch["input_ids"][:, 1:4] = torch.tensor(TOKENS)
        output: torch.Tensor = model.eval()(**batch).logits
    return output


# peft applies these patterns, and says that it does not.
pytestmark = pytest.mark.filterwarnings("ignore:The following rank_pattern keys:RuntimeWarning")


@pytest.mark.parametrize(("family", "settings"), CASES)
def test_the_same_outputs_files_and_merged_models(
    tmp_path: Path, family: str, settings: dict[str, Any]
) -> None:
    mine, other = pair(family, settings)
    assert mine.get_nb_trainable_parameters() == other.get_nb_trainable_parameters()
    expected = results(other, family)
    assert_close(results(mine, family), expected)
    assert not torch.allclose(expected, results(plain(family), family), atol=1e-3)

    mine.save_pretrained(tmp_path / "ours")
    other.save_pretrained(tmp_path / "theirs")
    files = [load_file(tmp_path / x / "adapter_model.safetensors") for x in ("ours", "theirs")]
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(tensor, files[1][key]) for key, tensor in files[0].items())
    loaded = peft.PeftModel.from_pretrained(plain(family), tmp_path / "ours")
    assert_close(results(loaded, family), expected)
    back = ours_api.PeftModel.from_pretrained(plain(family), tmp_path / "theirs")
    assert_close(results(back, family), expected)
    core = on_disk.load(plain(family), tmp_path / "theirs")
    assert_close(results(core.model, family), expected)

    before = plain(family).state_dict()
    with mine.disable_adapter():
        assert torch.equal(results(mine, family), results(plain(family), family))
    mine.merge_adapter()
    assert_close(results(mine, family), expected)
    mine.unmerge_adapter()
    state = ours_api.get_base_model_state_dict(mine)
    assert all(torch.equal(value, before[key]) for key, value in state.items())
    merged = mine.merge_and_unload()
    assert_close(results(merged, family), expected)
    assert merged.state_dict().keys() == before.keys()
    merged.save_pretrained(tmp_path / "merged")
    auto = hf.AutoModelForSequenceClassification if family == "bert" else hf.AutoModelForCausalLM
    again = auto.from_pretrained(tmp_path / "merged", attn_implementation="eager")
    assert_close(results(again, family), expected)
    restored = back.unload()
    assert all(torch.equal(value, before[key]) for key, value in restored.state_dict().items())


@pytest.mark.parametrize(("family", "settings"), CASES)
def test_the_same_steps_of_training(family: str, settings: dict[str, Any]) -> None:
    def trained(model: Any) -> torch.Tensor:
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=0.5)
        batch = tiny.inputs(family)
        batch["input_ids"][:, 1:4] = torch.tensor(TOKENS)
        model.eval()
        for _ in range(3):
            loss = model(**batch).logits.square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return results(model, family)

    mine, other = pair(family, settings)
    start = results(mine, family)
    first, second = trained(mine), trained(other)
    assert not torch.allclose(first, start, atol=1e-4)
    assert_close(first, second, 1e-4)


@pytest.mark.parametrize(("family", "settings"), CASES)
def test_a_fresh_adapter_starts_at_the_base_and_survives_a_pickle(
    tmp_path: Path, family: str, settings: dict[str, Any]
) -> None:
    config = ours_api.LoraConfig(r=4, task_type=task_of(family), **settings)
    model = ours_api.get_peft_model(plain(family), config)
    assert_close(results(model, family), results(plain(family), family), 1e-6)
    model, _ = pair(family, settings)
    expected = results(model, family)
    assert torch.equal(results(pickle.loads(pickle.dumps(model)), family), expected)
    state = {f"_orig_mod.{key}": value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    model.save_pretrained(tmp_path, state_dict=state)
    back = ours_api.PeftModel.from_pretrained(plain(family), tmp_path)
    assert torch.equal(results(back, family), expected)


def test_new_tokens_of_a_resized_vocabulary_both_ways(tmp_path: Path) -> None:
    plain("llama").save_pretrained(tmp_path / "base")

    def resized(seed: int) -> Any:
        model = hf.AutoModelForCausalLM.from_pretrained(
            tmp_path / "base", attn_implementation="eager"
        )
        torch.manual_seed(seed)
        model.resize_token_embeddings(tiny.VOCAB + 2, mean_resizing=False)
        return model

    ids = torch.tensor([[5, tiny.VOCAB, tiny.VOCAB + 1, 8]])
    settings: dict[str, Any] = {
        "target_modules": ["q_proj"],
        "trainable_token_indices": [tiny.VOCAB, tiny.VOCAB + 1],
        "task_type": "CAUSAL_LM",
    }
    for api, reader in ((ours_api, peft), (peft, ours_api), (ours_api, ours_api)):
        model: Any = randomised(api.get_peft_model(resized(1), api.LoraConfig(**settings)))
        folder = tmp_path / f"{api.__name__}-{reader.__name__}"
        model.save_pretrained(folder)
        loaded: Any = reader.PeftModel.from_pretrained(resized(2), folder)
        with torch.no_grad():
            assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


def test_several_adapters_have_rows_and_experts_of_their_own() -> None:
    model = ours_api.get_peft_model(
        plain("mixtral"),
        ours_api.LoraConfig(r=2, target_parameters=EXPERTS, trainable_token_indices=[3]),
    )
    model.add_adapter(
        "b",
        ours_api.LoraConfig(
            r=3,
            target_parameters=EXPERTS[1:],
            trainable_token_indices=[7],
            init_lora_weights=False,
        ),
    )
    model.set_requires_grad(["default", "b"])
    randomised(model)
    one = results(model, "mixtral")
    model.set_adapter("b")
    two = results(model, "mixtral")
    assert not torch.allclose(one, two)
    model.base_model.set_adapter(["default", "b"])
    both = results(model, "mixtral")
    model.merge_adapter()
    assert_close(results(model, "mixtral"), both)
    model.unmerge_adapter()
    model.set_adapter("default")
    model.delete_adapter("b")
    assert torch.equal(results(model, "mixtral"), one)
    model.add_adapter(
        "c", ours_api.LoraConfig(target_parameters=EXPERTS, trainable_token_indices=[3])
    )
    model.base_model.set_adapter(["default", "c"])
    with pytest.raises(AdapterError, match="rows for the same tokens"):
        results(model, "mixtral")
    with pytest.raises(AdapterError, match="not plain LoRA"):
        model.add_weighted_adapter(["default"], [1.0], "mix")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"target_parameters": ["experts.up_proj"]},
            TargetError,
            r"has gate\.weight, experts\.gate",
        ),
        ({"target_parameters": ["norm.weight"]}, TargetError, r"shape \(32,\)"),
        (
            {"target_parameters": ["q_proj.weight"], "target_modules": ["q_proj"]},
            TargetError,
            "named twice: in target_modules",
        ),
        ({"trainable_token_indices": [99]}, ConfigError, "from 0 to 98.*resize_token_embeddings"),
        ({"trainable_token_indices": [1, 1]}, ConfigError, "different numbers"),
        ({"trainable_token_indices": {"q_proj": [1]}}, TargetError, "there is model.embed_tokens"),
        (
            {"trainable_token_indices": [1], "modules_to_save": ["embed_tokens"]},
            TargetError,
            "named twice: in modules_to_save",
        ),
    ],
)
def test_what_cannot_be_adapted_is_said_and_nothing_changes(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = plain("mixtral")
    names = list(model.state_dict())
    values = {"target_modules": ["v_proj"]} | settings
    with pytest.raises(error, match=message):
        ours_api.get_peft_model(model, ours_api.LoraConfig(**values))
    assert list(model.state_dict()) == names
    Adapters(model)


def test_experts_that_are_not_adapted_are_said(caplog: pytest.LogCaptureFixture) -> None:
    ours_api.get_peft_model(plain("mixtral"), ours_api.LoraConfig(target_modules=["q_proj"]))
    (said,) = [m for m in caplog.messages if "not adapted" in m]
    assert "experts.gate_up_proj, experts.down_proj" in said
    assert "name them in target_parameters" in said
    caplog.clear()
    ours_api.get_peft_model(plain("mixtral"), ours_api.LoraConfig(target_parameters=EXPERTS))
    ours_api.get_peft_model(plain("llama"), ours_api.LoraConfig(target_modules=["q_proj"]))
    assert not caplog.messages
