"""``compare.json``: what the arms found, set beside one another.

Which methods stand on a front: no other is at least as good in both and better in one, of
quality and one cost (parameters, time, memory, forgetting).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lorafit import files
from lorafit.comparison.request import Request, arm_folder
from lorafit.comparison.search import at_edge
from lorafit.errors import TrainingError
from lorafit.evaluation.score import Scores
from lorafit.evaluation.seeds import average, difference, verdict
from lorafit.evaluation.spectrum import summarise
from lorafit.machine.describe import describe
from lorafit.methods import methods
from lorafit.report.comparison import write_comparison
from lorafit.report.fronts import COSTS
from lorafit.runlist import COMPARISON
from lorafit.tasks import tasks
from lorafit.tasks.base import Task

MARGIN = 0.01
"""What does not matter: one point of a metric between 0 and 1, else 1 % of the reference."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Attributes:
        path: Its folder.
        content: All of ``compare.json``.
    """

    path: Path
    content: dict[str, Any]

    @property
    def rows(self) -> dict[str, Row]:
        """What each method came to, by name."""
        rows: dict[str, Row] = self.content["arms"]
        return rows

    @property
    def recommendation(self) -> str:
        """One sentence."""
        sentence: str = self.content["recommendation"]["sentence"]
        return sentence


def conclude(
    folder: Path, request: Request, left_out: Mapping[str, str], failed: Mapping[str, str]
) -> Comparison:
    """Writes ``compare.json`` and the page.

    Raises:
        TrainingError: No arm finished.
    """
    if len(failed) == len(request.arms):
        reasons = "\n".join(f"{method}: {why}" for method, why in failed.items())
        raise TrainingError(f"no arm finished; the same command tries again.\n{reasons}")
    content = assemble(folder, request, left_out, failed)
    content["environment"] = describe()
    files.write_json(folder / COMPARISON, content)
    write_comparison(folder, content)
    return Comparison(folder, content)


def assemble(
    folder: Path, request: Request, left_out: Mapping[str, str], failed: Mapping[str, str]
) -> dict[str, Any]:
    """Everything that is known of a comparison.

    Args:
        folder: Its folder.
        request: What was compared.
        left_out: Methods that do not fit, and why.
        failed: Arms that failed, and why.

    Returns:
        The content of ``compare.json``.
    """
    task = tasks[request.task["name"]].from_dict(request.task)
    done = [method for method in request.arms if method not in failed]
    runs = {method: _runs(folder, method, request) for method in done}
    rows = {method: _row(folder, method, runs[method], request, task) for method in done}
    reference = next((name for name in ("full", "lora") if name in rows), next(iter(rows)))
    result: dict[str, Any] = {
        "split": "test",
        "metric": task.metric,
        "greater_is_better": task.greater_is_better,
        "confidence": request.settings.run.confidence,
        "reference": reference,
        "request": asdict(request),
        "left_out": dict(left_out),
        "failed": dict(failed),
        "arms": rows,
    }
    n = len(runs[reference][0])
    margin = MARGIN
    if not task.greater_is_better:
        margin *= abs(rows[reference]["metric"]["value"])
    for method, row in rows.items():
        _compare(row, runs[method], runs[reference], request, task, margin)
    _at_equal_quality(rows, task)
    return result | {
        "n": n,
        "margin": margin,
        "redundancy": _redundancy(folder, request, done),
        "fronts": {cost.name: front(rows, cost.key, task) for cost in COSTS},
        "recommendation": recommend(rows, runs, request, task, margin, n),
    }


def _runs(folder: Path, method: str, request: Request) -> list[Scores]:
    found = []
    for seed in range(request.seeds):
        with np.load(arm_folder(folder, method) / f"seed-{seed}.npz") as arrays:
            parts = ("logits", "labels", "losses", "units")
            found.append(Scores(*(arrays[part] for part in parts if part in arrays.files)))
    return found


def _row(folder: Path, method: str, runs: list[Scores], request: Request, task: Task) -> Row:
    own = arm_folder(folder, method)
    seeds = [files.read_json(own / f"seed-{seed}.json") for seed in range(request.seeds)]
    trials = files.read_json(own / "trials.json")
    losses = {
        t["learning_rate"]: np.inf if t["validation_loss"] is None else t["validation_loss"]
        for t in trials
    }
    level, seed = request.settings.run.confidence, request.settings.seed

    def mean(key: str) -> float:
        return float(np.mean([facts[key] for facts in seeds]))

    lost = [facts["forgetting"] for facts in seeds]
    numbers = [key for key, value in lost[0].items() if isinstance(value, float)]
    return {
        "family": methods[method].family,
        "learning_rate": seeds[0]["learning_rate"],
        "rate_at_edge": at_edge(losses),
        "trials": trials,
        "engine": seeds[0]["engine"],
        "trainable_parameters": seeds[0]["trainable_parameters"],
        "share": seeds[0]["trainable_parameters"] / request.parameters,
        "metric": asdict(average(runs, task, task.metric, level, seed)),
        "loss": asdict(average(runs, task, "loss", level, seed)),
        "by_seed": [facts["metric"] for facts in seeds],
        "time_s": mean("time_s"),
        "cpu_s": mean("cpu_s"),
        "search_cpu_s": float(sum(t.get("cpu_s", 0.0) for t in trials)),
        "tokens_per_s": mean("tokens_per_s"),
        # The first training of the process: what later runs leave behind does not count.
        "peak_memory_bytes": min(
            x["peak_memory_bytes"] for x in (*trials, *seeds) if "peak_memory_bytes" in x
        ),
        "saved_bytes": seeds[0]["saved_bytes"],
        "train_loss": mean("train_loss"),
        "validation_loss": mean("validation_loss"),
        "gap": mean("validation_loss") - mean("train_loss"),
        "forgetting": float(np.mean([x["forgetting"] for x in lost])),
        "forgetting_kind": lost[0]["kind"],
        "forgetting_details": {key: float(np.mean([x[key] for x in lost])) for key in numbers},
        "path": seeds[0]["path"],
    }


def _compare(
    row: Row, ours: list[Scores], theirs: list[Scores], request: Request, task: Task, margin: float
) -> None:
    level, seed = request.settings.run.confidence, request.settings.seed
    if ours is theirs:
        row["difference"], row["verdict"] = None, None
        return
    found = difference(ours, theirs, task, task.metric, level, seed)
    row["difference"] = asdict(found)
    row["verdict"] = verdict(found, margin, task.greater_is_better)
    row["loss_difference"] = asdict(difference(ours, theirs, task, "loss", level, seed))


def _at_equal_quality(rows: Mapping[str, Row], task: Task) -> None:
    """Forgetting where methods are equally good: less update, less forgetting.

    The level is the median of the best validation losses over the parts of each update; at
    least half of the methods reach it.
    """
    best = sorted(min(p["loss"] for p in row["path"]) for row in rows.values())
    common = best[len(best) // 2]
    for row in rows.values():
        row["forgetting_at_equal_quality"] = crossing(row["path"], common)
        row["equal_quality_loss"] = common


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


def _redundancy(folder: Path, request: Request, done: Sequence[str]) -> dict[str, Any]:
    found = {}
    for method in done:
        updates = _arrays(arm_folder(folder, method) / "update.npz")
        if not updates:
            continue
        noise = _arrays(arm_folder(folder, method) / "noise.npz")
        found[method] = summarise(updates, noise)
        if noise:
            found[method]["shuffled"] = summarise(noise)
    return found


def _arrays(file: Path) -> dict[str, np.ndarray]:
    if not file.is_file():
        return {}
    with np.load(file) as arrays:
        return {name: arrays[name] for name in arrays.files}


def front(rows: Mapping[str, Row], cost: str, task: Task) -> list[str]:
    """The methods that no other dominates in quality and one cost, the cheapest first."""
    sign = 1.0 if task.greater_is_better else -1.0
    points = {name: (sign * row["metric"]["value"], row[cost]) for name, row in rows.items()}

    def dominated(name: str) -> bool:
        good, dear = points[name]
        return any(
            g >= good and d <= dear and (g > good or d < dear)
            for other, (g, d) in points.items()
            if other != name
        )

    return sorted((n for n in points if not dominated(n)), key=lambda n: points[n][1])


def recommend(
    rows: Mapping[str, Row],
    runs: Mapping[str, list[Scores]],
    request: Request,
    task: Task,
    margin: float,
    n: int,
) -> dict[str, str]:
    """One method, and one sentence that says why.

    Of the methods within the margin of the best and not significantly worse, the one with the
    fewest trainable parameters; the yardsticks only if nothing else is that good.
    """
    sign = 1.0 if task.greater_is_better else -1.0
    best = max(rows, key=lambda name: sign * rows[name]["metric"]["value"])
    level, seed = request.settings.run.confidence, request.settings.seed
    good, reasons = [], {}
    for name in rows:
        if name == best:
            good.append(name)
            continue
        found = difference(runs[name], runs[best], task, task.metric, level, seed)
        said = verdict(found, margin, task.greater_is_better)
        reasons[name] = (found.value, said)
        if sign * found.value >= -margin and said != "worse":
            good.append(name)
    real = [name for name in good if rows[name]["family"] != "yardstick"] or good
    chosen = min(real, key=lambda name: rows[name]["trainable_parameters"])
    row, metric = rows[chosen], task.metric.replace("_", " ")
    sentence = f"Take {chosen}: {metric} {row['metric']['value']:.3f}"
    if chosen == best:
        sentence += ", the best of all"
    else:
        gap, said = reasons[chosen]
        told = f"cannot be told apart on {n:,} examples" if said == "cannot tell" else said
        sentence += f", {gap:+.3f} beside the best ({best}; {told})"
    sentence += (
        f", training {row['trainable_parameters']:,} parameters ({100 * row['share']:.3g} % of "
        f"the model)"
    )
    others = [name for name in good if name not in (chosen, best)]
    if others:
        sentence += f". As good within {margin:.2g}: {', '.join(others)}"
    untold = [name for name, (_, said) in reasons.items() if said != "worse" and name not in good]
    if untold:
        cheap = min(untold, key=lambda name: rows[name]["trainable_parameters"])
        sentence += (
            f". The smallest that {n:,} examples cannot tell from {best}: {cheap} "
            f"({rows[cheap]['metric']['value']:.3f}, {rows[cheap]['trainable_parameters']:,} "
            "parameters)"
        )
    return {"method": chosen, "best": best, "sentence": sentence + "."}
