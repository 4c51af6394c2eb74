"""The finished grids and what was held against them as one summary and one table.

    python -m benchmarks.tuning.report [--results DIR]

Writes ``summary.json`` and ``results.md`` into the folder of the results and, where that is the
one of the repository, the tables of the sides and of the prior into docs/explanation/tuning.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.tuning.__main__ import RESULTS, read
from benchmarks.tuning.pairs import PAIRS
from benchmarks.tuning.table import best, compared, regret, searched
from benchmarks.tuning.tuned import SIDES
from lorafit.tune.decide import gain

PAGE = Path(__file__).parents[2] / "docs/explanation/tuning.md"
PAST = ("rise-higher", "earlier")
"""Sides that are no more: the search with trials that begin at 1.15 to 1.2 times the usual rate,
and that of lorafit until November 2026."""
NO_SIDES = ("grid", "earlier-grid", "batch")
"""What else there are files of."""

UNTUNED = {"reviews": math.log(2), "news": math.log(20), "planted-4": 1.0, "planted-16": 1.0}
"""Test loss before training: classes are equally frequent and the head is fresh. That of other
pairs was measured."""


def summary(folder: Path) -> dict[str, Any]:
    """What every side and every searcher loses against the grid, by pair."""
    result: dict[str, Any] = {}
    before = folder / "summary.json"
    known = json.loads(before.read_text()) if before.exists() else {}
    for file in sorted(folder.glob("grid-*.jsonl")):
        pair = file.stem.removeprefix("grid-")
        lines, metric = read(file), PAIRS[pair].metric
        untuned = UNTUNED.get(pair) or lines[-1]["untuned"]["scaled_nll"]
        print_of = hashlib.sha256(file.read_bytes()).hexdigest()
        found = known.get(pair, {})
        if found.get("grid_sha256") != print_of:  # the searchers take minutes
            found = compared(lines, untuned, metric) | {"grid_sha256": print_of}
        found["grids"] = grids(lines)
        have = {line["seed"] for line in lines}
        found["sides"] = {
            name: [against(run, lines, untuned, metric) for run in runs if run["seed"] in have]
            for name, runs in sides(folder, pair).items()
        }
        result[pair] = found
    return result


def sides(folder: Path, pair: str) -> dict[str, list[dict[str, Any]]]:
    """The runs of each side of a pair; those with other constants are experiments and left out."""
    files = sorted(folder.glob(f"*-{pair}.jsonl"))
    names = {file: file.name.removesuffix(f"-{pair}.jsonl") for file in files}
    return {
        name: [run for run in read(file) if not run["constants"]]
        for file, name in names.items()
        if name not in NO_SIDES
    }


def grids(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The grid's choice for each seed."""
    chosen = []
    for seed in sorted({line["seed"] for line in lines}):
        points = searched([line for line in lines if line["seed"] == seed])
        point = best(points)
        kept = ("seed", "r", "lora_alpha", "learning_rate", "modules", "selection", "test")
        chosen.append({name: point[name] for name in kept} | {"runs": len(points)})
    return chosen


def against(
    run: dict[str, Any], lines: list[dict[str, Any]], untuned: float, metric: str
) -> dict[str, Any]:
    """One run of a side against the grid's choice for the same seed and selection set."""
    point = best(searched([line for line in lines if line["seed"] == run["seed"]]))
    cost = run["cost"]
    return {
        "seed": run["seed"],
        **{name: run[name] for name in ("r", "lora_alpha", "learning_rate") if name in run},
        "regret": regret(run, point, untuned, metric),
        "test": run["test"],
        "runs": cost["runs"],
        "runs_by_the_clock": cost.get("runs_by_the_clock"),
    }


def markdown(found: dict[str, Any]) -> str:
    """The table of the documentation: mean regret in points of the metric and in nats."""
    rows = [
        "| pair | searcher | runs | regret, points | regret, nats | share of the gain |",
        "|---|---|---|---|---|---|",
    ]
    for pair, one in found.items():
        metric = PAIRS[pair].metric
        for name, runs in one["sides"].items():
            for seed in runs:
                lost = seed["regret"]
                rows.append(
                    f"| {pair} | {name}, seed {seed['seed']}: r = {seed['r']} | {seed['runs']:.2f} "
                    f"| {lost[metric]:+.1f} | {lost['nll']:+.3f} | {lost['nll_share']:+.1f} % |"
                )
            if len(runs) > 1:
                rows.append(mean_row(pair, name, runs, metric))
        for name, lost in one["searchers"].items():
            rows.append(
                f"| {pair} | {name} | {lost['runs']:g} | {lost[metric]:+.1f} "
                f"| {lost['nll']:+.3f} | {lost['nll_share']:+.1f} % |"
            )
    return "\n".join(rows) + "\n"


def mean_row(pair: str, name: str, runs: list[dict[str, Any]], metric: str) -> str:
    """The row of the means over runs, with Student's intervals at 95 %."""
    points, nats, share = (
        interval([run["regret"][name] for run in runs]) for name in (metric, "nll", "nll_share")
    )
    cost = float(np.mean([run["runs"] for run in runs]))
    return (
        f"| {pair} | {name}, mean of {len(runs)} | {cost:.2f} | {points:.1f} | {nats:.3f} "
        f"| {share:.1f} % |"
    )


class Interval(NamedTuple):
    """A mean with the ends of its interval; formats all three alike."""

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.mean:+{spec}} [{self.low:+{spec}}, {self.high:+{spec}}]"


def interval(values: list[float]) -> Interval:
    """Of the mean of regrets, each a difference between two runs of one seed."""
    found = gain(np.array(values), np.zeros(len(values)))
    return Interval(found.mean, found.low, found.high)


def overall(found: dict[str, Any]) -> str:
    """The mean row of each side over all pairs; the metric is each pair's own."""
    rows = []
    for name in sorted({name for one in found.values() for name in one["sides"]}):
        runs = [
            run | {"regret": run["regret"] | {"metric": run["regret"][PAIRS[pair].metric]}}
            for pair, one in found.items()
            for run in one["sides"].get(name, [])
        ]
        if len(runs) > 1:
            rows.append(mean_row("all", name, runs, "metric") + "\n")
    return "".join(rows)


def side_by_side(folder: Path) -> str:
    """The table of the page: for each pair the sides on the seeds that all of them have.

    A cell has the mean test loss (temperature-scaled), the metric and the plain runs.
    """
    names = [*SIDES, *PAST]
    names = [name for name in names if any(sides(folder, pair).get(name) for pair in PAIRS)]
    head = " | ".join(f"`{name}`" for name in names)
    rows = [f"| pair | seeds | {head} | grid's choice |", "|---" * (len(names) + 3) + "|"]
    for pair, about in PAIRS.items():
        found = {name: runs for name, runs in sides(folder, pair).items() if name in names}
        now = found.get("rise") or found.get("rise-higher") or []
        own = {run["seed"] for run in now}
        if not own:
            continue
        seeds = sorted(s for s in own if all(s in seeds_of(runs) for runs in found.values()))
        lines = read(folder / f"grid-{pair}.jsonl")
        chosen = [point for point in grids(lines) if point["seed"] in seeds] if lines else []
        cells = [cell(found.get(name, []), seeds, about.metric) for name in names]
        best_cell = cell(chosen, seeds, about.metric, runs_too=False)
        rows.append(f"| {pair} | {len(seeds)} | {' | '.join(cells)} | {best_cell} |")
    return "\n".join(rows) + "\n"


def seeds_of(runs: list[dict[str, Any]]) -> set[int]:
    """The seeds of some runs."""
    return {run["seed"] for run in runs}


def cell(
    runs: list[dict[str, Any]], seeds: list[int], metric: str, *, runs_too: bool = True
) -> str:
    """Means over some seeds."""
    kept = [run for run in runs if run["seed"] in seeds]
    if not kept or len(kept) < len(seeds):
        return ""
    loss, value = (np.mean([run["test"][name] for run in kept]) for name in ("scaled_nll", metric))
    cost = f", {np.mean([run['cost']['runs'] for run in kept]):.2f}" if runs_too else ""
    return f"{loss:.3f} / {value:.3f}{cost}"


def with_prior(folder: Path) -> str:
    """Each run of the side ``prior`` after the same one without: trials, cost, loss and metric.

    "Off by" is the factor between the middle one of the first rates and the best of the search
    without a prior.
    """
    rows = [
        "| pair | weight | off by | rates tried | steps of trials | plain runs | loss / metric |",
        "|---|---|---|---|---|---|---|",
    ]
    for pair, about in PAIRS.items():
        found = sides(folder, pair)
        for run in found.get("prior", []):
            plain = next(one for one in found["rise-random-head"] if one["seed"] == run["seed"])
            prior = run["rates"].get("prior") or {"learning_rate": run["lesson"]["usual"]}
            usual, best_rate = plain["lesson"]["usual"], plain["lesson"]["best"]
            off = [apart(rate, best_rate) for rate in (usual, prior["learning_rate"])]
            cells = (
                [f"{prior.get('weight', 0.0):.2f}"],
                off,
                [str(len(rates_of(one))) for one in (plain, run)],
                [str(trial_steps(one)) for one in (plain, run)],
                [f"{one['cost']['runs']:.2f}" for one in (plain, run)],
                [
                    f"{one['test']['scaled_nll']:.3f} / {one['test'][about.metric]:.3f}"
                    for one in (plain, run)
                ],
            )
            rows.append(f"| {pair} | {' | '.join(', '.join(cell) for cell in cells)} |")
    return "\n".join(rows) + "\n"


def apart(rate: float, best_rate: float | None) -> str:
    """The factor between two rates; a dash where none was the best."""
    return "-" if best_rate is None else f"{math.exp(abs(math.log(rate / best_rate))):.2f}"


def rates_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The rates of the first comparison."""
    return [line for line in run["rates"]["tried"] if not line.get("decayed")]


def trial_steps(run: dict[str, Any]) -> int:
    """Steps of all that was trained to choose the rate, the trunk's beginning included."""
    first = rates_of(run)
    later = [line for line in run["rates"]["tried"] if line.get("decayed")]
    return sum(int(line["steps"]) for line in first) + sum(
        int(line["steps"]) - int(first[0]["steps"]) for line in later
    )


def write_page(name: str, table: str) -> None:
    """Puts a table between its marks in the page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = PAGE.read_text()
    before, rest = text.split(begin)
    _, after = rest.split(end)
    PAGE.write_text(f"{before}{begin}\n{table}{end}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = summary(options.results)
    (options.results / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
    table = markdown(found) + overall({k: v for k, v in found.items() if "planted" not in k})
    (options.results / "results.md").write_text(table)
    print(table)
    if options.results.resolve() == RESULTS.resolve():
        write_page("sides", side_by_side(RESULTS))
        write_page("prior", with_prior(RESULTS))


if __name__ == "__main__":
    main()
