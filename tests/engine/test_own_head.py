"""Logits of few tokens at a time against the whole matrix, for every engine that computes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

from lorafit.adapt import Adapters
from lorafit.engine.base import Engine
from lorafit.engine.eager import EagerEngine
from lorafit.engine.generic.engine import GenericEngine
from lorafit.engine.own_head import OwnHead
from lorafit.methods import methods
from lorafit.tasks.base import Task
from lorafit.tasks.causal_lm import CausalLM
from lorafit.tasks.seq2seq import Seq2Seq
from lorafit.testing.words import ending_tokenizer
from tests import tiny

CAPPED = ("gemma2", "granite", "cohere")
"""Families whose logits are more than a product."""
ENGINES = ["eager", "generic"]


def model(family: str) -> Any:
    """A language model; those of `CAPPED` scale or cap their logits."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        **{"vocab_size": tiny.VOCAB, "hidden_size": 32, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 40},
        **{"max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    }
    if family == "gemma2":
        more: dict[str, Any] = {"head_dim": 8, "final_logit_softcapping": 2.0}
        return hf.Gemma2ForCausalLM(hf.Gemma2Config(**sizes, **more))
    if family == "granite":
        return hf.GraniteForCausalLM(hf.GraniteConfig(**sizes, logits_scaling=3.0))
    if family == "cohere":
        return hf.CohereForCausalLM(hf.CohereConfig(**sizes, logit_scale=0.3))
    return tiny.language_model(family)


def task_of(base: Any) -> Task:
    """The task that trains it."""
    if not base.config.is_encoder_decoder:
        return CausalLM(["text"])
    task = Seq2Seq(["source"], "target")
    task.meet(base)
    return task


def examples(base: Any) -> list[dict[str, Any]]:
    """Some without a label at places, of several lengths."""
    generator = torch.Generator().manual_seed(1)

    def drawn(n: int) -> list[int]:
        return torch.randint(3, tiny.VOCAB, (n,), generator=generator).tolist()

    found = []
    for length in (9, 4, 7, 2):
        ids = drawn(length)
        labels = drawn(length - 1) if base.config.is_encoder_decoder else list(ids)
        labels[: length // 3] = [-100] * (length // 3)
        found.append({"input_ids": ids, "labels": labels})
    return found


def engine(kind: str, base: Any) -> Engine:
    task, tokenizer = task_of(base), ending_tokenizer()
    if kind == "eager":
        return EagerEngine(base, task, tokenizer, torch.device("cpu"))
    return GenericEngine(base, task, tokenizer, dtype=torch.float32, smallest=1)


def step(kind: str, base: Any) -> tuple[dict[str, torch.Tensor], Any, Any]:
    """Gradients, what the step came to, and the answers."""
    base.zero_grad()
    made = engine(kind, base)
    batch = made.collate(examples(base))
    base.train()
    result = made.forward_backward(batch, 0.5)
    base.eval()
    found = {n: p.grad.clone() for n, p in base.named_parameters() if p.grad is not None}
    return found, result, made.answers(batch)


def in_parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From here on three tokens at a time; the list gets how many each time."""
    monkeypatch.setattr(OwnHead, "at_once", 3 * tiny.VOCAB)
    own, seen = OwnHead.logits, []

    def noted(self: OwnHead, hidden: torch.Tensor, inputs: Any) -> torch.Tensor:
        seen.append(len(hidden))
        return own(self, hidden, inputs)

    monkeypatch.setattr(OwnHead, "logits", noted)
    return seen


def compare(base: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks that whole and in parts are the same."""
    for module in base.modules():
        for name in ("p", "dropout", "attention_dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    gradients, result, answers = step(kind, base)
    seen = in_parts(monkeypatch)
    others, other, found = step(kind, base)
    assert len(seen) > 4
    # The first call is the trial, on up to eight tokens.
    assert max(seen[1:]) <= 3
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-5, atol=2e-6)
    assert float(other.loss_sum) == pytest.approx(float(result.loss_sum), rel=1e-6)
    assert (other.units, other.tokens) == (result.units, result.tokens)
    assert found.losses == pytest.approx(answers.losses, rel=1e-6)
    assert found.kept == pytest.approx(answers.kept, rel=1e-6)
    assert (found.units == answers.units).all()
    assert found.finite.all()


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("family", [*tiny.WRITERS, *CAPPED])
def test_a_model_trained_whole_its_head_included(
    family: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(model(family), kind, monkeypatch)


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_with_virtual_tokens(method: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base = model("gemma2" if method == "prompt" else "llama")
    adapters = Adapters(base)
    adapters.add(methods[method].config_class(task_type="CAUSAL_LM", num_virtual_tokens=2))
    if kind == "generic":
        # What is a plain product there is computed as one.
        base.lm_head.weight.requires_grad_(True)
    compare(base, kind, monkeypatch)


@pytest.mark.parametrize("kind", ENGINES)
def test_with_an_adapter_on_the_head(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base = model("gemma2")
    adapters = Adapters(base)
    config = methods["lora"].config_class(
        task_type="CAUSAL_LM", r=3, target_modules=["q_proj", "lm_head"]
    )
    adapters.add(config)
    for name, parameter in base.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    compare(base, kind, monkeypatch)


@pytest.mark.parametrize("kind", ENGINES)
def test_a_model_that_does_more_behind_its_body_is_computed_whole(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = model("gemma2")
    own = base.forward

    def sums(*args: Any, **kwargs: Any) -> Any:
        output = own(*args, **kwargs)
        output.logits = output.logits.cumsum(dim=1)
        return output

    base.forward = sums
    expected, result, _ = step(kind, base)
    seen = in_parts(monkeypatch)
    found, other, _ = step(kind, base)
    assert len(seen) == 1  # the trial
    assert float(other.loss_sum) == float(result.loss_sum)
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


def test_the_model_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    base = model("t5")
    before = dict(base.named_modules())
    in_parts(monkeypatch)
    step("eager", base)
    assert dict(base.named_modules()) == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in before.values())
