"""One side of a pair: lorafit with some settings, measured like a point of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from benchmarks.tuning.pairs import Pair
from benchmarks.tuning.trial import measured
from lorafit import pipeline
from lorafit.pipeline.job import Job
from lorafit.settings import from_keywords, resolve
from lorafit.training.progress import QuietProgress
from lorafit.tune import search
from lorafit.tune.bench.bench import Bench
from lorafit.tune.bench.rules import Rules
from lorafit.tune.prior.lessons import Lesson
from lorafit.tune.rise import pruning, rates, trunk
from lorafit.tune.rise import strategy as rise

SIDES: dict[str, dict[str, Any]] = {
    "rise": {"budget": 1.25},
    "rise-1.5": {"budget": 1.5},
    "prior": {"budget": 1.25},
    "fixed-8": {"r": 8, "target_modules": "all-linear", "lora_alpha": 8},
    "fixed-16": {"r": 16, "target_modules": "all-linear", "lora_alpha": 16},
    "fixed-32": {"r": 32, "target_modules": "all-linear", "lora_alpha": 32},
    "defaults": {"strategy": "none"},
    "random-head": {"strategy": "none", "head_init": "random"},
    "rise-random-head": {"head_init": "random"},
    "longer": {"strategy": "none", "num_train_epochs": 1.25},
    "before": {
        "strategy": "none",
        "lr_scheduler_type": "warmup_stable_decay",
        "adam_beta2": 0.999,
    },
}
"""By name, what a user would set.

rise
    Nothing: everything is measured.
prior
    The same as rise, with what rise found on all other pairs as its prior.
rise-1.5
    Room for tests of the rank and the modules.
fixed-8, fixed-16, fixed-32
    The rank; the learning rate is measured in the run.
defaults
    Nothing is measured.
random-head, rise-random-head
    The head begins at random; nothing is measured, or everything.
longer
    The same for as long as measuring takes; the epochs are times those of the pair.
before
    The defaults of lorafit before December 2026.
"""


def run(
    pair: Pair,
    model: str,
    data: Any,
    seed: int,
    side: str,
    constants: dict[str, float],
    prior: Sequence[Lesson] = (),
) -> dict[str, Any]:
    """Trains one side; the choices, the cost and the figures.

    Args:
        pair: Its settings.
        model: As `lorafit.train` takes it.
        data: As `lorafit.train` takes it.
        seed: Of the run.
        side: Of `SIDES`.
        constants: Of `Rules` (``first_rank``), or of `lorafit.tune.rise`, `rates`, `trunk` or
            `pruning`, other than they are; users do not choose them, experiments do.
        prior: What searches of other pairs found.
    """
    ruled = {field.name for field in fields(Rules)} & constants.keys()
    rules: dict[str, Any] = {name: constants[name] for name in ruled}
    Bench.rules = replace(Rules(), **rules)
    for name, value in constants.items():
        for module in (rise, rates, trunk, pruning):
            if hasattr(module, name):
                setattr(module, name, value)
    own = dict(SIDES[side])
    if "num_train_epochs" in own:
        own["num_train_epochs"] *= pair.settings["num_train_epochs"]
    # U is a plain run as lorafit makes it, evaluations included; the grid's points skip them.
    common = {name: value for name, value in pair.settings.items() if name != "eval_steps"}
    given = {"model.name_or_path": model, "data.path": "(passed beside)", "seed": seed}
    settings = resolve(from_keywords(given | common | own))
    problem = pipeline.pose(data, settings.config)
    subject = pipeline.prepare(problem, settings.config)
    job = Job(problem, subject, settings)
    wish = search.wanted(job)
    if wish is not None:
        wish = replace(wish, prior=prior)  # of no lines: the search is what it is without one
    found = search.trained(job, wish, QuietProgress())
    choices, cost = found.choices, found.extra.get("cost")
    config = found.settings.config
    facts: dict[str, Any] = {
        "seed": seed,
        "side": side,
        "constants": constants,
        "learning_rate": config.train.learning_rate,
        **{name: config.adapter.settings[name] for name in ("r", "lora_alpha", "target_modules")},
        "reasons": {name: choice.reason for name, choice in choices.items()},
        "ranks": choices["r"].evidence.get("ranks") if "r" in choices else None,
        "kinds": choices["target_modules"].evidence.get("kinds")
        if "target_modules" in choices
        else None,
        "tests": choices["r"].evidence.get("tests") if "r" in choices else None,
        "rates": choices["learning_rate"].evidence if "learning_rate" in choices else None,
        "lesson": found.lesson and found.lesson.model_dump(mode="json", by_alias=True),
        "cost": cost or {"runs": own.get("num_train_epochs", 1) / common["num_train_epochs"]}
        if "num_train_epochs" in own
        else cost or {"runs": 1.0},
        "wall_s": found.result.time_s,
    }
    batch = config.train.per_device_eval_batch_size
    return facts | measured(pair, subject, problem, batch)
