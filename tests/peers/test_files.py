"""Adapters saved by one library and loaded by the other: same logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as hf
from safetensors import safe_open

import lorafit.peft as ours_api
from tests import tiny
from tests.peers.pair import (
    EMBEDDINGS,
    LM_TASK,
    TARGETS,
    assert_close,
    assert_tuned,
    base,
    logits,
    ours,
    randomised,
    theirs,
)

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "bias_all": {"bias": "all"},
    "bias_lora_only": {"bias": "lora_only"},
    "no_task": {"task_type": None},
    "blocks": {"layers_to_transform": [1]},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
}
EVERYWHERE = ("plain", "dora", "bias_all", "no_task")
# Llama has no biases, which only one of us minds.
WITHOUT_BIAS = ("llama", "qwen3", "t5")


def cases() -> list[Any]:
    return [
        pytest.param(family, changes, id=f"{family}-{name}")
        for family in tiny.FAMILIES
        for name, changes in VARIANTS.items()
        if not ("bias" in changes and family in WITHOUT_BIAS)
        and (name in EVERYWHERE or family in ("bert", "gpt2", "qwen2"))
    ]


def assert_both_ways(tmp_path: Path, family: str, **changes: Any) -> None:
    """Ours loads in peft, theirs in ours; keys and parameter counts are the same."""
    mine, other = ours(family, **changes), theirs(family, **changes)
    task = changes.get("task_type", "SEQ_CLS")
    assert mine.get_nb_trainable_parameters() == other.get_nb_trainable_parameters()

    mine.save_pretrained(tmp_path / "ours")
    loaded = peft.PeftModel.from_pretrained(base(family, task), tmp_path / "ours")
    assert_close(logits(loaded, family, task), logits(mine, family, task))
    assert_tuned(mine, family, task)

    other.save_pretrained(str(tmp_path / "theirs"))
    back = ours_api.PeftModel.from_pretrained(base(family, task), tmp_path / "theirs")
    assert_close(logits(back, family, task), logits(other, family, task))
    assert_tuned(other, family, task)


@pytest.mark.parametrize(("family", "changes"), cases())
def test_classifiers_both_ways(tmp_path: Path, family: str, changes: dict[str, Any]) -> None:
    assert_both_ways(tmp_path, family, **changes)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "t5"])
def test_language_models_both_ways(tmp_path: Path, family: str) -> None:
    assert_both_ways(tmp_path, family, task_type=LM_TASK.get(family, "CAUSAL_LM"))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_all_linear_both_ways(tmp_path: Path, family: str) -> None:
    # With SEQ_CLS DistilBERT's pre_classifier would be a LoRA inside modules_to_save in peft.
    task = None if family == "distilbert" else "SEQ_CLS"
    assert_both_ways(tmp_path, family, target_modules="all-linear", task_type=task)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("rslora", [False, True])
def test_ranks_and_alphas_by_pattern_both_ways(tmp_path: Path, family: str, rslora: bool) -> None:
    first, last = TARGETS[family][0], TARGETS[family][-1]
    assert_both_ways(
        tmp_path,
        family,
        use_rslora=rslora,
        rank_pattern={first: 2, rf".*1.*{last}": 6},
        alpha_pattern={first: 3},
    )


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_embeddings_as_targets_both_ways(tmp_path: Path, family: str) -> None:
    assert_both_ways(tmp_path, family, target_modules=[EMBEDDINGS[family], TARGETS[family][0]])


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_tied_embeddings_as_targets_both_ways(tmp_path: Path, family: str) -> None:
    assert_both_ways(
        tmp_path,
        family,
        task_type="CAUSAL_LM",
        target_modules=[EMBEDDINGS[family], TARGETS[family][0]],
    )


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_excluded_modules_both_ways(tmp_path: Path, family: str) -> None:
    assert_both_ways(tmp_path, family, exclude_modules=rf".*\.1\..*{TARGETS[family][0]}")


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_expressions_both_ways(tmp_path: Path, family: str) -> None:
    names = "|".join(name.replace(".", r"\.") for name in TARGETS[family])
    assert_both_ways(tmp_path, family, target_modules=rf".*\.[02]\..*\.({names})")


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
@pytest.mark.parametrize("whole", [["lm_head"], ["lm_head", "EMBEDDINGS"]])
def test_tied_modules_to_save_both_ways(tmp_path: Path, family: str, whole: list[str]) -> None:
    names = [EMBEDDINGS[family] if name == "EMBEDDINGS" else name for name in whole]
    assert_both_ways(tmp_path, family, task_type="CAUSAL_LM", modules_to_save=names)


@pytest.mark.parametrize("save", [True, False])
def test_embeddings_saved_on_request_have_the_same_keys(tmp_path: Path, save: bool) -> None:
    for targets in (["q_proj"], ["q_proj", "embed_tokens"], ["q_proj", "lm_head"]):
        keys = []
        for model in (
            ours("qwen2", task_type="CAUSAL_LM", target_modules=targets),
            theirs("qwen2", task_type="CAUSAL_LM", target_modules=targets),
        ):
            api = ours_api if isinstance(model, ours_api.PeftModel) else peft
            keys.append(set(api.get_peft_model_state_dict(model, save_embedding_layers=save)))
        assert keys[0] == keys[1]


def test_own_modules_to_save_both_ways(tmp_path: Path) -> None:
    assert_both_ways(tmp_path, "bert", modules_to_save=["pooler"])


def test_token_classification_and_question_answering_both_ways(tmp_path: Path) -> None:
    for auto, task in (
        (hf.AutoModelForTokenClassification, "TOKEN_CLS"),
        (hf.AutoModelForQuestionAnswering, "QUESTION_ANS"),
    ):

        def build(auto: Any = auto) -> Any:
            config = tiny.classifier("bert", num_labels=2).config
            torch.manual_seed(0)
            return auto.from_config(config).eval()

        def run(model: Any) -> torch.Tensor:
            with torch.no_grad():
                logits: torch.Tensor = model(**tiny.inputs("bert"))[0]
            return logits

        values: dict[str, Any] = {"target_modules": ["query"], "task_type": task}
        mine = randomised(ours_api.get_peft_model(build(), ours_api.LoraConfig(**values)))
        other = randomised(peft.get_peft_model(build(), peft.LoraConfig(**values)))
        mine.save_pretrained(tmp_path / task / "ours")
        other.save_pretrained(str(tmp_path / task / "theirs"))
        assert_close(
            run(peft.PeftModel.from_pretrained(build(), tmp_path / task / "ours")), run(mine.eval())
        )
        assert_close(
            run(ours_api.PeftModel.from_pretrained(build(), tmp_path / task / "theirs")),
            run(other.eval()),
        )


# peft decomposes the transposed weight of Conv1D with OLoRA, and fails.
@pytest.mark.parametrize(
    ("family", "init", "changes"),
    [
        ("bert", "pissa", {}),
        ("bert", "pissa", {"use_rslora": True}),
        ("bert", "pissa", {"use_dora": True}),
        ("bert", "olora", {}),
        ("bert", "olora", {"use_dora": True}),
        ("gpt2", "pissa", {}),
    ],
)
def test_pissa_and_olora_both_ways(
    tmp_path: Path, family: str, init: str, changes: dict[str, Any]
) -> None:
    """Ours is an ordinary LoRA for peft; theirs is relative to a base that peft changes."""
    mine = ours(family, init_lora_weights=init, **changes)
    mine.save_pretrained(tmp_path / "ours")
    fields = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    assert fields["r"] == 8
    assert fields["init_lora_weights"] is True
    loaded = peft.PeftModel.from_pretrained(base(family, "SEQ_CLS"), tmp_path / "ours")
    assert_close(tiny.logits(loaded, family), tiny.logits(mine, family))
    again = ours_api.PeftModel.from_pretrained(base(family, "SEQ_CLS"), tmp_path / "ours")
    assert_close(tiny.logits(again, family), tiny.logits(mine, family))

    other = theirs(family, init_lora_weights=init, **changes)
    other.save_pretrained(str(tmp_path / "theirs"))
    back = ours_api.PeftModel.from_pretrained(base(family, "SEQ_CLS"), tmp_path / "theirs")
    assert_close(tiny.logits(back, family), tiny.logits(other, family), 1e-4)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_files_have_the_same_keys_shapes_and_metadata(tmp_path: Path, family: str) -> None:
    described = []
    for model, folder in ((ours(family), "ours"), (theirs(family), "theirs")):
        model.save_pretrained(str(tmp_path / folder))
        with safe_open(tmp_path / folder / "adapter_model.safetensors", "pt") as file:
            shapes = {key: tuple(file.get_tensor(key).shape) for key in file.keys()}  # noqa: SIM118
            described.append((file.metadata(), shapes))
    assert described[0] == described[1]


def test_equal_weights_give_equal_files(tmp_path: Path) -> None:
    mine, other = ours("distilbert"), theirs("distilbert")
    other.load_state_dict(mine.state_dict())
    mine.save_pretrained(tmp_path / "ours")
    other.save_pretrained(str(tmp_path / "theirs"))
    a, b = (tmp_path / d / "adapter_model.safetensors" for d in ("ours", "theirs"))
    assert a.read_bytes() == b.read_bytes()


def test_half_precision_bases_both_ways(tmp_path: Path) -> None:
    values: dict[str, Any] = {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}

    def build() -> Any:
        return base("llama", "CAUSAL_LM").to(torch.bfloat16)

    mine = ours_api.get_peft_model(build(), ours_api.LoraConfig(**values))
    other = peft.get_peft_model(build(), peft.LoraConfig(**values))
    assert {k: v.dtype for k, v in mine.state_dict().items()} == {
        k: v.dtype for k, v in other.state_dict().items()
    }
    mine.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(build(), tmp_path)
    assert torch.equal(tiny.logits(loaded, "llama"), tiny.logits(mine, "llama"))


def test_several_adapters_stand_in_the_folders_that_peft_uses(tmp_path: Path) -> None:
    mine = ours("bert")
    mine.add_adapter("other", ours_api.LoraConfig(r=2, target_modules=["key"]))
    mine.save_pretrained(tmp_path)
    assert (tmp_path / "adapter_config.json").is_file()
    assert (tmp_path / "other" / "adapter_config.json").is_file()
    loaded = peft.PeftModel.from_pretrained(tiny.classifier("bert"), tmp_path)
    loaded.load_adapter(tmp_path / "other", "other")
    assert set(loaded.peft_config) == {"default", "other"}
