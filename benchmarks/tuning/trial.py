"""One full training run through lorafit's own parts, and what is measured of it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from benchmarks.tuning.pairs import Pair
from lorafit import pipeline
from lorafit.data.batches import lengths
from lorafit.errors import DivergenceError
from lorafit.evaluation.score import Scores, score
from lorafit.pipeline.job import Job
from lorafit.pipeline.problem import Problem
from lorafit.training.progress import QuietProgress
from lorafit.tune import search


def run(pair: Pair, model: str, data: Any, seed: int, point: dict[str, Any]) -> Any:
    """Trains one point of the grid; the figures of the test split are for the record only.

    Returns:
        JSON values: the selection set's and the test set's figures and the cost.
    """
    settings = {k: v for k, v in point.items() if k != "modules"}
    settings["target_modules"] = pair.modules[point["modules"]]
    whole = pair.whole(model, seed, **pair.grid_settings | settings)
    config = whole.config
    problem = pipeline.pose(data, config)
    subject = pipeline.prepare(problem, config)
    tokens = sum(lengths(subject.encoded["train"])) * config.train.num_train_epochs
    batch = config.train.per_device_eval_batch_size
    facts = {"engine": subject.engine.name, "tokens": tokens}
    facts["untuned"] = measured(pair, subject, problem, batch)["test"]
    start = time.perf_counter()
    try:
        search.trained(Job(problem, subject, whole), None, QuietProgress())
        facts["time_s"] = round(time.perf_counter() - start, 2)
        return facts | measured(pair, subject, problem, batch)
    except DivergenceError:
        return facts | {"time_s": round(time.perf_counter() - start, 2), "diverged": True}


def measured(pair: Pair, subject: pipeline.Subject, problem: Problem, batch: int) -> dict[str, Any]:
    """Selection and test figures, by the training engine; the temperature is the selection's."""
    scores = {
        name: score(subject.engine, subject.encoded[name], batch) for name in ("validation", "test")
    }
    classes = problem.task.name == "sequence_classification"
    factor = sharpness(scores["validation"]) if classes else 1.0
    result: dict[str, Any] = {"sharpness": factor}
    for name, found in (("selection", scores["validation"]), ("test", scores["test"])):
        # A language model's example has a loss for every token: their sum, on average a token's.
        units = 1.0 if found.units is None else float(found.units.mean())
        losses = found.losses.astype(np.float64) / units
        scaled = scaled_losses(found, factor) if classes else losses
        result[name] = {
            "n": len(found),
            "nll": float(losses.mean()),
            "scaled_nll": float(scaled.mean()),
            "scaled_nll_se": float(scaled.std(ddof=1) / np.sqrt(len(scaled))),
            pair.metric: problem.task.metrics[pair.metric](found.logits, found.labels),
        }
    return result


def scaled_losses(scores: Scores, factor: float) -> np.ndarray:
    """Losses ``(n,)`` of classes when the logits ``(n, classes)`` are multiplied by a factor."""
    logits = scores.logits.astype(np.float64) * factor
    found: np.ndarray = logsumexp(logits, axis=1) - logits[np.arange(len(logits)), scores.labels]
    return found


def sharpness(scores: Scores) -> float:
    """The factor (one over the temperature) that makes the mean loss smallest."""
    found = minimize_scalar(
        lambda log: scaled_losses(scores, np.exp(log)).mean(), bounds=(-4, 2), method="bounded"
    )
    return float(np.exp(found.x))
