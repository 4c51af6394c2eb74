"""Does the gradient's noise scale say which batch is best?

    python -m benchmarks.tuning.noise --pair many [--data FOLDER] [--batches 8 16 32] [--seeds 0]
    python -m benchmarks.tuning.noise --table

Each batch is a search for the rate (around the usual one times the square root of the batch) and a
training at the rate it finds, on the same examples for as many epochs. While the training that is
delivered runs, the *simple noise scale* (McCandlish et al. 2018, arXiv 1812.06162, appendix A.1)
is taken from gradients that are computed anyway: those of its steps, and their means over windows
of `WINDOW` steps, between which the weights hardly move. With the squared norms ``small`` for ``b``
examples and ``big`` for ``B``, each averaged over windows,

    |G|^2   = (B big - b small) / (B - b)        tr(Sigma) = (small - big) / (1/b - 1/B)
    B_simple = tr(Sigma) / |G|^2,                in examples.

It is the batch from which twice the examples save less than a third of the steps. Each run is a
line of ``results/batch-PAIR.jsonl``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.tuning import tuned
from benchmarks.tuning.__main__ import RESULTS, append, read
from benchmarks.tuning.pairs import PAIRS
from lorafit.training import stepper
from lorafit.training.gradients import clip
from lorafit.tune.bench.bench import Bench
from lorafit.tune.rise import short

WINDOW = 8
"""Steps whose gradients are averaged."""
PARTS = ((0.1, 0.4), (0.4, 0.7), (0.7, 1.0))
"""Shares of the run over which the scale is averaged."""
PREDICTED = ("many", "news", "reviews", "short")


@dataclass
class Windows:
    """Squared norms of gradients and of their means, window by window.

    Attributes:
        small: Mean squared norm of the steps' gradients.
        big: Squared norm of their mean.
        ends: Step after which each window ends.
    """

    small: list[float] = field(default_factory=list)
    big: list[float] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    sum: Tensor | None = None
    squares: list[float] = field(default_factory=list)

    def add(self, gradient: Tensor, step: int) -> None:
        """Takes the gradient of a step, before clipping."""
        self.sum = gradient if self.sum is None else self.sum + gradient
        self.squares.append(float(gradient @ gradient))
        if len(self.squares) == WINDOW:
            mean = self.sum / WINDOW
            self.small.append(sum(self.squares) / WINDOW)
            self.big.append(float(mean @ mean))
            self.ends.append(step)
            self.forget()

    def forget(self) -> None:
        """Begins a new window: what follows is of other weights."""
        self.sum, self.squares = None, []

    def scale(self, batch: int, first: int, last: int) -> float | None:
        """The noise scale in examples over the windows that end in a range of steps.

        Returns:
            ``None``: there is no window, or its gradients are nothing but noise.
        """
        rows = [i for i, end in enumerate(self.ends) if first < end <= last]
        if not rows:
            return None
        small, big = (sum(of[i] for i in rows) / len(rows) for of in (self.small, self.big))
        larger = WINDOW * batch
        signal = (larger * big - batch * small) / (larger - batch)
        noise = (small - big) / (1 / batch - 1 / larger)
        return noise / signal if signal > 0 else None


@contextmanager
def watched(windows: Windows) -> Iterator[None]:
    """Sees the gradients of the trunk's steps, as they are before clipping."""
    train = Bench.train
    trunk = [False]
    steps = [0]

    def seeing(parameters: Sequence[torch.nn.Parameter], most: float) -> Tensor:
        if trunk[0]:
            parts = [p.grad.detach().float().flatten() for p in parameters if p.grad is not None]
            steps[0] += 1
            windows.add(torch.cat(parts), steps[0])
        return clip(parameters, most)

    def training(self: Bench, name: str, phase: str, state: Any, *rest: Any, **about: Any) -> Any:
        trunk[0] = phase == "trunk"
        if trunk[0] and state.step != steps[0]:
            windows.forget()
            steps[0] = state.step
        try:
            return train(self, name, phase, state, *rest, **about)
        finally:
            trunk[0] = False

    with patch.object(stepper, "clip", seeing), patch.object(Bench, "train", training):
        yield


def run(pair_name: str, folder: Path | None, batch: int, seed: int) -> dict[str, Any]:
    """One batch size; its figures, and the noise scale by part of the run."""
    pair = PAIRS[pair_name]
    sized = replace(pair, settings=pair.settings | {"per_device_train_batch_size": batch})
    windows, model_and_data = Windows(), pair.load(folder)
    # Large batches are few steps, for which there is another search: the same one for all here.
    with patch.object(short, "applies", lambda _bench: False), watched(windows):
        facts = tuned.run(sized, *model_and_data, seed, "rise", {})
    steps = max(windows.ends)
    scales = [windows.scale(batch, round(a * steps), round(b * steps)) for a, b in PARTS]
    whole = windows.scale(batch, 0, steps)
    return {"seed": seed, "batch": batch, "noise_scale": whole, "by_part": scales} | facts


def table(folder: Path) -> str:
    """Test loss and metric of each batch, and the noise scale that each has measured."""
    rows = [
        "| pair | batch | test loss / metric | runs | rate | noise scale | early, middle, late |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in PREDICTED:
        for line in sorted(read(folder / f"batch-{name}.jsonl"), key=lambda one: one["batch"]):
            loss, metric = line["test"]["scaled_nll"], line["test"][PAIRS[name].metric]
            parts = ", ".join(map(shown, line["by_part"]))
            rows.append(
                f"| {name} | {line['batch']} | {loss:.3f} / {metric:.3f} | "
                f"{line['cost']['runs']:.2f} | {line['learning_rate']:.2g} | "
                f"{shown(line['noise_scale'])} | {parts} |"
            )
    return "\n".join(rows) + "\n"


def shown(scale: float | None) -> str:
    """Rounded; a dash where there is nothing but noise."""
    return "-" if scale is None else f"{scale:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pair", choices=PREDICTED)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="show what was measured")
    options = parser.parse_args()
    if options.table:
        print(table(options.out))
        return
    file = options.out / f"batch-{options.pair}.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    done = {(line["seed"], line["batch"]) for line in read(file)}
    for seed in options.seeds:
        for batch in options.batches:
            if (seed, batch) not in done:
                append(file, run(options.pair, options.data, batch, seed))


if __name__ == "__main__":
    main()
