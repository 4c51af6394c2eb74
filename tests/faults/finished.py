"""A finished run on disk, to be copied and then damaged, and what a call makes of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lorafit
from lorafit.errors import LorafitError
from tests import tiny_text

QUICK: dict[str, Any] = {
    "max_steps": 2,
    "r": 4,
    "lora_alpha": 8,
    "learning_rate": 1e-2,
    "target_modules": ["q_lin", "v_lin"],
    "per_device_train_batch_size": 4,
    "progress": False,
    "bf16": False,
}


def make(folder: Path) -> Path:
    """Trains a run: ``runs/first`` beside ``base`` and the data, all below the folder."""
    base = tiny_text.save_base(folder / "base", "distilbert")
    for name, rows in tiny_text.splits(24).items():
        (folder / "data").mkdir(exist_ok=True)
        rows.to_csv(folder / "data" / f"{name}.csv")
    where: dict[str, Any] = {"run.dir": str(folder / "runs"), "run.name": "first"}
    return lorafit.train(base, folder / "data", **where, **QUICK).path


def copied(run: Path, folder: Path) -> Path:
    """A copy of a run that can be damaged."""
    return Path(shutil.copytree(run, folder))


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes a JSON file in place."""
    values = json.loads(file.read_text(encoding="utf-8"))
    change(values)
    file.write_text(json.dumps(values), encoding="utf-8")


def outcome(call: Callable[[], Any]) -> LorafitError | None:
    """What a call refuses; ``None``: it succeeded. Any other error is the test's."""
    try:
        call()
    except LorafitError as error:
        return error
    return None
