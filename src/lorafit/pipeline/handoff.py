"""The proof that what was saved computes what was trained."""

from __future__ import annotations

import gc
import logging
from pathlib import Path
from typing import Any

import torch

from lorafit import quiet
from lorafit.engine.eager import EagerEngine
from lorafit.evaluation.handoff import TOLERANCE, check_handoff, sampled_logits
from lorafit.evidence import HandOff
from lorafit.export import peft as peft_format
from lorafit.machine.placement import find_device
from lorafit.model import load
from lorafit.model.load import LoadedModel
from lorafit.pipeline.job import Job

log = logging.getLogger(__name__)


HANDOFF_EXAMPLES = 64
"""Test examples on which the saved and the merged adapter are compared with the live one."""


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
        device = find_device(config.train.device)
        engine = EagerEngine(loaded.model, task, loaded.tokenizer, device)
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
    try:
        reloaded = logits(loaded)
        merged = None
        if again.unmergeable():
            log.info("the adapter cannot be merged: %s", again.unmergeable())
        else:
            again.merge()
            merged = logits(loaded)
    finally:
        again.unload()
    gc.collect()
    tolerance = TOLERANCE[str(dtype).removeprefix("torch.")]
    found = check_handoff(
        trained, reloaded=reloaded, merged=merged, base=untuned, tolerance=tolerance
    )
    return found.model_copy(update={"n": len(rows)})
