"""After the training: measured, proved by loading it again, described and delivered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lorafit.evidence import Choice
from lorafit.evidence.training import Training
from lorafit.export import peft as peft_format
from lorafit.export.card import Card
from lorafit.export.card import write as write_card
from lorafit.export.peft_config import describe as describe_adapter
from lorafit.pipeline import predictions
from lorafit.pipeline.facts import FACTS
from lorafit.pipeline.handoff import verify_handoff
from lorafit.pipeline.job import Job
from lorafit.pipeline.measure import measured
from lorafit.pipeline.subject import Subject
from lorafit.pipeline.tuned import Tuned, adapter_facts
from lorafit.run import atomic
from lorafit.training.loop import FitResult


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
    outcome, said = measured(
        _tuned(job), job.problem.splits["test"], subject.encoded["test"], config, subject.engine
    )
    predictions.keep(run.path, said)
    parameters = sum(p.numel() for p in subject.adapters.trainable().values())
    trained = training_facts(subject, result, parameters)
    handoff = verify_handoff(job, folder)
    outcome = outcome.model_copy(
        update={"handoff": handoff, "training": trained, "course": result.course}
    )
    run.write_evaluation(outcome)
    card = Card(
        config=config,
        task=job.task,
        base_name=subject.loaded.base_name,
        rows={name: len(rows) for name, rows in subject.encoded.items()},
        max_length=subject.max_length,
        adapter=described,
        choices=choices,
        evaluation=outcome,
        versions=versions,
        trainable_parameters=parameters,
        steps=result.steps,
        in_run=True,
        resized_head=subject.loaded.resized_head,
        new_tokens=subject.loaded.new_tokens,
    )
    write_card(card, folder)
    run.deliver(config, job.settings.origins)


def training_facts(subject: Subject, result: FitResult, parameters: int) -> Training:
    """What training came to, and the sizes of what was trained and of its data."""
    return {
        "steps": result.steps,
        "best_step": result.best_step,
        "best_eval_loss": result.best_eval_loss,
        "train_loss": result.train_loss,
        "tokens_per_s": result.tokens_per_s,
        "peak_memory_bytes": result.peak_memory_bytes,
        "time_s": result.time_s,
        "stopped": result.stopped,
        "trainable_parameters": parameters,
        "total_parameters": sum(p.numel() for p in subject.model.parameters()),
        "rows": {name: len(rows) for name, rows in subject.encoded.items()},
    }


def _saved(job: Job) -> Path:
    """Writes the adapter's folder: PEFT's files, the tokenizer, and our own facts."""
    subject, folder = job.subject, job.folder.path / "adapter"
    # The base gets the same new rows at every load: its embeddings are not the adapter's to carry.
    embeddings: peft_format.SaveEmbeddings = False if subject.loaded.new_tokens.ids else "auto"
    tensors = peft_format.tensors_of(subject.adapters, save_embedding_layers=embeddings)
    peft_format.save(subject.adapters, folder, tensors=tensors)
    with atomic.writing(folder, "the tokenizer"):
        subject.tokenizer.save_pretrained(folder)
    atomic.write_json(folder / FACTS, adapter_facts(subject, job.task, job.config, job.base))
    return folder


def _tuned(job: Job) -> Tuned:
    """The trained subject as what `lorafit.load` gives."""
    subject = job.subject
    return Tuned(
        *(subject.model, subject.tokenizer, subject.adapters, job.task, subject.max_length),
        job.config.generate,
        job.config.train.device,
    )
