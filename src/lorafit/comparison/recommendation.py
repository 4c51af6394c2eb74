"""Which method to take: of those that learned something the smallest that is not worse.

A method that is not better than a constant answer or, where the base model does the task as it is,
than the base model (`lorafit.comparison.yardsticks`), has learned nothing; it is not ranked,
however few parameters it trains. And *cannot tell* is no recommendation: few examples make every
interval wide, and the worst method indistinguishable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorafit.comparison.request import Request
from lorafit.evaluation.score import Scores
from lorafit.evaluation.seeds import Measure, difference, verdict
from lorafit.evidence import Arm
from lorafit.evidence.comparison import Recommendation
from lorafit.tasks.base import Task
from lorafit.training.ending import longer


def _measure(request: Request, task: Task) -> Measure:
    """The headline metric."""
    return Measure(task, task.metric, request.settings.run.confidence, request.settings.seed)


def recommend(
    arms: Mapping[str, Arm],
    runs: Mapping[str, Sequence[Scores]],
    request: Request,
    task: Task,
    margin: float,
) -> Recommendation:
    """One method, and one sentence that says why; or none, and what to do.

    Of the methods that are not worse than the best by more than the margin, the one with the
    fewest trainable parameters; the yardsticks only if nothing else is that good.
    """
    sign = 1.0 if task.greater_is_better else -1.0
    metric = task.metric.replace("_", " ")
    ranked = [name for name, arm in arms.items() if arm.learned]
    n = len(next(iter(runs.values()))[0])
    if not ranked:
        return Recommendation(method=None, best=None, sentence=_nothing(arms, request, metric, n))
    # Of equally good ones the smallest: to what another trains beside it nothing can be owed.
    best = max(
        ranked,
        key=lambda name: (sign * arms[name].metric.value, -arms[name].trainable_parameters),
    )
    headline = _measure(request, task)
    gaps, said = {best: 0.0}, {best: "not worse"}
    for name in ranked:
        if name != best:
            found = difference(runs[name], runs[best], headline)
            gaps[name] = found.value
            said[name] = verdict(found, margin, task.greater_is_better)
    good = [name for name in ranked if said[name] in ("better", "not worse")]
    real = [name for name in good if arms[name].family != "yardstick"] or good
    chosen = min(real, key=lambda name: arms[name].trainable_parameters)
    arm = arms[chosen]
    sentence = f"Take {chosen}: {metric} {arm.metric.value:.3f}"
    if chosen == best:
        sentence += ", the best of all"
    else:
        sentence += f", {gaps[chosen]:+.3f} beside the best ({best}; {said[chosen]})"
    sentence += (
        f", training {arm.trainable_parameters:,} parameters ({100 * arm.share:.3g} % of the model)"
    )
    others = [name for name in good if name not in (chosen, best)]
    if others:
        sentence += f". As good within {margin:.2g}: {', '.join(others)}"
    untold = [name for name in ranked if said[name] == "cannot tell"]
    if untold:
        sentence += (
            f". On {n:,} examples these may be as good as {best} or worse: {', '.join(untold)}"
        )
    lost = [name for name, arm in arms.items() if not arm.learned]
    if lost:
        sentence += (
            f". Learned nothing, and not ranked: {', '.join(lost)}; train longer "
            f"({_longer(request)})"
        )
    return Recommendation(method=chosen, best=best, sentence=f"{sentence}.")


def _nothing(arms: Mapping[str, Arm], request: Request, metric: str, n: int) -> str:
    """What is said where no method learned anything."""
    arm = next(iter(arms.values()))
    assert arm.beside_constant is not None
    simple = arm.metric.value - arm.beside_constant.value
    return (
        f"No method is ranked: on {n:,} examples none is better than {arm.yardstick} "
        f"({metric} {simple:.3f}) after {request.steps:,} steps. Train longer: "
        f"{_longer(request)}."
    )


def _longer(request: Request) -> str:
    """The flag that makes runs longer, with a number."""
    train = request.settings.train
    batch = train.per_device_train_batch_size * train.gradient_accumulation_steps
    known = request.data.get("train")
    rows = 0 if known is None else known["rows"]
    if train.max_steps is not None or not rows:
        return f"--max-steps {longer(request.steps):g}"
    return f"--num-train-epochs {longer(request.steps * batch / rows):g}"
