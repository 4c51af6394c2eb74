"""After the training: measured, proved by loading it again, described and delivered."""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorafit import files, quiet
from lorafit.adapt import Adapters
from lorafit.config import Config
from lorafit.engine.base import Engine
from lorafit.engine.eager import EagerEngine
from lorafit.evaluation.compare import paired
from lorafit.evaluation.generation import generate
from lorafit.evaluation.handoff import TOLERANCE, check_handoff, sampled_logits
from lorafit.evaluation.samples import choose_questions, compare_answers
from lorafit.evaluation.score import Scores, intervals, score
from lorafit.evidence import Choice, Evaluation, Generation, HandOff
from lorafit.export import peft as peft_format
from lorafit.export.card import Card
from lorafit.export.card import write as write_card
from lorafit.export.peft_config import describe as describe_adapter
from lorafit.job import Job
from lorafit.model import load
from lorafit.model.load import LoadedModel
from lorafit.pipeline import Subject, make_engine, uses_bf16
from lorafit.tasks.base import Task
from lorafit.tasks.generative import GenerativeTask
from lorafit.training.loop import FitResult
from lorafit.tuned import FACTS, Tuned, adapter_facts

log = logging.getLogger(__name__)

HANDOFF_EXAMPLES = 64
"""Test examples on which the saved and the merged adapter are compared with the live one."""


def measuring_engine(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    config: Config,
    trained: Engine | None = None,
) -> Engine:
    """The engine to measure with: in the format of the weights, as whoever loads them computes.

    That is the engine that trains where weights and engine are float32, else plain torch.

    Args:
        model: The adapted model.
        tokenizer: Its tokenizer.
        task: What is measured.
        config: The settings of the run.
        trained: The engine that trained, if it is at hand.
    """
    bf16, _ = uses_bf16(model, config, Accelerator())
    if bf16 or model.dtype != torch.float32:
        return EagerEngine(model, task, tokenizer)
    with quiet.saying_less("lorafit"):  # which engine it is was said before the training
        return trained or make_engine(model, tokenizer, task, config)


def measure(
    engine: Engine, adapters: Adapters, encoded: Dataset, task: Task, batch: int
) -> tuple[Scores, Scores]:
    """Scores the base model and the tuned one on the same examples."""
    with adapters.disabled():
        base = score(engine, task, encoded, batch)
    return base, score(engine, task, encoded, batch)


def evaluation(base: Scores, tuned: Scores, task: Task, config: Config) -> Evaluation:
    """What ``eval.json`` holds, less texts, hand-off and training."""
    level, seed = config.run.confidence, config.seed
    return Evaluation(
        n=len(tuned),
        metric=task.metric,
        confidence=level,
        metrics=task.infos,
        base=intervals(base, task, level, seed),
        tuned=intervals(tuned, task, level, seed),
        paired=paired(base, tuned, task, level, seed),
        tables=task.tables(tuned.logits, tuned.labels),
    )


def measured(
    tuned: Tuned, rows: Dataset, encoded: Dataset, config: Config, trained: Engine | None = None
) -> Evaluation:
    """Base and tuned model on the same rows: what ``eval.json`` holds, less the hand-off.

    Args:
        tuned: The model with its adapter.
        rows: What is measured on, as rows.
        encoded: The same, encoded.
        config: The settings of the run.
        trained: The engine that trained, if it is at hand.
    """
    engine = measuring_engine(tuned.model, tuned.tokenizer, tuned.task, config, trained)
    batch = config.train.per_device_eval_batch_size
    base, after = measure(engine, tuned.adapters, encoded, tuned.task, batch)
    outcome = evaluation(base, after, tuned.task, config)
    return measure_texts(outcome, tuned, rows, config)


def measure_texts(outcome: Evaluation, tuned: Tuned, rows: Dataset, config: Config) -> Evaluation:
    """Lets base and tuned model answer some prompts, if the task writes text.

    Returns:
        ``outcome`` with the metrics of whole texts beside the others, and samples.
    """
    settings, task = config.generate, tuned.task
    if not isinstance(task, GenerativeTask) or not settings.examples:
        return outcome
    model, tokenizer = tuned.model, tuned.tokenizer
    questions = choose_questions(task.prompts(rows, tokenizer, tuned.max_length), settings.examples)
    prompts = [question.prompt for question in questions]
    batch = config.train.per_device_eval_batch_size
    with tuned.adapters.disabled():
        base = generate(model, tokenizer, prompts, settings, batch)
    after = generate(model, tokenizer, prompts, settings, batch)
    found = compare_answers(questions, base, after, config.run.confidence, config.seed)
    return outcome.model_copy(
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


def verify_handoff(job: Job, adapter: Path) -> HandOff:
    """Loads the saved adapter onto the base again, merges it if it can be, compares logits.

    The base is read from its source again, so that this is what the receiver does. A live
    model has no source: there the adapter is taken off it, which restores it bit for bit.
    The subject's adapter is unloaded.

    Raises:
        HandoffError: Reloaded or merged, the model computes something else.
    """
    subject, task, config = job.subject, job.task, job.config
    rows = subject.encoded["test"].select(
        range(min(HANDOFF_EXAMPLES, len(subject.encoded["test"])))
    )
    batch = config.train.per_device_eval_batch_size

    def logits(loaded: LoadedModel) -> Any:
        engine = EagerEngine(loaded.model, task, loaded.tokenizer)
        return sampled_logits(engine, task, rows, batch)

    trained = logits(subject.loaded)
    with subject.adapters.disabled():
        untuned = logits(subject.loaded)
    dtype = subject.model.dtype
    subject.adapters.unload()
    loaded = subject.loaded
    if not subject.live:
        # Another random head: what the adapter does not bring along must not go unnoticed.
        torch.manual_seed(config.seed + 1)
        with quiet.saying_less():
            loaded = load.load_model(config.model, task)
    again = peft_format.load(loaded.model, adapter)
    reloaded = logits(loaded)
    merged = None
    if again.unmergeable():
        log.info("the adapter cannot be merged: %s", again.unmergeable())
    else:
        again.merge()
        merged = logits(loaded)
    again.unload()
    gc.collect()
    tolerance = TOLERANCE[str(dtype).removeprefix("torch.")]
    found = check_handoff(
        trained, reloaded=reloaded, merged=merged, base=untuned, tolerance=tolerance
    )
    return found.model_copy(update={"n": len(rows)})


def finish(
    job: Job,
    result: FitResult,
    choices: Mapping[str, Choice],
    versions: Mapping[str, str | None],
) -> None:
    """Saves the adapter, measures it, proves the hand-off, writes the card, delivers the run.

    The test split is read here for the first time. The run is delivered only after the saved
    and the merged adapter computed what the trained one computes. What was measured enters
    ``config.yaml`` when the run is closed: until then a run that is killed is resumed with the
    settings it began with, and comes to the same choices.

    Args:
        job: With the trained adapter, and settings in which what was measured is filled in;
            its subject's adapter is unloaded.
        result: What training came to.
        choices: All choices, for the card.
        versions: Package to version, for the card.

    Raises:
        HandoffError: The saved adapter does not compute what the trained one does.
        RunError: A file cannot be written.
    """
    subject, run, config = job.subject, job.folder, job.config
    folder = _saved(job)
    described = describe_adapter(subject.adapters, "default")
    outcome = measured(
        _tuned(job), job.problem.splits["test"], subject.encoded["test"], config, subject.engine
    )
    trained = training_facts(subject, result)
    handoff = verify_handoff(job, folder)
    outcome = outcome.model_copy(update={"handoff": handoff, "training": trained})
    run.write_evaluation(outcome)
    card = Card(
        config=config,
        task=job.task,
        base_name=subject.loaded.base_name,
        rows=trained["rows"],
        max_length=subject.max_length,
        adapter=described,
        choices=choices,
        evaluation=outcome,
        versions=versions,
        trainable_parameters=trained["trainable_parameters"],
        steps=result.steps,
        resized_head=subject.loaded.resized_head,
    )
    write_card(card, folder)
    run.deliver(config, job.settings.origins)


def training_facts(subject: Subject, result: FitResult) -> dict[str, Any]:
    """What training came to, and the sizes of what was trained and of its data."""
    return asdict(result) | {
        "trainable_parameters": sum(p.numel() for p in subject.adapters.trainable().values()),
        "total_parameters": sum(p.numel() for p in subject.model.parameters()),
        "rows": {name: len(rows) for name, rows in subject.encoded.items()},
    }


def _saved(job: Job) -> Path:
    """Writes the adapter's folder: PEFT's files, the tokenizer, and our own facts."""
    subject, folder = job.subject, job.folder.path / "adapter"
    peft_format.save(subject.adapters, folder)
    subject.tokenizer.save_pretrained(folder)
    files.write_json(folder / FACTS, adapter_facts(subject, job.task, job.config))
    return folder


def _tuned(job: Job) -> Tuned:
    """The trained subject as what `lorafit.load` gives."""
    subject = job.subject
    return Tuned(
        *(subject.model, subject.tokenizer, subject.adapters, job.task, subject.max_length),
        job.config.generate,
    )
