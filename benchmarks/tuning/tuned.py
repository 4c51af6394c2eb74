"""One run of `lorafit.train` with a strategy of the tuner, measured like a point of the grid."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import lorafit
from benchmarks.tuning.pairs import Pair
from benchmarks.tuning.trial import measured
from lorafit import pipeline
from lorafit.model.load import LoadedModel
from lorafit.pipeline.subject import Subject
from lorafit.tune.rise import rates, trunk
from lorafit.tune.rise import strategy as rise


def run(
    pair: Pair, model: str, data: Any, seed: int, constants: dict[str, float]
) -> dict[str, Any]:
    """Trains with everything chosen by lorafit; the choices, the cost and the figures.

    Args:
        pair: Its settings.
        model: As `lorafit.train` takes it.
        data: As `lorafit.train` takes it.
        seed: Of the run.
        constants: Of `lorafit.tune.rise`, `rates` or `trunk`, other than they are; users do
            not choose them, experiments do.
    """
    for name, value in constants.items():
        for module in (rise, rates, trunk):
            if hasattr(module, name):
                setattr(module, name, value)
    # U is a plain run as lorafit makes it, evaluations included; the grid's points skip them.
    common = {name: value for name, value in pair.settings.items() if name != "eval_steps"}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = lorafit.train(
            model, data, seed=seed, progress=False, **common | {"run.dir": folder},
        )  # fmt: skip
        wall = time.perf_counter() - start
        choices = done.read_json("choices.json")
        tuned = lorafit.load(done)
        config = pair.config(model, seed)
        problem = pipeline.pose(data, config)
        encoded = {
            name: tuned.task.encode(rows, tuned.tokenizer, tuned.max_length)
            for name, rows in problem.splits.items()
        }
        engine = pipeline.make_engine(tuned.model, tuned.tokenizer, tuned.task, config)
        subject = Subject(
            LoadedModel(tuned.model, tuned.tokenizer, [], "", None),
            tuned.adapters,
            engine,
            encoded,
            tuned.max_length,
        )
        figures = measured(pair, subject, problem, config.train.per_device_eval_batch_size)
        chosen: dict[str, Any] = {
            name: choices[name]["value"]
            for name in ("r", "lora_alpha", "learning_rate", "target_modules")
            if name in choices
        }
    rate, rank = choices.get("learning_rate", {}), choices.get("r", {})
    facts: dict[str, Any] = {
        "seed": seed,
        "constants": constants,
        **chosen,
        "reasons": {name: choices[name]["reason"] for name in chosen},
        "tests": rank.get("evidence", {}).get("tests"),
        "rates": rate.get("evidence"),
        "cost": choices.get("cost"),
        "wall_s": wall,
    }
    return facts | figures
