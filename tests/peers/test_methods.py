"""Methods besides LoRA: the files of one library give the other the same model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import peft
import pytest
import torch
from torch import nn

from lorafit.adapt import Adapters
from lorafit.errors import AdapterError
from lorafit.export import peft as ours_format
from lorafit.methods import methods
from tests import tiny
from tests.peers.pair import assert_close

HEADS = {
    "bert": "classifier",
    "distilbert": "classifier",
    "roberta": "classifier",
    "gpt2": "score",
    "llama": "score",
    "qwen2": "score",
    "qwen3": "score",
    "t5": "classification_head",
}

# Method, PEFT's configuration class, settings for both, families.
CASES: dict[str, tuple[str, Any, dict[str, Any], list[str]]] = {
    "layernorm": ("layernorm", peft.LNTuningConfig, {}, tiny.FAMILIES),
    "prompt": (
        "prompt",
        peft.PromptTuningConfig,
        {"num_virtual_tokens": 4},
        [family for family in tiny.FAMILIES if family != "t5"],
    ),
    "prefix": (
        "prefix",
        peft.PrefixTuningConfig,
        {"num_virtual_tokens": 4, "init_weights": "vocab"},
        # PEFT has no prefix for DistilBERT either, and none for T5's classifier.
        [family for family in tiny.FAMILIES if family not in ("t5", "distilbert")],
    ),
    "ia3": ("ia3", peft.IA3Config, {}, tiny.FAMILIES),
    "ia3-all": ("ia3", peft.IA3Config, {"target_modules": "all-linear"}, tiny.FAMILIES),
}
PAIRS = [(case, family) for case, (*_, families) in CASES.items() for family in families]
every_pair = pytest.mark.parametrize(("case", "family"), PAIRS)


def ours(case: str, family: str) -> Adapters:
    """Our adapter, moved away from its start."""
    method, _, settings, _ = CASES[case]
    adapters = Adapters(tiny.classifier(family))
    config = methods[method].config_class(
        **settings, task_type="SEQ_CLS", modules_to_save=[HEADS[family]]
    )
    torch.manual_seed(0)
    adapters.add(config)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapters.trainable().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=g))
    return adapters


def batch(case: str, family: str) -> dict[str, torch.Tensor]:
    """Without padding where the libraries treat it differently."""
    inputs = tiny.inputs(family)
    return {k: v[:2] for k, v in inputs.items()} if case == "prompt" else inputs


def logits(model: nn.Module, case: str, family: str) -> torch.Tensor:
    found: torch.Tensor = model.eval()(**batch(case, family)).logits
    return found


@every_pair
def test_peft_loads_our_file_and_computes_and_differentiates_the_same(
    case: str, family: str, tmp_path: Path
) -> None:
    adapters = ours(case, family)
    ours_format.save(adapters, tmp_path / "a")
    theirs = peft.PeftModel.from_pretrained(tiny.classifier(family), tmp_path / "a")
    # Not `is_trainable`: peft refuses it for prompt learning.
    for name, parameter in theirs.named_parameters():
        own = (".modules_to_save.", ".ia3_l.", ".ln_tuning_layers.", "prompt_encoder.")
        parameter.requires_grad_(any(part in name for part in own))
    mine, other = logits(adapters.model, case, family), logits(theirs, case, family)
    base = tiny.classifier(family)
    assert not torch.allclose(mine, logits(base, case, family), atol=1e-4)
    assert_close(mine, other)
    mine.square().sum().backward()
    other.square().sum().backward()
    gradients = sorted(
        (float(cast(Any, p.grad).abs().sum()), p.numel()) for p in adapters.trainable().values()
    )
    found = sorted(
        (p.grad.abs().sum().item(), p.numel())
        for p in theirs.parameters()
        if p.requires_grad and p.grad is not None
    )
    assert [n for _, n in gradients] == [n for _, n in found]
    for (a, _), (b, _) in zip(gradients, found, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)


@every_pair
def test_we_load_pefts_file_and_compute_the_same(case: str, family: str, tmp_path: Path) -> None:
    ours_format.save(ours(case, family), tmp_path / "a")
    theirs = peft.PeftModel.from_pretrained(tiny.classifier(family), tmp_path / "a")
    theirs.save_pretrained(str(tmp_path / "b"))
    model = tiny.classifier(family)
    ours_format.load(model, tmp_path / "b")
    assert_close(logits(model, case, family), logits(theirs, case, family))


@pytest.mark.parametrize(
    "method",
    [
        name
        for name in methods
        if methods[name].config_class.model_fields["peft_type"].default.startswith("LORAFIT_")
    ],
)
def test_peft_refuses_the_methods_it_does_not_have(method: str, tmp_path: Path) -> None:
    adapters = Adapters(tiny.classifier("bert"))
    adapters.add(methods[method].config_class(task_type="SEQ_CLS", modules_to_save=["classifier"]))
    ours_format.save(adapters, tmp_path / "a")
    with pytest.raises((KeyError, ValueError), match="LORAFIT_"):
        peft.PeftModel.from_pretrained(tiny.classifier("bert"), tmp_path / "a")


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_a_prefix_behind_an_mlp_computes_and_differentiates_as_in_peft(
    family: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "num_virtual_tokens": 4,
        "prefix_projection": True,
        "encoder_hidden_size": 12,
    }
    adapters = Adapters(tiny.classifier(family))
    adapters.add(
        methods["prefix"].config_class(
            **settings, task_type="SEQ_CLS", modules_to_save=[HEADS[family]]
        )
    )
    theirs = peft.get_peft_model(
        tiny.classifier(family), peft.PrefixTuningConfig(**settings, task_type="SEQ_CLS")
    )
    head, prefixes = HEADS[family], theirs.get_submodule("prompt_encoder.default")
    encoder: Any = prefixes
    twins = {
        "embedding": encoder.embedding.weight,
        "transform.0.weight": encoder.transform[0].weight,
        "transform.0.bias": encoder.transform[0].bias,
        "transform.2.weight": encoder.transform[2].weight,
        "transform.2.bias": encoder.transform[2].bias,
    }
    trained = theirs.get_submodule(f"base_model.{head}.modules_to_save.default")
    twins |= dict(trained.named_parameters())
    pairs = [
        (mine, next(twin for name, twin in twins.items() if path.endswith(f"default.{name}")))
        for path, mine in adapters.trainable().items()
    ]
    assert len(pairs) == len(twins)
    with torch.no_grad():
        for mine, twin in pairs:
            twin.copy_(mine)
    one, other = logits(adapters.model, "prefix", family), logits(theirs, "prefix", family)
    assert_close(one, other)
    one.square().sum().backward()
    other.square().sum().backward()
    for mine, twin in pairs:
        assert mine.grad is not None
        assert_close(mine.grad, twin.grad, 1e-4)
    # The MLP is not saved; whoever loads the file has the prefix it made.
    ours_format.save(adapters, tmp_path / "a")
    loaded = peft.PeftModel.from_pretrained(tiny.classifier(family), tmp_path / "a")
    assert_close(logits(loaded, "prefix", family), one)
    theirs.save_pretrained(str(tmp_path / "b"))
    fresh = tiny.classifier(family)
    ours_format.load(fresh, tmp_path / "b")
    assert_close(logits(fresh, "prefix", family), one)


def test_pefts_prefix_for_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    config = peft.PrefixTuningConfig(num_virtual_tokens=4, task_type="SEQ_2_SEQ_LM")
    peft.get_peft_model(tiny.language_model("t5"), config).save_pretrained(str(tmp_path / "a"))
    with pytest.raises(AdapterError, match="layers share entries"):
        ours_format.load(tiny.language_model("t5"), tmp_path / "a")
