"""The training loop: step, evaluate, keep, until the steps are done or nothing gets better.

It is a generator, the only loop over training steps there is. It yields what each step came
to, and whoever drives it reacts: `lorafit.training.loop.fit` writes metrics and looks for
Ctrl-C, the bench of a search fills its journal.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lorafit.config import TrainConfig
from lorafit.errors import DivergenceError
from lorafit.training.gradients import advice
from lorafit.training.guest import let_others
from lorafit.training.keeper import Keeper
from lorafit.training.learner import Learner
from lorafit.training.state import TrainState
from lorafit.training.stepper import Outcome, Stepper
from lorafit.training.steps import Step, StepPlan
from lorafit.training.validate import evaluate


@dataclass(frozen=True)
class Taken:
    """What one step came to.

    Attributes:
        step: The step.
        outcome: Its loss, gradient and time.
        metrics: Of the evaluation after it; empty where none was due.
        best: Whether that had the lowest validation loss so far.
        stopped: Why training is over, in a few words; ``""``: it goes on.
    """

    step: Step
    outcome: Outcome
    metrics: Mapping[str, float] = field(default_factory=dict)
    best: bool = False
    stopped: str = ""


@dataclass(frozen=True, eq=False)
class Selection:
    """How the best step is found and kept.

    Attributes:
        learner: Is evaluated on its validation examples.
        keeper: Keeps the best and the last state.
        settings: Batch size of the evaluation, patience, whether the best state is the result.
    """

    learner: Learner
    keeper: Keeper
    settings: TrainConfig

    def evaluate(self, step: int) -> dict[str, float]:
        """The metrics after a step.

        Raises:
            DivergenceError: The loss is not finite.
        """
        learner = self.learner
        size = self.settings.per_device_eval_batch_size
        metrics = evaluate(learner.engine, learner.task, learner.validation, size)
        if not math.isfinite(metrics["eval_loss"]):
            raise DivergenceError(
                f"the validation loss is {metrics['eval_loss']} after step {step}. "
                f"{advice(self.settings.learning_rate)}"
            )
        return metrics

    def keeps(self, best: bool, due: bool, state: TrainState) -> None:
        """Keeps the state after a step if it is the best or a checkpoint is due."""
        if best or due:
            self.keeper.save(state)

    def finish(self, state: TrainState) -> None:
        """Keeps the last state, and brings the best one back where that is asked for."""
        self.keeper.save(state)
        if self.settings.load_best_model_at_end:
            self.keeper.restore_best(state)


def steps_taken(
    stepper: Stepper,
    plan: StepPlan,
    state: TrainState,
    selection: Selection | None = None,
    until: int | None = None,
) -> Iterator[Taken]:
    """Trains, and yields each step once it is taken and, where that is due, evaluated.

    A state is kept after the one who drives has reacted, so that what they count in ``state``
    is part of it; it is theirs to keep it if they leave. Run to the end, the weights are the
    best ones (or the last).

    Args:
        stepper: Takes a step.
        plan: Which steps there are, and after which to evaluate and save.
        state: Where training stands; steps and losses are counted in it.
        selection: How the best step is found and kept; ``None``: nothing is evaluated or kept.
        until: Step to end after; ``None``: the last of the plan.

    Raises:
        DivergenceError: A loss or gradient is not finite; the last state that was kept is good.
        TrainingError: A parameter gets no gradient.
        RunError: A state cannot be written.
    """
    last = plan.total_steps if until is None else until
    patience = None if selection is None else selection.settings.early_stopping_patience
    steps = plan.steps(done=state.step)
    while not stopped(state, last, patience):
        let_others()
        step = next(steps)
        metrics, best = {}, False
        with _diverging(selection):
            outcome = stepper.take(step)
            state.count(step.number, outcome)
            state.parts = stepper.parts
            if selection is not None and plan.evaluates(step.number):
                metrics = selection.evaluate(step.number)
                best = state.judge(metrics["eval_loss"])
        yield Taken(step, outcome, metrics, best, stopped(state, last, patience))
        if selection is not None:
            selection.keeps(best, plan.saves(step.number), state)
    if selection is not None:
        selection.finish(state)


def stopped(state: TrainState, last: int, patience: int | None) -> str:
    """Why training is over, or ``""``; a function of the state, so that resuming agrees."""
    if patience is not None and state.evals_since_best >= patience:
        return f"early: {patience} evaluations without a lower validation loss"
    return "all steps are done" if state.step >= last else ""


@contextlib.contextmanager
def _diverging(selection: Selection | None) -> Iterator[None]:
    """Adds to a divergence where the last good weights are."""
    try:
        yield
    except DivergenceError as error:
        hint = "" if selection is None else f".{selection.keeper.hint}"
        raise DivergenceError(f"{error}{hint}") from None
