"""A tiny model that does a task, with an adapter that does something, in every engine.

What an answer depends on is asked of it: `check_alone` compares what is computed of an example
in company with what is computed of it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from torch import nn
from transformers import PreTrainedTokenizerBase

from lorafit.adapt import Adapters
from lorafit.api import Tuned, predict
from lorafit.config import GenerateConfig
from lorafit.data.batches import Example
from lorafit.engine.base import Engine
from lorafit.engine.choose import Computing, Setting, choose_engine
from lorafit.engine.eager import EagerEngine
from lorafit.engine.generic.engine import GenericEngine
from lorafit.errors import ConfigError
from lorafit.evaluation.handoff import TOLERANCE
from lorafit.methods.lora import LoraConfig
from lorafit.model.load import from_live
from lorafit.tasks.base import Task
from lorafit.tasks.parts.generative import GenerativeTask
from lorafit.testing import tiny, words
from lorafit.training.learner import Learner

ENGINES: tuple[Setting, ...] = ("eager", "generic", "fast")
LONGEST = 30
"""Longest input in tokens."""

_RELATIVE, _ABSOLUTE = 1e-4, 1e-5
"""Sums of float32 in another order; weights are so large that answers differ by about 1."""


@dataclass(frozen=True)
class Subject:
    """What is asked.

    Attributes:
        tuned: The model with its adapter, as `lorafit.load` returns it.
        engines: That compute it.
    """

    tuned: Tuned
    engines: tuple[Engine, ...]

    @property
    def model(self) -> Any:
        """The adapted model."""
        return self.tuned.model


def heads(task: Task) -> list[str]:
    """The architectures of `tiny` that have a head for the task."""
    if isinstance(task, GenerativeTask):
        both = task.supervision == "target"
        return [name for name in tiny.WRITERS if _config(name).is_encoder_decoder == both]
    mapping = task.auto_model._model_mapping  # type: ignore[attr-defined]  # noqa: SLF001
    return [name for name in tiny.ARCHITECTURES if type(_config(name)) in mapping]


def tokenizer_for(family: str) -> PreTrainedTokenizerBase:
    """A tokenizer such as models of the family come with."""
    if _config(family).is_encoder_decoder:
        return words.ending_tokenizer()
    return words.gpt2_tokenizer() if family in tiny.WRITERS else words.word_tokenizer()


def _config(family: str) -> Any:
    return tiny.CONFIGS[family](pad_token_id=0)


def model_for(task: Task, family: str, seed: int = 0) -> Any:
    """A tiny model of the family with a head for the task."""
    torch.manual_seed(seed)
    config = tiny.CONFIGS[family](pad_token_id=0, **task.model_kwargs())
    config._attn_implementation = "eager" if family == "deberta-v2" else "sdpa"
    auto: Any = task.auto_model
    return auto.from_config(config)


def subject(
    task: Task,
    family: str,
    tokenizer: PreTrainedTokenizerBase,
    engines: Sequence[Setting] = ENGINES,
) -> Subject:
    """A tiny model of the family that does the task.

    Args:
        task: Is told of the model (`Task.meet`).
        family: A key of `tiny.CONFIGS`.
        tokenizer: Its vocabulary is within `tiny.VOCAB`.
        engines: Those to make; ``fast`` is left out where it does not know the model.
    """
    model = model_for(task, family)
    end = tokenizer.eos_token_id
    model.config.eos_token_id = tokenizer.sep_token_id if end is None else end
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
    writing = GenerateConfig(max_new_tokens=4)
    tuned = Tuned(model, loaded.tokenizer, adapters, task, LONGEST, writing)
    made = (_engine(kind, model, task, loaded.tokenizer) for kind in engines)
    return Subject(tuned, tuple(engine for engine in made if engine is not None))


def beginners(
    task: Task, family: str, tokenizer: PreTrainedTokenizerBase, rows: Callable[..., Dataset]
) -> Iterator[tuple[str, Learner, list[str]]]:
    """Tiny models with a new head and a fresh adapter, one for each engine that knows the family.

    Args:
        task: What is learned.
        family: A key of `tiny.CONFIGS`.
        tokenizer: Its vocabulary is within `tiny.VOCAB`.
        rows: Makes labelled rows, of a count and a seed.

    Yields:
        The engine's name, what learns, and the paths of the new modules.
    """
    for kind in ENGINES:
        model = model_for(task, family)
        end = tokenizer.eos_token_id
        model.config.eos_token_id = tokenizer.sep_token_id if end is None else end
        loaded = from_live(model, tokenizer, task)
        task.meet(model)
        adapters = Adapters(model)
        whole = loaded.new_modules or None
        adapters.add(LoraConfig(target_modules="all-linear", modules_to_save=whole))
        model.eval()
        engine = _engine(kind, model, task, loaded.tokenizer)
        if engine is None:
            continue
        splits = (
            task.encode(rows(count, seed), loaded.tokenizer, LONGEST)
            for count, seed in ((192, 0), (64, 1))
        )
        learner = Learner(engine, model, task, adapters.trainable(), *splits)
        yield kind, learner, loaded.new_modules


def _engine(
    kind: Setting, model: nn.Module, task: Task, tokenizer: PreTrainedTokenizerBase
) -> Engine | None:
    """``None``: the fast engine does not know the model."""
    if kind == "generic":  # which leaves small weights alone, and all of these are small
        return GenericEngine(model, task, tokenizer, dtype=torch.float32, smallest=1)
    try:
        return choose_engine(kind, model, task, tokenizer, Computing(dtype=torch.float32))
    except ConfigError:
        if kind != "fast":
            raise
        return None


def check_alone(found: Subject, rows: Dataset) -> None:
    """Asserts that no answer to these rows depends on the others, in any engine."""
    tuned = found.tuned
    examples = list(tuned.task.encode(rows, tuned.tokenizer, LONGEST))
    for engine in found.engines:
        _check_engine(engine, tuned.model, examples)
    together = predict(tuned, rows)
    for index, answer in enumerate(together):
        [alone] = predict(tuned, rows.select([index]))
        assert same(alone, answer), (rows[index], alone, answer)


def check_answering(tuned: Tuned, examples: list[Example]) -> None:
    """Asserts that what answers computes what plain torch does, with the adapter and without."""
    device = torch.device("cpu")
    plain = EagerEngine(tuned.model, tuned.task, tuned.tokenizer, device)
    before = {name: one.clone() for name, one in tuned.model.state_dict().items()}
    for adapted in (True, False, True):
        with nullcontext() if adapted else tuned.adapters.disabled():
            engine = tuned.inference.engine(tuned.model, tuned.task, tuned.tokenizer, device)
            assert engine.name != "eager", engine.reason
            _check_equal(engine, plain, examples)
    after = tuned.model.state_dict()
    assert all(torch.equal(after[name], one) for name, one in before.items())


def _check_equal(engine: Engine, plain: Engine, examples: list[Example]) -> None:
    expected = plain.logits(plain.collate(examples)).double()
    logits = engine.logits(engine.collate(examples)).double()
    if expected.dim() == 3:  # of every token; what padding gets is nobody's business
        mask = plain.collate(examples)["attention_mask"].bool()
        if mask.shape == expected.shape[:2]:
            expected, logits = expected[mask], logits[mask]
    allowed = TOLERANCE["float32"] * max(1.0, float(expected.abs().max()))
    assert (logits - expected).abs().max() <= allowed, engine.name


def _check_engine(engine: Engine, model: Any, examples: list[Example]) -> None:
    alone = [engine.answers(engine.collate([example])) for example in examples]
    together = engine.answers(engine.collate(examples))
    assert together.finite.all(), engine.name
    losses = np.concatenate([one.losses for one in alone])
    np.testing.assert_allclose(
        together.losses, losses, rtol=_RELATIVE, atol=_ABSOLUTE, err_msg=engine.name
    )
    kept = np.concatenate([one.kept for one in alone])
    np.testing.assert_allclose(together.kept, kept, rtol=1e-4, atol=1e-4, err_msg=engine.name)
    loss, gradient = _trained(engine, model, examples)
    parts = [_trained(engine, model, [example]) for example in examples]
    assert loss == pytest.approx(sum(part for part, _ in parts), rel=1e-4, abs=1e-5), engine.name
    expected = torch.stack([part for _, part in parts]).sum(dim=0)
    assert (gradient - expected).norm() <= 1e-4 * expected.norm() + 1e-6, engine.name


def _trained(engine: Engine, model: Any, batch: list[Example]) -> tuple[float, torch.Tensor]:
    """The loss of a batch and its gradient."""
    for parameter in model.parameters():
        parameter.grad = None
    result = engine.forward_backward(engine.collate(batch), 1.0)
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return float(result.loss_sum), torch.cat(grads)


def same(one: Any, other: Any) -> bool:
    """Whether two answers are the same, their numbers up to rounding."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return bool(one == pytest.approx(other, rel=1e-3, abs=1e-4))
    return bool(one == other)


def saved(task: Task, family: str, tokenizer: PreTrainedTokenizerBase, folder: Any) -> Any:
    """Writes a tiny pretrained model as the Hub has them: without a head, unless it writes."""
    if isinstance(task, GenerativeTask):
        tiny.language_model(family).save_pretrained(folder)
    else:
        torch.manual_seed(0)
        auto: Any = transformers.AutoModel
        auto.from_config(_config(family)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
