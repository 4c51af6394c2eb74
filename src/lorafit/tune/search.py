"""From a prepared subject to a trained one, everything open chosen by a strategy."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lorafit.data.batches import lengths
from lorafit.errors import ConfigError, RunError
from lorafit.machine.memory import peak_memory_bytes, reset_peak
from lorafit.pipeline.defaults import record_choices
from lorafit.pipeline.job import Job
from lorafit.pipeline.planning import estimate
from lorafit.run import Choice
from lorafit.settings import Settings
from lorafit.training import head
from lorafit.training.checkpoint import latest_step
from lorafit.training.learner import Learner
from lorafit.training.loop import FitResult, fit
from lorafit.training.parallel import Workers
from lorafit.training.progress import Progress
from lorafit.training.steps import StepPlan
from lorafit.tune import strategies
from lorafit.tune.base import CHOOSABLE, EPOCHS, Found
from lorafit.tune.bench.bench import Bench
from lorafit.tune.bench.journal import is_noted, noted_budget
from lorafit.tune.prior import lessons
from lorafit.tune.prior.centre import ENTRY, lesson
from lorafit.tune.prior.lessons import Lesson
from lorafit.tune.rise import size

log = logging.getLogger(__name__)

HEAD_INIT = "head_init"
"""Name of the choice how a new head begins."""

FEWEST_STEPS = 30
"""Below this nothing is measured: every difference would be noise."""

_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|min|h)", re.IGNORECASE)
_SECONDS = {"s": 1.0, "sec": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Searched:
    """A finished search; the subject's model carries the trained adapter.

    Attributes:
        result: Of the training, as of `lorafit.training.loop.fit`.
        settings: With the chosen values.
        choices: What was measured.
        extra: More for ``choices.json``: ``cost`` and what the strategy adds.
        lesson: For the searches to come; ``None``: there is no prior, or no rate was chosen.
    """

    result: FitResult
    settings: Settings
    choices: Mapping[str, Choice] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)
    lesson: Lesson | None = None


def open_settings(settings: Settings) -> frozenset[str]:
    """The settings to be measured: those that nobody set and the method has."""
    own = settings.config.adapter.settings
    found = {
        key
        for key in CHOOSABLE
        if settings.is_open(key)
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
        prior: What earlier searches found; ``None``: it is not asked for.
    """

    names: frozenset[str]
    budget: float
    prior: Sequence[Lesson] | None = None


def wanted(job: Job) -> Wanted | None:
    """What is to be measured in this run; ``None``, with the reason said: nothing.

    A run that goes on keeps the budget that its search began with.

    Raises:
        ConfigError: There is no such strategy, the budget is no budget, or the prior's file is
            damaged.
    """
    strategy = job.config.tune.strategy
    if job.config.tune.prior is not None and strategy != "rise":
        raise ConfigError(
            f"tune.prior is for the strategy rise, and tune.strategy is {strategy}. "
            "Leave one of them out."
        )
    if strategy == "none":
        return None
    strategies[strategy]
    noted = noted_budget(job.run)
    names = open_settings(job.settings)
    plan = StepPlan(job.subject.encoded["train"], job.config)
    prior = _prior(job) if "train.learning_rate" in names else None
    if plan.open:
        names |= {EPOCHS}
    short = strategy == "rise" and (plan.open or plan.total_steps < size.FEWEST_STEPS)
    if noted is not None:
        budget = noted
    elif short and not job.settings.is_set("tune.budget"):
        budget = _sized(job, plan, "train.learning_rate" in names, None)
    else:
        budget = budget_runs(job, _sized(job, plan, False, 0.0) if short and plan.open else 1.0)
    why = ""
    if plan.total_steps < FEWEST_STEPS:
        why = f"{plan.total_steps} steps are too few to measure anything"
    elif Workers().size > 1:
        why = "several processes train together, which the search does not do yet"
    if not names:
        return None
    if why:
        fields = ", ".join(sorted(key.rpartition(".")[2] for key in names))
        log.info("%s: %s: the defaults are taken", fields, why)
        return None
    return Wanted(names, budget, prior)


def _prior(job: Job) -> Sequence[Lesson] | None:
    """What earlier searches found, where that is asked for.

    A search that has noted where it begins is not told: the file may be another one by now.

    Raises:
        ConfigError: The file is damaged.
    """
    file = job.config.tune.prior
    if file is None:
        return None
    return () if is_noted(job.run, ENTRY) else lessons.read(Path(file).expanduser())


def _sized(job: Job, plan: StepPlan, open_rate: bool, budget: float | None) -> float:
    """What a short search costs at most, in plain runs."""
    train, validation = (lengths(job.subject.encoded[name]) for name in ("train", "validation"))
    learner, new = job.subject.learner(job.task), job.subject.loaded.new_modules
    read = head.tokens_read(learner, job.config, new)
    tokens = size.Tokens.of(plan, train, validation, read)
    return size.sized(plan, tokens, open_rate, budget).runs


def budget_runs(job: Job, least: float = 1.0) -> float:
    """The budget in plain runs.

    Args:
        job: Has the setting.
        least: The smallest a time may come to.

    Raises:
        ConfigError: It is no number and no time, or less than one run (or that least).
    """
    budget = job.config.tune.budget
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
        with torch.random.fork_rng():  # what follows must not depend on whether this was run
            plain = estimate(job).time_s
        runs = seconds / max(plain, 1e-9)
        if runs < least:
            raise ConfigError(
                f"tune.budget is {text}, but one run of these epochs takes about "
                f"{plain * least / 60:.1f} min. Raise the budget, lower --num-train-epochs, or "
                "choose nothing with --strategy none."
            ) from None
        return runs
    if not runs >= 1:
        raise ConfigError(
            f"tune.budget is {text} runs; it takes at least 1. "
            "To choose nothing, use --strategy none."
        )
    return runs


def trained(job: Job, wish: Wanted | None, progress: Progress, *, resume: bool = False) -> Searched:
    """Trains, and before that or meanwhile chooses what is open.

    Args:
        job: With a fresh adapter.
        wish: What is open, from `wanted`; ``None``: nothing, and the run is a plain one.
        progress: What to show.
        resume: Whether a plain run goes on from its last checkpoint. (A search does so anyway.)

    Raises:
        LorafitError: As `search` and `lorafit.training.loop.fit`.
    """
    if wish is not None:
        return search(job, wish, progress)
    learner = job.subject.learner(job.task)
    begun = _head(job, learner, resume)
    result = fit(learner, job.config, job.run, resume=resume, progress=progress)
    return Searched(result, job.settings, begun)


def _head(job: Job, learner: Learner, resume: bool) -> dict[str, Choice]:
    """A new head begins as it is to; how, as a choice. A checkpoint has its weights already."""
    new = job.subject.loaded.new_modules
    if not head.wanted(learner, job.config, new):
        return {}
    if resume and job.run is not None and latest_step(job.run.checkpoints) is not None:
        return {k: v for k, v in job.run.choices.items() if k == HEAD_INIT}
    begun = {HEAD_INIT: head.begin(learner, job.config, new).choice}
    log.info("head: %s", begun[HEAD_INIT].reason)
    if job.run is not None:
        record_choices(job, begun)
    return begun


def search(job: Job, wish: Wanted, progress: Progress) -> Searched:
    """Chooses what is open and trains.

    Args:
        job: With a fresh adapter; in its settings what is open has its starting value, and in
            its run everything is noted.
        wish: What is open, from `wanted`.
        progress: What to show.

    Killed and called again with the same run it goes on where it was, and comes to the
    same result.

    Raises:
        ConfigError: The strategy or the budget is wrong.
        TrainingError: Nothing that was tried trains.
        KeyboardInterrupt: After Ctrl-C; the message says how to go on.
    """
    strategy = strategies[job.config.tune.strategy]()
    reset_peak()
    with nullcontext() if job.run is None else job.run.working("trained"):
        bench = Bench(job, wish.names, wish.budget, progress, wish.prior)
        progress.start(0, bench.total_steps)
        try:
            with bench.interruptible():
                begun = bench.begin_head()
                found = strategy.search(bench)
        finally:
            progress.stop()
        bench.tunable.load(found.state)
    values = {key: found.values[key] for key in wish.names if key in found.values}
    cost = bench.ledger.to_dict() | {"budget": bench.budget}
    return Searched(
        _result(bench, found),
        job.settings.with_measured(values),
        found.choices | ({} if begun is None else {HEAD_INIT: begun}),
        {"cost": cost, **found.extra},
        lesson(bench, found),
    )


def keep_lesson(job: Job, lesson: Lesson | None) -> None:
    """Adds the line of a finished run to the user's prior; a failure is said, no more.

    Args:
        job: Whose run is measured and delivered.
        lesson: What its search says; ``None``: nothing.
    """
    file = job.config.tune.prior
    if lesson is None or file is None:
        return
    scores, loss = job.folder.evaluation, job.task.loss_name
    if loss in scores.base and loss in scores.tuned:
        gain = scores.base[loss].value - scores.tuned[loss].value
        lesson = lesson.model_copy(update={"gain": gain if math.isfinite(gain) else None})
    try:
        added = lessons.add(Path(file).expanduser(), lesson)
    except RunError as error:
        log.warning("%s The run itself is complete.", error)
        return
    if added:
        log.info('added the line of this run to "%s"', file)


def _result(bench: Bench, found: Found) -> FitResult:
    """What the training came to that is delivered, the search's own work included."""
    spent = bench.ledger.total
    course = found.course or bench.plan.course((), bench.total_steps)
    return FitResult(
        steps=course.steps,
        best_step=found.best_step,
        best_eval_loss=found.eval_loss,
        train_loss=found.train_loss,
        tokens_per_s=spent.trained / max(spent.time_s, 1e-9),
        peak_memory_bytes=peak_memory_bytes(),
        time_s=spent.time_s,
        stopped=found.stopped,
        course=course,
    )
