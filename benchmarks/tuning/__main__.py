"""Runs the exhaustive grid of a pair, every point a full training run, and what is held against it.

    python -m benchmarks.tuning grid --pair reviews [--data FOLDER] [--seeds 0 1 2] [--out DIR]
    python -m benchmarks.tuning side --pair reviews --side rise ...

``FOLDER`` has train/validation/test files; without it the pairs are built from packages.
Each run appends one line to ``DIR/grid-PAIR.jsonl`` or ``DIR/SIDE-PAIR.jsonl`` when it ends;
what is there is not run again: the same command resumes an interrupted benchmark.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorafit.tune.prior.lessons import Lesson

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["grid", "side"])
    parser.add_argument("--pair", required=True)
    parser.add_argument("--side", default="rise", help="of benchmarks.tuning.tuned.SIDES")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--top", type=int, help="only the best points of the first seed there")
    parser.add_argument(
        "--constant",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="numbers of the search to try another value of: RATE_EXPONENT=0, first_rank=1",
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    {"grid": grid, "side": side}[options.what](options)


def grid(options: argparse.Namespace) -> None:
    from benchmarks.tuning import trial
    from benchmarks.tuning.pairs import PAIRS

    pair, file = PAIRS[options.pair], options.out / f"grid-{options.pair}.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    done = [identity(line) for line in read(file)]
    model, data = pair.load(options.data)
    points = pair.grid()
    if options.top:
        points = leading(read(file), options.top)
    for seed in options.seeds:
        for point in points:
            if {"seed": seed, **point} in done:
                continue
            line = {"seed": seed, **point} | trial.run(pair, model, data, seed, point)
            append(file, line)


def side(options: argparse.Namespace) -> None:
    from benchmarks.tuning import tuned
    from benchmarks.tuning.pairs import PAIRS

    pair, file = PAIRS[options.pair], options.out / f"{options.side}-{options.pair}.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    constants = {name: json.loads(value) for name, value in pairs_of(options.constant)}
    done = {line["seed"] for line in read(file) if line["constants"] == constants}
    prior = others(options.out, options.pair) if options.side == "prior" else []
    model, data = pair.load(options.data)
    for seed in sorted(set(options.seeds) - done):
        append(file, tuned.run(pair, model, data, seed, options.side, constants, prior))


def others(folder: Path, pair: str) -> list[Lesson]:
    """What ``rise`` found on all pairs but one."""
    from lorafit.tune.prior.lessons import Lesson

    files = (file for file in sorted(folder.glob("rise-*.jsonl")) if file.stem != f"rise-{pair}")
    lines = [line for file in files for line in read(file) if line["side"] == "rise"]
    found = [line["lesson"] for line in lines if line.get("lesson") and not line["constants"]]
    return [Lesson.model_validate(lesson) for lesson in found]


def pairs_of(texts: list[str]) -> Iterator[tuple[str, str]]:
    """Names and values of ``NAME=VALUE``."""
    for text in texts:
        name, _, value = text.partition("=")
        yield name, value


def append(file: Path, line: dict[str, Any]) -> None:
    with file.open("a") as out:
        out.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def leading(lines: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The points of the finished seed 0 with the lowest loss on the selection set."""
    from benchmarks.tuning.table import searched, selection_loss

    ranked = sorted(searched([line for line in lines if line["seed"] == 0]), key=selection_loss)
    return [{k: v for k, v in identity(p).items() if k != "seed"} for p in ranked[:count]]


def identity(line: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, without what was found."""
    asked = ("seed", "r", "lora_alpha", "learning_rate", "modules")
    return {name: line[name] for name in asked}


if __name__ == "__main__":
    main()
