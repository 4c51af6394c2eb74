"""The training loop: step, evaluate, keep, until the steps are done or nothing gets better."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from datasets import Dataset
from torch import nn
from torch.nn import Parameter

from lorafit.config import Config
from lorafit.engine.base import Engine
from lorafit.errors import DataError, DivergenceError
from lorafit.hints import resume_command
from lorafit.machine.memory import peak_memory_bytes, reset_peak
from lorafit.run import Run
from lorafit.tasks.base import Task
from lorafit.training.gradients import advice
from lorafit.training.interrupt import Interruptible
from lorafit.training.keeper import Keeper
from lorafit.training.optim import make_optimizer
from lorafit.training.parallel import Workers
from lorafit.training.progress import Progress, QuietProgress, make_progress
from lorafit.training.reporter import Reporter
from lorafit.training.schedule import make_factor, make_schedule
from lorafit.training.state import TrainState
from lorafit.training.stepper import Stepper
from lorafit.training.steps import StepPlan
from lorafit.training.trackers import Trackers, check_trackers
from lorafit.training.validate import evaluate


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
    """

    steps: int
    best_step: int
    best_eval_loss: float
    train_loss: float
    tokens_per_s: float
    peak_memory_bytes: int
    time_s: float
    stopped: str


def fit(
    engine: Engine,
    model: nn.Module,
    task: Task,
    train: Dataset,
    validation: Dataset,
    config: Config,
    *,
    run: Run | None = None,
    trainable: Mapping[str, Parameter],
    resume: bool = False,
    progress: Progress | None = None,
) -> FitResult:
    """Trains the trainable parameters and leaves the best (or last) weights in the model.

    Args:
        engine: Computes the batches.
        model: The adapted model; its modules keep their mode (train or eval).
        task: Defines the metrics.
        train: Encoded training examples.
        validation: Encoded validation examples; they choose the best step.
        config: ``config.train`` and ``config.seed`` are used.
        run: Where metrics and checkpoints go; ``None``: nothing is written.
        trainable: What to train, by name.
        resume: Go on from the run's last checkpoint: exact when everything else is the same.
        progress: What to report to; ``None``: `make_progress`.

    Raises:
        ConfigError: A tracker's package is missing.
        DataError: A split is empty.
        DivergenceError: A loss or gradient is not finite; the last checkpoint is good.
        TrainingError: There is nothing to train, or a parameter gets no gradient.
        RunError: The run folder cannot be written, is in use, or does not fit.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, once a checkpoint is written; the message
            says how to go on.
    """
    settings, workers = config.train, Workers()
    check_trackers(settings.report_to)
    if len(validation) == 0:
        raise DataError("there are no validation examples")
    plan = StepPlan(train, config, workers.rank, workers.size)
    optimizer = make_optimizer(trainable, settings)
    keeper = Keeper(run, trainable, optimizer, plan.expects, workers)
    main_run = run if workers.main else None
    show = (progress or make_progress()) if workers.main else QuietProgress()

    with contextlib.ExitStack() as stack:
        stack.enter_context(main_run.lock() if main_run else contextlib.nullcontext())
        state = keeper.start(resume, config.seed)
        stack.enter_context(main_run.working("trained") if main_run else contextlib.nullcontext())
        schedule = make_schedule(optimizer, make_factor(settings, plan.total_steps), state.step)
        trackers = stack.enter_context(Trackers(config, run, enabled=workers.main))
        stepper = Stepper(
            *(engine, train, trainable, optimizer, schedule, settings, workers),
            fresh=state.step == 0,
        )
        reporter = Reporter(state, plan, main_run, trackers, show)
        stack.enter_context(_train_mode(model))
        signals = stack.enter_context(Interruptible(enabled=run is not None))
        stack.enter_context(_shown(show, state.step, plan.total_steps))
        reset_peak()

        stopped = _stopped(state, plan, settings.early_stopping_patience)
        steps = plan.steps(done=state.step)
        while not stopped:
            step = next(steps)
            with _diverging(keeper):
                outcome = stepper.take(step)
            reporter.step(step, outcome)
            metrics, best = {}, False
            if plan.evaluates(step.number):
                metrics = evaluate(engine, task, validation, settings.per_device_eval_batch_size)
                with _diverging(keeper):
                    _check_finite(metrics["eval_loss"], step.number, settings.learning_rate)
                best = state.judge(metrics["eval_loss"])
            reporter.line(step, outcome, metrics, best)
            interrupted = workers.any(signals.requested)
            if best or interrupted or plan.saves(step.number):
                keeper.save(state)
            stopped = _stopped(state, plan, settings.early_stopping_patience)
            if interrupted and not stopped:
                raise KeyboardInterrupt(_how_to_resume(state.step, plan.total_steps, run))
        keeper.save(state)
        if settings.load_best_model_at_end:
            keeper.restore_best(state)
    return _result(state, stopped)


def _result(state: TrainState, stopped: str) -> FitResult:
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
    )


def _stopped(state: TrainState, plan: StepPlan, patience: int | None) -> str:
    """Why training is over, or ``""``; a function of the state, so that resuming agrees."""
    if patience is not None and state.evals_since_best >= patience:
        return f"early: {patience} evaluations without a lower validation loss"
    return "all steps are done" if state.step >= plan.total_steps else ""


def _how_to_resume(step: int, total_steps: int, run: Run | None) -> str:
    assert run is not None  # without a run, signals act at once
    again = resume_command(run.path)
    return f"stopped after step {step} of {total_steps}. Go on with: {again}"


def _check_finite(eval_loss: float, step: int, peak: float) -> None:
    if not math.isfinite(eval_loss):
        raise DivergenceError(
            f"the validation loss is {eval_loss} after step {step}. {advice(peak)}"
        )


@contextlib.contextmanager
def _diverging(keeper: Keeper) -> Iterator[None]:
    """Adds to a divergence where the last good weights are."""
    try:
        yield
    except DivergenceError as error:
        raise DivergenceError(f"{error}.{keeper.hint}") from None


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
