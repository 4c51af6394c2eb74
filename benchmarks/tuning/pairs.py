"""The pairs of model and data that the tuner is measured on, and their grids.

They are small so that every point of a grid is one full run of 10 to 20 s on one thread:

reviews
    MiniLM-L6, 2,000 sentences of film reviews, two classes.
news
    MiniLM-L6, 1,600 sentences of BBC news, 20 classes (`news`).
restaurants
    A Llama of 2.4 M parameters (`pretrain`), 1,600 descriptions of restaurants (E2E NLG).
chance
    "reviews" with the labels shuffled: there is nothing to learn.
many
    MiniLM-L6, 4,000 times three words of one category of a thesaurus, 50 classes (`thesaurus`).
imbalanced
    MiniLM-L6, 2,179 sentences of debates, nine speakers of 1 to 37 % (`debates`).
short
    MiniLM-L6, 1,453 headlines of BBC news, five topics (`news`).
tags
    MiniLM-L6, which words of 800 sentences of BBC news had a capital letter (`news`).
planted-4, planted-16
    MiniLM-L6 imitating itself with an update of known rank (`planted`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict

from benchmarks.tuning import debates, news, planted, thesaurus
from benchmarks.tuning.reviews import carved
from lorafit.packaged import DATA as REVIEWS
from lorafit.packaged import MODEL as MINILM
from lorafit.settings import Settings, from_keywords, resolve

SMALL_LLAMA = Path(tempfile.gettempdir()) / "small-llama"
"""Where `pretrain` puts the model of "restaurants"."""


@dataclass(frozen=True)
class Pair:
    """A model, data and everything that the grid does not vary.

    Attributes:
        load: From the folder given by ``--data`` (or ``None``) to model and data, as
            `lorafit.train` takes them.
        settings: Settings common to all runs.
        modules: The sets of target modules, by name.
        rates: Learning rates of the grid.
        metric: What is compared beside the loss, a share of 1; greater is better.
        ranks: Ranks of the grid, with ``lora_alpha`` at `ALPHA`.
        grid_settings: Settings of the grid's runs alone.
    """

    load: Callable[[Path | None], tuple[str, Any]]
    settings: dict[str, Any]
    modules: dict[str, list[str]]
    rates: tuple[float, ...]
    metric: str = "accuracy"
    ranks: tuple[int, ...] = (1, 4, 16)
    grid_settings: dict[str, Any] = field(default_factory=dict)

    def whole(self, model: str, seed: int, **settings: Any) -> Settings:
        """The settings of one run; its data is passed beside it."""
        given = {"model.name_or_path": model, "data.path": "(passed beside)", "seed": seed}
        return resolve(from_keywords(given | self.settings | settings))

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
        if len(self.modules) == 1:
            return points
        tutorial = {"r": 8, "lora_alpha": 32, "learning_rate": 2e-4, "modules": "q-v"}
        return [*points, tutorial, *scaled]


ALPHA = 16

MINILM_MODULES = {"q-v": ["query", "value"], "all-linear": ["query", "key", "value", "dense"]}

RATES = (2.5e-4, 6e-4, 1.5e-3, 4e-3)
"""Of MiniLM's grids."""

FIRST_GRIDS = {"lr_scheduler_type": "warmup_stable_decay", "adam_beta2": 0.999}
"""The defaults of lorafit when the first grids were made."""

ONE_LOOK = {
    "num_train_epochs": 2,
    "eval_steps": 10**6,  # the last step is always evaluated: the selection set is scored once
    "early_stopping_patience": None,
    "max_train_samples": 2000,
    "per_device_train_batch_size": 8,
}

AS_USERS = {
    "num_train_epochs": 3,
    "eval_steps": 10**6,
    "early_stopping_patience": None,
}
"""The epochs and, unless the rows are few, the batch of a default run."""

LLAMA_MODULES = {
    "q-v": ["q_proj", "v_proj"],
    "all-linear": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


def _reviews(folder: Path | None) -> tuple[str, Any]:
    return MINILM, str(folder or REVIEWS)


def _chance(folder: Path | None) -> tuple[str, Any]:
    splits = carved(folder)
    draw = np.random.default_rng(0)
    rows = {
        name: split.select_columns(["text", "label"])
        .remove_columns("label")
        .add_column("label", draw.permutation(split["label"]).tolist())
        for name, split in splits.items()
    }
    return MINILM, DatasetDict(rows)


def _news(_folder: Path | None) -> tuple[str, Any]:
    return MINILM, news.load({"train": 1600, "validation": 600, "test": 800})


def _many(_folder: Path | None) -> tuple[str, Any]:
    return MINILM, thesaurus.load({"train": 4000, "validation": 500, "test": 1000})


def _imbalanced(_folder: Path | None) -> tuple[str, Any]:
    return MINILM, debates.load({"train": 3000, "validation": 600, "test": 800})


def _short(_folder: Path | None) -> tuple[str, Any]:
    return MINILM, news.headlines({"train": 1500, "validation": 300, "test": 400})


def _tags(_folder: Path | None) -> tuple[str, Any]:
    return MINILM, news.capitals({"train": 800, "validation": 200, "test": 400})


def _restaurants(folder: Path | None) -> tuple[str, Any]:
    if folder is None:
        raise SystemExit("restaurants needs --data FOLDER: E2E NLG as train.jsonl, ...")
    return str(SMALL_LLAMA), str(folder)


def _planted(k: int, folder: Path | None) -> tuple[str, Any]:
    return planted.plant(
        k, planted.reviews(folder, {"train": 1500, "validation": 300, "test": 400})
    )


PAIRS = {
    "reviews": Pair(
        _reviews,
        ONE_LOOK,
        MINILM_MODULES,
        rates=RATES,
    ),
    "news": Pair(
        _news,
        ONE_LOOK,
        MINILM_MODULES,
        rates=RATES,
    ),
    "chance": Pair(
        _chance,
        ONE_LOOK,
        MINILM_MODULES,
        rates=RATES,
    ),
    "restaurants": Pair(
        _restaurants,
        ONE_LOOK | {"task": "causal_lm", "max_train_samples": 1600, "max_length": 192},
        LLAMA_MODULES,
        rates=(8e-4, 2e-3, 5e-3),
        metric="token_accuracy",
        grid_settings=FIRST_GRIDS,
    ),
    "many": Pair(_many, AS_USERS, MINILM_MODULES, rates=RATES),
    "imbalanced": Pair(
        _imbalanced,
        AS_USERS | {"per_device_train_batch_size": 16},
        MINILM_MODULES,
        rates=RATES,
    ),
    "short": Pair(
        _short,
        AS_USERS | {"per_device_train_batch_size": 8},
        MINILM_MODULES,
        rates=RATES,
    ),
    "tags": Pair(
        _tags,
        AS_USERS | {"per_device_train_batch_size": 8},
        MINILM_MODULES,
        rates=RATES,
    ),
    **{
        f"planted-{k}": Pair(
            partial(_planted, k),
            ONE_LOOK
            | {
                "task": "planted",
                "head_init": "random",
                "lora_dropout": 0.0,
                "target_modules": MINILM_MODULES["q-v"],
            },
            {"q-v": MINILM_MODULES["q-v"]},
            rates=(1e-3, 3e-3, 9e-3),
            metric="fidelity",
            ranks=(2, 8, 32),
            grid_settings=FIRST_GRIDS,
        )
        for k in (4, 16)
    },
}
