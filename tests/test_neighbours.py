"""An answer depends on its text alone: not on the batch it is in, nor on the tokenizer's side.

All tasks, with every architecture that has a head for them, in every engine that runs it: the
losses of training and their gradients, what `evaluate` scores, what `predict` says and writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from datasets import Dataset
from hypothesis import Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import lorafit
from lorafit.adapt import Adapters
from lorafit.api import Tuned
from lorafit.config import GenerateConfig
from lorafit.engine.base import Engine
from lorafit.engine.choose import Computing, choose_engine
from lorafit.engine.generic.engine import GenericEngine
from lorafit.methods.lora import LoraConfig
from lorafit.model.load import from_live
from lorafit.tasks.base import Task
from lorafit.tasks.causal_lm import CausalLM
from lorafit.tasks.multi_label_classification import MultiLabelClassification
from lorafit.tasks.regression import Regression
from lorafit.tasks.seq2seq import Seq2Seq
from lorafit.tasks.sequence_classification import SequenceClassification
from lorafit.tasks.token_classification import TokenClassification
from tests import tiny, tiny_text

NEAR: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
"""Sums of float32 in another order; weights are so large that answers differ by about 1."""
LONGEST = 30
FAST = ("bert", "distilbert", "roberta", "llama", "qwen2", "qwen3")

WORDS = st.sampled_from([*tiny_text.WORDS, "[SEP]", "</s>", "<|endoftext|>", "[PAD]", "xyz"])
TEXTS = st.lists(st.lists(WORDS, min_size=1, max_size=12), min_size=2, max_size=5)

TASKS: dict[str, Task] = {
    "sequence_classification": SequenceClassification(["text"], "label", ["neg", "pos"]),
    "regression": Regression(["text"], "label"),
    "multi_label_classification": MultiLabelClassification(["text"], "label", ["a", "b", "c"]),
    "token_classification": TokenClassification(["text"], "label", ["O", "B-X", "I-X"]),
    "causal_lm": CausalLM(["text"], "label", "\n"),
    "plain_text": CausalLM(["text"]),
    "seq2seq": Seq2Seq(["text"], "label"),
}
DECODERS = ["gemma3", "gpt2", "llama", "mixtral", "phi3", "qwen2", "qwen3"]
HEADS = {
    "sequence_classification": tiny.ARCHITECTURES,
    "regression": ["bert", "gpt2", "t5"],
    "multi_label_classification": ["deberta-v2", "llama", "bart"],
    "token_classification": [
        *("bert", "deberta-v2", "distilbert", "gpt2", "llama", "modernbert", "roberta", "t5")
    ],
    "causal_lm": DECODERS,
    "plain_text": ["gpt2", "llama"],
    "seq2seq": ["bart", "t5"],
}
CASES = [(task, family) for task, families in HEADS.items() for family in families]


def rows_of(name: str, words: list[list[str]]) -> Dataset:
    texts = [" ".join(row) for row in words]
    values: dict[str, Any] = {"text": texts}
    if name == "sequence_classification":
        values["label"] = [("neg", "pos")[len(row) % 2] for row in words]
    elif name == "regression":
        values["label"] = [float(len(row)) for row in words]
    elif name == "multi_label_classification":
        values["label"] = [["a", "b", "c"][: 1 + len(row) % 3] for row in words]
    elif name == "token_classification":
        values = {"text": words, "label": [["B-X", "O", "O"][:1] * len(row) for row in words]}
    elif name != "plain_text":
        values["label"] = [" ".join(reversed(row[:5])) for row in words]
    return Dataset.from_dict(values)


@dataclass
class Subject:
    """A model with an adapter that does something, and its engines."""

    tuned: Tuned
    engines: list[Engine]


@cache
def subject(name: str, family: str, ending: bool = False) -> Subject:
    task = type(TASKS[name]).from_dict(TASKS[name].to_dict())
    model = _model(task, family)
    if family in DECODERS or name == "seq2seq":
        ends = ending or model.config.is_encoder_decoder
        tokenizer = tiny_text.ending_tokenizer() if ends else tiny_text.gpt2_tokenizer()
        if ending:
            tokenizer.pad_token = tokenizer.eos_token
    else:
        tokenizer = _bert_tokenizer()
    model.config.eos_token_id = tokenizer.eos_token_id or tokenizer.sep_token_id
    loaded = from_live(model, tokenizer, task)
    task.meet(model)
    adapters = Adapters(model)
    adapters.add(LoraConfig(r=3, lora_alpha=6, target_modules="all-linear"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            # Initial weights are so small that every text gets the same answer.
            spread = 0.1 if "lora_" in path or parameter.dim() > 1 else 0.02
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    model.eval()  # no dropout
    generate = GenerateConfig(max_new_tokens=4)
    tuned = Tuned(model, loaded.tokenizer, adapters, task, LONGEST, generate)
    kinds: list[Any] = ["eager"]
    if family in FAST and (family, name) != ("llama", "token_classification"):
        kinds.append("fast")
    made = [
        choose_engine(kind, model, task, loaded.tokenizer, Computing(dtype=torch.float32))
        for kind in kinds
    ]
    assert [engine.name for engine in made] == kinds
    parts = (model, task, loaded.tokenizer)
    return Subject(tuned, [*made, GenericEngine(*parts, dtype=torch.float32, smallest=1)])


def _model(task: Task, family: str) -> Any:
    torch.manual_seed(0)
    outputs = task.model_kwargs()
    config = tiny.CONFIGS[family](pad_token_id=0, **outputs)
    config._attn_implementation = "sdpa" if family != "deberta-v2" else "eager"
    auto: Any = task.auto_model
    return auto.from_config(config)


@cache
def _bert_tokenizer() -> Any:
    names = [*tiny_text.SPECIALS, *tiny_text.WORDS]
    return hf.BertTokenizer(vocab={word: index for index, word in enumerate(names)})


def trained(engine: Engine, model: Any, batch: list[dict[str, Any]]) -> tuple[float, torch.Tensor]:
    """The loss of a batch and its gradient."""
    for parameter in model.parameters():
        parameter.grad = None
    result = engine.forward_backward(engine.collate(batch), 1.0)
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return float(result.loss_sum), torch.cat(grads)


def check_engine(engine: Engine, model: Any, examples: list[dict[str, Any]]) -> None:
    alone = [engine.answers(engine.collate([example])) for example in examples]
    together = engine.answers(engine.collate(examples))
    assert together.finite.all()
    np.testing.assert_allclose(
        together.losses, np.concatenate([one.losses for one in alone]), **NEAR
    )
    kept = np.concatenate([one.kept for one in alone])
    np.testing.assert_allclose(together.kept, kept, rtol=1e-4, atol=1e-4)
    loss, gradient = trained(engine, model, examples)
    parts = [trained(engine, model, [example]) for example in examples]
    assert loss == pytest.approx(sum(part for part, _ in parts), rel=1e-4, abs=1e-5)
    expected = torch.stack([part for _, part in parts]).sum(dim=0)
    assert (gradient - expected).norm() <= 1e-4 * expected.norm() + 1e-6


def check(found: Subject, name: str, words: list[list[str]], side: str) -> None:
    tuned, model = found.tuned, found.tuned.model
    tuned.tokenizer.padding_side = side
    rows = rows_of(name, words)
    examples = list(tuned.task.encode(rows, tuned.tokenizer, LONGEST))
    for engine in found.engines:
        check_engine(engine, model, examples)
    asked: list[Any] = rows["text"][:]
    together = lorafit.predict(tuned, asked)
    for text, answer in zip(asked, together, strict=True):
        assert same(lorafit.predict(tuned, [text])[0], answer), (text, asked)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == pytest.approx(other, rel=1e-3, abs=1e-4)) if _number(one) else one == other


def _number(value: Any) -> bool:
    return isinstance(value, float)


@pytest.mark.parametrize(("name", "family"), CASES)
@hypothesis_settings(max_examples=2, phases=(Phase.generate,))
@given(words=TEXTS, side=st.sampled_from(["left", "right"]))
def test_an_answer_depends_on_its_text_alone(name, family, words, side):
    check(subject(name, family), name, words, side)


@pytest.mark.parametrize("family", DECODERS)
@hypothesis_settings(max_examples=2, phases=(Phase.generate,))
@given(words=TEXTS, side=st.sampled_from(["left", "right"]))
def test_a_decoder_whose_texts_end_with_the_token_that_pads(family, words, side):
    found = subject("sequence_classification", family, ending=True)
    assert found.tuned.tokenizer.pad_token_id == found.tuned.tokenizer.eos_token_id
    check(found, "sequence_classification", words, side)


def test_the_models_tell_texts_apart():
    """Otherwise all that is asked here would hold of anything."""
    texts = ["good film", "a dull plot", "slow", "it is very very cold with a lovely story"]
    for family in tiny.ARCHITECTURES:
        answers = lorafit.predict(subject("sequence_classification", family).tuned, texts)
        chances = [answer["probabilities"]["pos"] for answer in answers]
        assert max(chances) - min(chances) > 0.01, family
