"""From a prepared subject to a trained one, everything open chosen by a strategy."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorafit.config import AdapterConfig, Config
from lorafit.errors import ConfigError
from lorafit.machine.memory import peak_memory_bytes, reset_peak
from lorafit.pipeline import Problem, Subject
from lorafit.planning import estimate
from lorafit.run import Choice, Run
from lorafit.settings import AUTO, DEFAULT
from lorafit.training.loop import FitResult
from lorafit.training.parallel import Workers
from lorafit.training.progress import Progress
from lorafit.training.steps import StepPlan
from lorafit.tune import short, strategies
from lorafit.tune.base import CHOOSABLE
from lorafit.tune.bench import Bench
from lorafit.tune.journal import FOLDER

log = logging.getLogger(__name__)

MEASURED = "measured"
"""Origin of a value that was chosen here."""

FEWEST_STEPS = 30
"""Below this nothing is measured: every difference would be noise."""

_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|min|h)", re.IGNORECASE)
_SECONDS = {"s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Searched:
    """A finished search; the subject's model carries the trained adapter.

    Attributes:
        result: Of the training, as of `lorafit.training.loop.fit`.
        config: With the chosen values.
        origins: Where the values came from.
        choices: What was measured.
        extra: More for ``choices.json``: ``cost`` and what the strategy adds.
    """

    result: FitResult
    config: Config
    origins: dict[str, str]
    choices: dict[str, Choice]
    extra: dict[str, Any]


def open_settings(config: Config, origins: Mapping[str, str]) -> frozenset[str]:
    """The settings to be measured: those that nobody set and the method has."""
    own = config.adapter.settings
    found = {
        key
        for key in CHOOSABLE
        if origins.get(key, DEFAULT).startswith((DEFAULT, AUTO))
        and (key.startswith("train.") or key.removeprefix("adapter.") in own)
    }
    if "r" not in own:  # the other two mean something else to a method without a rank
        return frozenset(found & {"train.learning_rate"})
    init = own.get("init_lora_weights", True)
    fixed_rank = (
        own.get("rank_pattern")
        or own.get("alpha_pattern")
        # An adapter that starts from a product of its rank cannot grow.
        or init is False
        or (isinstance(init, str) and init != "gaussian")
    )
    return frozenset(found - {"adapter.r"} if fixed_rank else found)


@dataclass(frozen=True)
class Wanted:
    """What a run is to measure.

    Attributes:
        names: Keys of the settings.
        budget: Most that choosing and training may cost, in plain runs.
    """

    names: frozenset[str]
    budget: float


def wanted(
    problem: Problem, subject: Subject, config: Config, origins: Mapping[str, str]
) -> Wanted | None:
    """What is to be measured in this run; ``None``, with the reason said: nothing.

    Raises:
        ConfigError: There is no such strategy, or the budget is no budget.
    """
    if config.tune.strategy == "none":
        return None
    strategies[config.tune.strategy]
    budget = budget_runs(config, problem, subject)
    names = open_settings(config, origins)
    steps = StepPlan(subject.encoded["train"], config).total_steps
    unset = origins.get("tune.budget", DEFAULT) == DEFAULT
    if unset and config.tune.strategy == "rise" and steps < short.FEWEST_STEPS:
        budget = max(budget, short.RUNS)
    why = ""
    if steps < FEWEST_STEPS:
        why = f"{steps} steps are too few to measure anything"
    elif Workers().size > 1:
        why = "several processes train together, which the search does not do yet"
    if not names:
        return None
    if why:
        fields = ", ".join(sorted(key.rpartition(".")[2] for key in names))
        log.info("%s: %s: the defaults are taken", fields, why)
        return None
    return Wanted(names, budget)


def budget_runs(config: Config, problem: Problem, subject: Subject) -> float:
    """The budget in plain runs.

    Raises:
        ConfigError: It is no number and no time, or less than one run.
    """
    budget = config.tune.budget
    text = str(budget).strip()
    try:
        runs = float(text)
    except ValueError:
        time = _TIME.fullmatch(text)
        if time is None:
            raise ConfigError(
                f'tune.budget is "{budget}"; it should be a number of runs such as 1.5, or a time '
                "such as 20min or 2h."
            ) from None
        seconds = float(time[1]) * _SECONDS[time[2].lower()]
        plain = estimate(problem, subject, config, {}).time_s
        runs = seconds / max(plain, 1e-9)
        if runs < 1:
            raise ConfigError(
                f"tune.budget is {text}, but one run of these epochs takes about "
                f"{plain / 60:.1f} min. Raise the budget, lower --num-train-epochs, or choose "
                "nothing with --strategy none."
            ) from None
        return runs
    if not runs >= 1:
        raise ConfigError(
            f"tune.budget is {text} runs; it takes at least 1. "
            "To choose nothing, use --strategy none."
        )
    return runs


def search(
    problem: Problem,
    subject: Subject,
    config: Config,
    origins: Mapping[str, str],
    wish: Wanted,
    run: Run | None,
    progress: Progress,
) -> Searched:
    """Chooses what is open and trains.

    Args:
        problem: The task and its data.
        subject: The model with a fresh adapter.
        config: The settings; what is open has its starting value.
        origins: Of the settings.
        wish: What is open, from `wanted`.
        run: Where everything is noted.
        progress: What to show.

    Killed and called again with the same run it goes on where it was, and comes to the
    same result.

    Raises:
        ConfigError: The strategy or the budget is wrong.
        TrainingError: Nothing that was tried trains.
        KeyboardInterrupt: After Ctrl-C; the message says how to go on.
    """
    strategy = strategies[config.tune.strategy]()
    reset_peak()
    if run is not None:
        run.set_status("training")
    bench = Bench(problem, subject, config, wish.names, wish.budget, run, progress)
    progress.start(0, bench.total_steps)
    try:
        with bench.interruptible():
            found = strategy.search(bench)
    finally:
        progress.stop()
    bench.tunable.load(found.state)
    if run is not None:
        run.set_status("trained")
    ledger = bench.ledger
    result = FitResult(
        steps=bench.total_steps,
        best_step=found.best_step,
        best_eval_loss=found.eval_loss,
        train_loss=found.train_loss,
        tokens_per_s=ledger.total.trained / max(ledger.total.time_s, 1e-9),
        peak_memory_bytes=peak_memory_bytes(),
        time_s=ledger.total.time_s,
        stopped=found.stopped,
    )
    values = {key: found.values[key] for key in wish.names if key in found.values}
    measured = dict.fromkeys(values, MEASURED)
    adapter = dict(config.adapter.settings)
    train = config.train
    for key, value in values.items():
        section, _, name = key.partition(".")
        if section == "train":
            train = train.model_copy(update={name: value})
        else:
            adapter[name] = sorted(value) if isinstance(value, set) else value
    chosen = config.model_copy(
        update={
            "train": train,
            "adapter": AdapterConfig(method=config.adapter.method, **adapter),
        }
    )
    extra = {"cost": ledger.to_dict() | {"budget": bench.budget}, **found.extra}
    return Searched(result, chosen, dict(origins) | measured, found.choices, extra)


def clean(run: Run) -> None:
    """Removes what a search keeps to go on after a kill; call it once the run is done."""
    shutil.rmtree(run.path / FOLDER, ignore_errors=True)
