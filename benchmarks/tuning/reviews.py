"""The film reviews that several pairs are made of."""

from __future__ import annotations

from pathlib import Path

from datasets import DatasetDict

from lorafit.config import DataConfig
from lorafit.data.carve import Roles, carve
from lorafit.data.read.source import load_splits
from lorafit.packaged import DATA


def carved(folder: Path | None, where: str | None = None) -> DatasetDict:
    """Train, validation and test rows.

    Args:
        folder: Reviews with the columns ``text`` and ``label``; ``None``: the packaged ones.
        where: Which rows.
    """
    config = DataConfig(path=str(folder or DATA), where=where)
    return carve(load_splits(config.path, config), Roles(text=["text"]), config, 0)
