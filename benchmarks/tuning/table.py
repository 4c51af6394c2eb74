"""What searchers choose in a finished grid: the grid itself, random search, TPE, a tutorial.

A finished grid is a table, so a searcher that asks for full runs is a lookup: it can be
repeated hundreds of times at no cost. Every point costs 1 U here. Choices are made by the
temperature-scaled loss on the selection set; only then is the test set looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Point = dict[str, Any]
Chooser = Callable[[list[Point], np.random.Generator], Point]

REPEATS = 300
TUTORIAL = {"r": 8, "lora_alpha": 32, "learning_rate": 2e-4, "modules": "q-v"}
DIVERGED = {"scaled_nll": float("inf")}


def selection_loss(point: Point) -> float:
    return float(point.get("selection", DIVERGED)["scaled_nll"])


def best(points: Iterable[Point]) -> Point:
    """The point with the lowest loss on the selection set."""
    return min(points, key=selection_loss)


def searched(points: list[Point]) -> list[Point]:
    """The points of the full grid: not the scaling axis, not the tutorial's."""
    return [p for p in points if p["lora_alpha"] == 16]


def random_search(runs: int) -> Chooser:
    """The best of some points drawn without replacement."""

    def choose(points: list[Point], draw: np.random.Generator) -> Point:
        return best(points[i] for i in draw.choice(len(points), runs, replace=False))

    return choose


def tpe(runs: int) -> Chooser:
    """Optuna's TPE; its start-up of 10 random runs is cut to 2, or it would be random search."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def choose(points: list[Point], draw: np.random.Generator) -> Point:
        table = {(p["r"], p["learning_rate"], p["modules"]): p for p in points}
        axes = [sorted({key[axis] for key in table}) for axis in range(3)]
        sampler = optuna.samplers.TPESampler(seed=int(draw.integers(2**31)), n_startup_trials=2)
        study = optuna.create_study(sampler=sampler)
        asked = []
        for _ in range(runs):
            trial = study.ask()
            # Ranks and rates by their place in the list: both axes are even on a log scale.
            r = axes[0][trial.suggest_int("r", 0, len(axes[0]) - 1)]
            rate = axes[1][trial.suggest_int("learning_rate", 0, len(axes[1]) - 1)]
            point = table[r, rate, trial.suggest_categorical("modules", axes[2])]
            asked.append(point)
            study.tell(trial, min(selection_loss(point), 1e3))
        return best(asked)

    return choose


def regret(point: Point, reference: Point, untuned_nll: float, metric: str) -> dict[str, float]:
    """What a choice loses on the test set against the reference's choice.

    Args:
        point: The run that was chosen.
        reference: The grid's choice.
        untuned_nll: Test loss of the untuned model, for the share of the gain.
        metric: The task's metric, greater is better.
    """
    if "test" not in point:  # it diverged: as good as no training
        gain = untuned_nll - reference["test"]["scaled_nll"]
        return {metric: 100 * reference["test"][metric], "nll": gain, "nll_share": 100.0}
    ours, theirs = point["test"], reference["test"]
    nll = ours["scaled_nll"] - theirs["scaled_nll"]
    return {
        metric: 100 * (theirs[metric] - ours[metric]),
        "nll": nll,
        "nll_share": 100 * nll / (untuned_nll - theirs["scaled_nll"]),
    }


def whole_grids(lines: list[Point]) -> dict[int, list[Point]]:
    """The points of each seed that has all of them: further seeds may have the best ones only."""
    by_seed: dict[int, list[Point]] = {}
    for line in lines:
        by_seed.setdefault(line["seed"], []).append(line)
    most = max(map(len, by_seed.values()))
    return {seed: points for seed, points in sorted(by_seed.items()) if len(points) == most}


def compared(lines: list[Point], untuned_nll: float, metric: str) -> dict[str, Any]:
    """Mean regrets of all searchers over the seeds with whole grids, and the grid's choices."""
    by_seed = whole_grids(lines)
    choosers = {
        "random, 1 run": (random_search(1), 1.0),
        "random, 4 runs": (random_search(4), 4.0),
        "TPE, 4 runs": (tpe(4), 4.0),
        "random, 9 runs": (random_search(9), 9.0),
        "TPE, 9 runs": (tpe(9), 9.0),
    }
    result: dict[str, Any] = {"seeds": sorted(by_seed), "grid": [], "searchers": {}}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in choosers}
    copied: list[dict[str, float]] = []
    for seed, points in sorted(by_seed.items()):
        grid, draw = searched(points), np.random.default_rng(seed)
        chosen = best(grid)
        result["grid"].append(chosen | {"runs": len(grid)})
        for name, (choose, _) in choosers.items():
            for _ in range(REPEATS):
                found[name].append(regret(choose(grid, draw), chosen, untuned_nll, metric))
        copied += [
            regret(point, chosen, untuned_nll, metric)
            for point in points
            if TUTORIAL.items() <= point.items()
        ]
    for name, (_, cost) in choosers.items():
        result["searchers"][name] = {"runs": cost} | mean(found[name])
    if copied:
        result["searchers"]["tutorial"] = {"runs": 1.0} | mean(copied)
    return result


def mean(regrets: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([r[name] for r in regrets])) for name in regrets[0]}
