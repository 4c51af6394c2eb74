"""``compare.json``: what the arms found, set beside one another.

Which methods stand on a front: no other is at least as good in both and better in one, of
quality and one cost (parameters, time, memory, forgetting).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lorafit.comparison import records, yardsticks
from lorafit.comparison.measured import Measured
from lorafit.comparison.recommendation import recommend
from lorafit.comparison.request import Request, arm_folder
from lorafit.comparison.search import at_edge
from lorafit.errors import TrainingError
from lorafit.evaluation.score import Scores
from lorafit.evaluation.seeds import Measure, average, difference, verdict
from lorafit.evaluation.spectrum import summarise
from lorafit.evidence import Arm, ComparisonRecord, comparison_rows, comparison_table, markup
from lorafit.evidence.comparison import Redundancy, Trial
from lorafit.evidence.costs import COSTS
from lorafit.evidence.json import Json
from lorafit.machine.describe import describe
from lorafit.methods import methods
from lorafit.run import atomic
from lorafit.settings.spoken import in_python
from lorafit.tasks import stored
from lorafit.tasks.base import Task
from lorafit.units import shortened

if TYPE_CHECKING:
    import pandas as pd

MARGIN = 0.01
"""What does not matter: one point of a metric that is 1 at most, else 1 % of the best method's."""


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        path: Its folder.
        record: What was found: ``record.arms["lora"].metric.low``.
    """

    path: Path
    record: ComparisonRecord

    def __repr__(self) -> str:
        found = self.record
        names = shortened(", ".join(found.arms), 60)
        return f"Comparison({shortened(str(self.path), 80)!r}, {found.metric} of {names})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the methods beside one another, and the recommendation."""
        header, families = comparison_rows.quality(self.record)
        rows = [row for family in families.values() for row in family]
        return markup.table("Methods compared", rows, header, self.recommendation)

    @functools.cached_property
    def content(self) -> dict[str, Any]:
        """All of ``compare.json``; `record` is the same, typed."""
        return self.record.to_json()

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """What each method came to, by name; `record.arms` is the same, typed."""
        rows: dict[str, dict[str, Any]] = self.content["arms"]
        return rows

    @functools.cached_property
    def dataframe(self) -> pd.DataFrame:
        """A row a method, the best first: metric, difference, verdict, costs.

        ``dataframe.to_csv("methods.csv")`` writes it for a spreadsheet.
        """
        import pandas as pd  # slow, and only asked for here

        return pd.DataFrame(comparison_table.records(self.record)).set_index("method")

    def markdown(self) -> str:
        """The methods as a table in Markdown, the best first."""
        return comparison_table.markdown(self.record)

    def latex(self) -> str:
        """The same for LaTeX, with the rules of booktabs."""
        return comparison_table.latex(self.record)

    @property
    def recommendation(self) -> str:
        """One sentence; what it advises are keywords, in the record flags."""
        return in_python(self.record.recommendation.sentence)


def conclude(
    folder: Path, request: Request, left_out: Mapping[str, str], failed: Mapping[str, str]
) -> Comparison:
    """Writes ``compare.json``.

    Raises:
        TrainingError: No arm finished.
    """
    if len(failed) == len(request.arms):
        reasons = "\n".join(f"{method}: {why}" for method, why in failed.items())
        raise TrainingError(f"no arm finished; the same command tries again.\n{reasons}")
    record = assemble(folder, request, left_out, failed)
    record = record.model_copy(update={"environment": describe()})
    atomic.write_json(folder / ComparisonRecord.file, record.to_json())
    return Comparison(folder, record)


def assemble(
    folder: Path, request: Request, left_out: Mapping[str, str], failed: Mapping[str, str]
) -> ComparisonRecord:
    """Everything that is known of a comparison, less the machine it ran on.

    Args:
        folder: Its folder.
        request: What was compared.
        left_out: Methods that do not fit, and why.
        failed: Arms that failed, and why.
    """
    task = stored(request.task)
    done = [method for method in request.arms if method not in failed]
    runs = {method: _runs(folder, method, request) for method in done}
    # The test examples are the same for all arms, so one arm's yardsticks are everybody's.
    simple = next(filter(None, (yardsticks.read(arm_folder(folder, m)) for m in done)), [])
    arms = {method: _arm(folder, method, runs[method], request, task, simple) for method in done}
    reference = next((name for name in ("full", "lora") if name in arms), next(iter(arms)))
    margin = _margin(arms, task)
    for method, arm in arms.items():
        if method != reference:
            found = _compared(runs[method], runs[reference], request, task, margin)
            arms[method] = arm.model_copy(update=found)
    arms = _at_equal_quality(arms)
    ranked = {name: arm for name, arm in arms.items() if arm.learned}
    n = len(runs[reference][0])
    return ComparisonRecord(
        metric=task.metric,
        metric_info=task.infos[task.metric],
        greater_is_better=task.greater_is_better,
        confidence=request.settings.run.confidence,
        reference=reference,
        request=request.content,
        left_out=dict(left_out),
        failed=dict(failed),
        arms=arms,
        n=n,
        margin=margin,
        redundancy=_redundancy(folder, done),
        fronts={cost.name: front(ranked, cost.key, task) for cost in COSTS},
        recommendation=recommend(arms, runs, request, task, margin),
    )


def _runs(folder: Path, method: str, request: Request) -> list[Scores]:
    found = []
    for seed in range(request.seeds):
        arrays = records.read_arrays(arm_folder(folder, method) / f"seed-{seed}.json")
        parts = ("logits", "labels", "losses", "units")
        found.append(Scores(*(arrays[part] for part in parts if part in arrays)))
    return found


def _margin(arms: Mapping[str, Arm], task: Task) -> float:
    """What does not matter. Of the best method: one that learned nothing would make it wide."""
    values = [arm.metric.value for arm in arms.values()]
    best = max(values) if task.greater_is_better else min(values)
    return MARGIN if task.infos[task.metric].high == 1 else MARGIN * abs(best)


def _arm(  # noqa: PLR0913
    folder: Path,
    method: str,
    runs: list[Scores],
    request: Request,
    task: Task,
    simple: Sequence[yardsticks.Yardstick],
) -> Arm:
    own = arm_folder(folder, method)
    read = [records.read(own / f"seed-{seed}.json") for seed in range(request.seeds)]
    seeds = cast("list[Measured]", read)
    trials = cast("list[Trial]", records.read(own / "trials.json")["trials"])
    losses = {
        t["learning_rate"]: np.inf if t["validation_loss"] is None else t["validation_loss"]
        for t in trials
    }
    metric, loss = _measures(request, task)

    def mean(number: Callable[[Measured], float]) -> float:
        return float(np.mean([number(facts) for facts in seeds]))

    train_loss = mean(lambda facts: facts["train_loss"])
    validation_loss = mean(lambda facts: facts["validation_loss"])
    lost: list[Mapping[str, object]] = [facts["forgetting"] for facts in seeds]
    beside = yardsticks.beside(runs, simple, metric)
    details = {
        key: [value for one in lost if isinstance(value := one[key], float)]
        for key, first in lost[0].items()
        if isinstance(first, float)
    }
    return Arm(
        family=methods[method].family,
        learning_rate=seeds[0]["learning_rate"],
        rate_at_edge=at_edge(losses),
        trials=trials,
        engine=seeds[0]["engine"],
        trainable_parameters=seeds[0]["trainable_parameters"],
        share=seeds[0]["trainable_parameters"] / request.parameters,
        metric=average(runs, metric),
        loss=average(runs, loss),
        beside_constant=None if beside is None else beside.difference,
        yardstick="" if beside is None else beside.way,
        learned=beside is None or beside.learned,
        by_seed=[facts["metric"] for facts in seeds],
        time_s=mean(lambda facts: facts["time_s"]),
        cpu_s=mean(lambda facts: facts["cpu_s"]),
        search_cpu_s=float(sum(t.get("cpu_s", 0.0) for t in trials)),
        tokens_per_s=mean(lambda facts: facts["tokens_per_s"]),
        # The first training of the process: what later runs leave behind does not count.
        peak_memory_bytes=min(
            x["peak_memory_bytes"] for x in (*trials, *seeds) if "peak_memory_bytes" in x
        ),
        saved_bytes=seeds[0]["saved_bytes"],
        train_loss=train_loss,
        validation_loss=validation_loss,
        gap=validation_loss - train_loss,
        forgetting=mean(lambda facts: facts["forgetting"]["forgetting"]),
        forgetting_kind=seeds[0]["forgetting"]["kind"],
        forgetting_details={key: float(np.mean(values)) for key, values in details.items()},
        curve=_mean_curve([facts.get("curve", []) for facts in seeds]),
        path=seeds[0]["path"],
    )


def _mean_curve(curves: Sequence[list[dict[str, float]]]) -> list[dict[str, float]]:
    """The mean validation loss at the steps that all runs were evaluated at."""
    losses = [{point["step"]: point["eval_loss"] for point in curve} for curve in curves]
    common = [step for step in losses[0] if all(step in other for other in losses)]
    return [
        {"step": step, "eval_loss": float(np.mean([one[step] for one in losses]))}
        for step in common
    ]


def _compared(
    ours: list[Scores], theirs: list[Scores], request: Request, task: Task, margin: float
) -> Json:
    """The fields of an arm that set it beside the reference."""
    metric, loss = _measures(request, task)
    found = difference(ours, theirs, metric)
    return {
        "difference": found,
        "verdict": verdict(found, margin, task.greater_is_better),
        "loss_difference": difference(ours, theirs, loss),
    }


def _measures(request: Request, task: Task) -> tuple[Measure, Measure]:
    """The headline metric, and the loss."""
    surely = request.settings.run.confidence, request.settings.seed
    return Measure(task, task.metric, *surely), Measure(task, "loss", *surely)


def _at_equal_quality(arms: Mapping[str, Arm]) -> dict[str, Arm]:
    """Forgetting where methods are equally good: less update, less forgetting.

    The level is the median of the best validation losses over the parts of each update; at
    least half of the methods reach it.
    """
    best = sorted(min(point["loss"] for point in arm.path) for arm in arms.values())
    common = best[len(best) // 2]
    return {
        name: arm.model_copy(
            update={
                "forgetting_at_equal_quality": crossing(arm.path, common),
                "equal_quality_loss": common,
            }
        )
        for name, arm in arms.items()
    }


def crossing(path: Sequence[Mapping[str, float]], loss: float) -> float | None:
    """Forgetting where a path first reaches a validation loss, by interpolation.

    Args:
        path: Points in the order of ``c``, each with ``loss`` and ``forgetting``.
        loss: The loss to be reached.

    Returns:
        ``None`` if no point does.
    """
    for index, point in enumerate(path):
        if point["loss"] > loss:
            continue
        if index == 0:
            return float(point["forgetting"])
        before = path[index - 1]
        share = (before["loss"] - loss) / (before["loss"] - point["loss"])
        return float(before["forgetting"] + share * (point["forgetting"] - before["forgetting"]))
    return None


def _redundancy(folder: Path, done: Sequence[str]) -> dict[str, Redundancy]:
    found: dict[str, Redundancy] = {}
    for method in done:
        updates = _arrays(arm_folder(folder, method) / "update.json")
        if not updates:
            continue
        noise = _arrays(arm_folder(folder, method) / "noise.json")
        found[method] = cast("Redundancy", summarise(updates, noise))
        if noise:
            found[method]["shuffled"] = summarise(noise)
    return found


def _arrays(file: Path) -> dict[str, np.ndarray]:
    return records.read_arrays(file) if file.is_file() else {}


def front(arms: Mapping[str, Arm], cost: str, task: Task) -> list[str]:
    """The methods that no other dominates in quality and one cost, the cheapest first."""
    sign = 1.0 if task.greater_is_better else -1.0
    points = {
        name: (sign * arm.metric.value, float(getattr(arm, cost))) for name, arm in arms.items()
    }

    def dominated(name: str) -> bool:
        good, dear = points[name]
        return any(
            g >= good and d <= dear and (g > good or d < dear)
            for other, (g, d) in points.items()
            if other != name
        )

    return sorted((n for n in points if not dominated(n)), key=lambda n: points[n][1])
