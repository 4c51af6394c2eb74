"""After the training: measured, proved by loading it again, described and closed."""

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
from lorafit.export import peft as peft_format
from lorafit.export.card import Card
from lorafit.export.card import write as write_card
from lorafit.model import load
from lorafit.model.load import LoadedModel
from lorafit.pipeline import LIVE, Problem, Subject, make_engine, uses_bf16
from lorafit.report.html import write_report
from lorafit.run import Run
from lorafit.tasks.base import Task
from lorafit.tasks.generative import GenerativeTask
from lorafit.training.loop import FitResult

log = logging.getLogger(__name__)

FACTS = "lorafit.json"
"""File in the adapter's folder: the task with its labels, and how the base was loaded."""

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


def evaluation(base: Scores, tuned: Scores, task: Task, config: Config) -> dict[str, Any]:
    """The content of ``eval.json``, less the hand-off."""
    level, seed = config.run.confidence, config.seed
    return {
        "split": "test",
        "n": len(tuned.losses),
        "metric": task.metric,
        "confidence": level,
        "base": intervals(base, task, level, seed),
        "tuned": intervals(tuned, task, level, seed),
        "paired": paired(base, tuned, task, level, seed),
        "tables": task.tables(tuned.logits, tuned.labels),
    }


def measure_texts(
    outcome: dict[str, Any],
    adapters: Adapters,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    task: Task,
    max_length: int,
    config: Config,
) -> None:
    """Lets base and tuned model answer some prompts, if the task writes text.

    Adds the metrics of whole texts to those in ``outcome``, and samples as ``generation``.
    """
    settings = config.generate
    if not isinstance(task, GenerativeTask) or not settings.examples:
        return
    questions = choose_questions(task.prompts(rows, tokenizer, max_length), settings.examples)
    model, prompts = adapters.model, [question.prompt for question in questions]
    assert isinstance(model, PreTrainedModel)
    batch = config.train.per_device_eval_batch_size
    with adapters.disabled():
        base = generate(model, tokenizer, prompts, settings, batch)
    tuned = generate(model, tokenizer, prompts, settings, batch)
    found = compare_answers(questions, base, tuned, config.run.confidence, config.seed)
    for part in ("base", "tuned", "paired"):
        outcome[part] |= found[part]
    outcome["generation"] = {
        "n": len(questions),
        "max_new_tokens": settings.max_new_tokens,
        "num_beams": settings.num_beams,
        "metrics": list(found["tuned"]),
        "samples": found["samples"],
    }


def verify_handoff(
    adapter: Path, subject: Subject, problem: Problem, config: Config, live: bool
) -> dict[str, float]:
    """Loads the saved adapter onto the base again, merges it if it can be, compares logits.

    The base is read from its source again, so that this is what the receiver does. A live
    model has no source: there the adapter is taken off it, which restores it bit for bit.
    The subject's adapter is unloaded.

    Raises:
        HandoffError: Reloaded or merged, the model computes something else.
    """
    task = problem.task
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
    if not live:
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
    return found | {"n": len(rows), "tolerance": tolerance}


def adapter_facts(subject: Subject, task: Task, config: Config) -> dict[str, Any]:
    """What `lorafit.load` needs beyond PEFT's files, so that the folder stands alone."""
    model = config.model.model_dump()
    base = subject.loaded.base_name
    if config.model.name_or_path != LIVE and base is not None:
        model["name_or_path"] = base  # absolute: the adapter is used from other folders too
        if base.endswith(f"/{config.model.gguf_file}"):
            model["gguf_file"] = None
    return {
        "task": task.to_dict(),
        "max_length": subject.max_length,
        "model": model,
        "seed": config.seed,
        "generate": config.generate.model_dump(),
    }


def finish(
    run: Run,
    problem: Problem,
    subject: Subject,
    config: Config,
    origins: Mapping[str, str],
    result: FitResult,
    live: bool,
) -> None:
    """Saves the adapter, measures it, proves the hand-off, writes card and report.

    The test split is read here for the first time. The run says done only after the saved
    and the merged adapter computed what the trained one computes. What was measured enters
    ``config.yaml`` last: until then a run that is killed is resumed with the settings it began
    with, and comes to the same choices.
    """
    task, adapters = problem.task, subject.adapters
    adapter = run.path / "adapter"
    peft_format.save(adapters, adapter)
    subject.tokenizer.save_pretrained(adapter)
    files.write_json(adapter / FACTS, adapter_facts(subject, task, config))
    batch = config.train.per_device_eval_batch_size
    engine = measuring_engine(subject.model, subject.tokenizer, task, config, subject.engine)
    base, tuned = measure(engine, adapters, subject.encoded["test"], task, batch)
    outcome = evaluation(base, tuned, task, config)
    measure_texts(
        outcome,
        adapters,
        subject.tokenizer,
        problem.splits["test"],
        task,
        subject.max_length,
        config,
    )
    trainable = sum(p.numel() for p in adapters.trainable().values())
    total = sum(p.numel() for p in subject.model.parameters())
    outcome["handoff"] = verify_handoff(adapter, subject, problem, config, live)
    outcome["training"] = asdict(result) | {
        "trainable_parameters": trainable,
        "total_parameters": total,
        "rows": {name: len(rows) for name, rows in subject.encoded.items()},
    }
    run.write_json("eval.json", outcome)
    write_card(
        Card(
            config=config,
            task=task,
            base_name=subject.loaded.base_name,
            rows={name: len(rows) for name, rows in subject.encoded.items()},
            max_length=subject.max_length,
            adapter=files.read_json(adapter / "adapter_config.json"),
            choices=run.choices,
            evaluation=outcome,
            versions=run.environment["versions"],
            trainable_parameters=trainable,
            steps=result.steps,
            resized_head=subject.loaded.resized_head,
        ),
        adapter,
    )
    run.write_config(config, origins)
    close(run)


def close(run: Run) -> None:
    """The last step of a run, once all else is written."""
    run.set_status("done")
    write_report(run.path)
