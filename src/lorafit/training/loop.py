"""`fit`: a whole training, with a run folder that it can be resumed from."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from lorafit.config import Config
from lorafit.errors import DataError
from lorafit.evidence import Course
from lorafit.machine.memory import peak_memory_bytes, reset_peak
from lorafit.run import RunWriter
from lorafit.run.commands import resume_command
from lorafit.training import guest
from lorafit.training.diverging import Watch, guessing
from lorafit.training.interrupt import Interruptible
from lorafit.training.keeper import Keeper
from lorafit.training.learner import Learner
from lorafit.training.optim import make_optimizer
from lorafit.training.parallel import Workers
from lorafit.training.progress import Progress, QuietProgress
from lorafit.training.reporter import Reporter
from lorafit.training.schedule import make_factor, make_schedule
from lorafit.training.state import TrainState
from lorafit.training.stepper import Stepper
from lorafit.training.steps import StepPlan
from lorafit.training.taken import Selection, steps_taken, stopped
from lorafit.training.trackers import Trackers, check_trackers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """What training came to.

    Attributes:
        steps: Optimizer steps taken, over all sessions of the run.
        best_step: Step of the lowest validation loss.
        best_eval_loss: That loss, nats per example.
        train_loss: Mean training loss over all steps, nats per unit.
        tokens_per_s: Real tokens per second of training, evaluations not counted.
        peak_memory_bytes: Of the GPU, or without one of the process.
        time_s: Wall-clock time, evaluations and checkpoints included.
        stopped: Why training ended, in a few words.
        course: How long it was, and whether that was enough.
    """

    steps: int
    best_step: int
    best_eval_loss: float
    train_loss: float
    tokens_per_s: float
    peak_memory_bytes: int
    time_s: float
    stopped: str
    course: Course


def fit(
    learner: Learner,
    config: Config,
    run: RunWriter | None = None,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> FitResult:
    """Trains the trainable parameters and leaves the best (or last) weights in the model.

    Args:
        learner: The model, what of it trains, the task, and the examples.
        config: ``config.train`` and ``config.seed`` are used.
        run: Where metrics and checkpoints go; ``None``: nothing is written.
        resume: Go on from the run's last checkpoint: exact when everything else is the same.
        progress: What to report to; ``None``: nothing is shown.

    Raises:
        ConfigError: A tracker's package is missing.
        DataError: A split is empty.
        DivergenceError: A loss or gradient is not finite; the last checkpoint is good.
        TrainingError: There is nothing to train, a parameter gets no gradient, or another thread
            trains.
        RunError: The run folder cannot be written, is in use, or does not fit.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, once a checkpoint is written; the message
            says how to go on.
    """
    settings, workers, trainable = config.train, Workers(), learner.trainable
    check_trackers(settings.report_to)
    if len(learner.validation) == 0:
        raise DataError("there are no validation examples")
    plan = StepPlan(learner.train, config, workers.rank, workers.size)
    optimizer = make_optimizer(trainable, settings)
    keeper = Keeper(run, trainable, optimizer, plan.expects, workers)
    main_run = run if workers.main else None
    show = QuietProgress() if progress is None or not workers.main else progress

    with contextlib.ExitStack() as stack:
        stack.enter_context(guest.steps())
        stack.enter_context(main_run.lock() if main_run else contextlib.nullcontext())
        state = keeper.start(resume, config.seed)
        stack.enter_context(main_run.working("trained") if main_run else contextlib.nullcontext())
        schedule = make_schedule(optimizer, make_factor(settings, plan.total_steps), state.step)
        trackers = stack.enter_context(Trackers(config, run, enabled=workers.main))
        stepper = Stepper(learner, optimizer, schedule, settings, fresh=state.step == 0)
        stepper.parts = max(state.parts, learner.parts)
        reporter = Reporter(state, plan, main_run, trackers, show)
        stack.enter_context(_train_mode(learner.model))
        signals = stack.enter_context(Interruptible(enabled=run is not None))
        stack.enter_context(_shown(show, state.step, plan.total_steps))
        reset_peak()
        watch = Watch(guessing(learner.task, learner.train), plan.total_steps, settings)

        for taken in steps_taken(stepper, plan, state, Selection(learner, keeper, settings)):
            reporter.report(taken)
            if diverges := watch.see(taken.step, taken.outcome):
                log.warning("%s", diverges)
            if workers.any(signals.requested):
                keeper.save(state)
                raise signals.stopped(_how_to_resume(state.step, plan.total_steps, run))
        if workers.any(signals.requested):  # while the last state was kept
            raise signals.stopped(_how_to_resume(state.step, plan.total_steps, run))
    why = stopped(state, plan.total_steps, settings.early_stopping_patience)
    return _result(state, why, plan.course(state.evaluated, state.step))


def _result(state: TrainState, stopped: str, course: Course) -> FitResult:
    assert state.best_step is not None  # the last step is always evaluated
    assert state.best_eval_loss is not None
    return FitResult(
        steps=state.step,
        best_step=state.best_step,
        best_eval_loss=state.best_eval_loss,
        train_loss=state.total.loss,
        tokens_per_s=state.total.tokens_per_s,
        peak_memory_bytes=peak_memory_bytes(),
        time_s=state.time_s,
        stopped=stopped,
        course=course,
    )


def _how_to_resume(step: int, total_steps: int, run: RunWriter | None) -> str:
    assert run is not None  # without a run, signals act at once
    again = resume_command(run.path)
    return f"stopped after step {step} of {total_steps}. Go on with: {again}"


@contextlib.contextmanager
def _train_mode(model: nn.Module) -> Iterator[None]:
    """Training mode inside; afterwards every module has the mode it had."""
    before = {module: module.training for module in model.modules()}
    model.train()
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


@contextlib.contextmanager
def _shown(progress: Progress, step: int, total_steps: int) -> Iterator[None]:
    progress.start(step, total_steps)
    try:
        yield
    finally:
        progress.stop()
