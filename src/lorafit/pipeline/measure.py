"""The base and the tuned model on the same examples."""

from __future__ import annotations

import pyarrow as pa
import torch
from datasets import Dataset

from lorafit import quiet
from lorafit.adapt import Adapters
from lorafit.config import Config
from lorafit.engine.base import Engine
from lorafit.engine.eager import EagerEngine
from lorafit.evaluation.baseline import baseline
from lorafit.evaluation.compare import paired
from lorafit.evaluation.generation import generate
from lorafit.evaluation.samples import choose_questions, compare_answers
from lorafit.evaluation.score import Scores, all_logits, intervals, score
from lorafit.evidence import Evaluation, Generation
from lorafit.machine.placement import find_device
from lorafit.pipeline import predictions
from lorafit.pipeline.compute import make_engine, uses_bf16
from lorafit.pipeline.predictions import Said, Written
from lorafit.pipeline.tuned import Tuned
from lorafit.tasks.base import Task
from lorafit.tasks.parts.generative import GenerativeTask


def measuring_engine(tuned: Tuned, config: Config, trained: Engine | None = None) -> Engine:
    """The engine to measure with: in the format of the weights, as whoever loads them computes.

    That is the engine that trains where weights and engine are float32; else the one that answers
    (`lorafit.engine.inference`), or plain torch where the run asks for it.

    Args:
        tuned: The model as it is to be measured: its adapters may be switched off.
        config: The settings of the run.
        trained: The engine that trained, if it is at hand.
    """
    model, device = tuned.model, find_device(config.train.device)
    bf16, _ = uses_bf16(model, config, device)
    if not bf16 and model.dtype == torch.float32:
        with quiet.saying_less("lorafit"):  # which engine it is was said before the training
            return trained or make_engine(model, tuned.tokenizer, tuned.task, config)
    if config.train.engine == "eager":
        return EagerEngine(model, tuned.task, tuned.tokenizer, device)
    return tuned.inference.engine(model, tuned.task, tuned.tokenizer, device)


def measure(
    engine: Engine, adapters: Adapters, encoded: Dataset, batch: int
) -> tuple[Scores, Scores]:
    """Scores the base model and the tuned one on the same examples."""
    with adapters.disabled():
        base = score(engine, encoded, batch)
    return base, score(engine, encoded, batch)


def evaluation(
    base: Scores, tuned: Scores, task: Task, encoded: Dataset, config: Config
) -> Evaluation:
    """What ``eval.json`` holds of encoded examples, less texts, hand-off and training."""
    level, seed = config.run.confidence, config.seed
    return Evaluation(
        n=len(tuned),
        metric=task.metric,
        confidence=level,
        metrics=task.infos,
        base=intervals(base, task, level, seed),
        tuned=intervals(tuned, task, level, seed),
        paired=paired(base, tuned, task, level, seed),
        baseline=baseline(task, tuned, encoded, level, seed),
        never_predicted=task.never_predicted(tuned.logits, tuned.labels),
        tables=task.tables(tuned.logits, tuned.labels),
    )


def measured(
    tuned: Tuned, rows: Dataset, encoded: Dataset, config: Config, trained: Engine | None = None
) -> tuple[Evaluation, pa.Table]:
    """Base and tuned model on the same rows.

    Args:
        tuned: The model with its adapter.
        rows: What is measured on, as rows.
        encoded: The same, encoded.
        config: The settings of the run.
        trained: The engine that trained, if it is at hand.

    Returns:
        What ``eval.json`` holds, less the hand-off, and what both models said of each example
        (`lorafit.pipeline.predictions`).
    """
    task = tuned.task
    batch = config.train.per_device_eval_batch_size
    after = said(measuring_engine(tuned, config, trained), task, encoded, batch)
    with tuned.adapters.disabled():
        # Asked again: one that answers may be another one for another state of the adapters.
        base = said(measuring_engine(tuned, config, trained), task, encoded, batch)
    outcome = evaluation(base.scores, after.scores, task, encoded, config)
    outcome, written = measure_texts(outcome, tuned, rows, config)
    return outcome, predictions.table(task, rows, encoded, base, after, config, written)


def said(engine: Engine, task: Task, encoded: Dataset, batch: int) -> Said:
    """What a model says of each example, with its scores.

    Of a label a token the metrics keep counts alone, so that its answers cost a second pass.
    """
    scores = score(engine, encoded, batch)
    if task.supervision != "token":
        return Said(scores, scores.logits)
    return Said(scores, all_logits(engine, task, encoded, batch))


def measure_texts(
    outcome: Evaluation, tuned: Tuned, rows: Dataset, config: Config
) -> tuple[Evaluation, Written | None]:
    """Lets base and tuned model answer some prompts, if the task writes text.

    Returns:
        ``outcome`` with the metrics of whole texts beside the others, and samples; and all that
        was written.
    """
    settings, task = config.generate, tuned.task
    if not isinstance(task, GenerativeTask) or not settings.examples:
        return outcome, None
    model, tokenizer = tuned.model, tuned.tokenizer
    asked = task.prompts(rows, tokenizer, tuned.max_length)
    questions = choose_questions(asked, settings.examples)
    prompts = [question.prompt for question in questions]
    batch = config.train.per_device_eval_batch_size
    with tuned.adapters.disabled():
        base = generate(model, tokenizer, prompts, settings, batch)
    after = generate(model, tokenizer, prompts, settings, batch)
    found = compare_answers(questions, base, after, config.run.confidence, config.seed)
    outcome = outcome.model_copy(
        update={
            "metrics": outcome.metrics | found.infos,
            "base": outcome.base | found.base,
            "tuned": outcome.tuned | found.tuned,
            "paired": outcome.paired | found.paired,
            "generation": Generation(
                n=len(questions),
                max_new_tokens=settings.max_new_tokens,
                num_beams=settings.num_beams,
                metrics=list(found.tuned),
                samples=found.samples,
            ),
        }
    )
    return outcome, Written(questions, base, after, len(asked) == len(rows))
