"""Evaluations on other data, kept below the run: the numbers, and what both models said."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa

from lorafit.config import Config
from lorafit.errors import RunError
from lorafit.evidence import Evaluation
from lorafit.evidence.json import Json
from lorafit.pipeline import predictions
from lorafit.run import Run, atomic, names, stage
from lorafit.settings import LIVE

log = logging.getLogger(__name__)

FOLDER = "evaluations"
"""Below a run's folder: a folder for each evaluation on other data."""


def named(config: Config, data: Any) -> Config:
    """The settings of a run with other data in the place of its own.

    Args:
        config: Of the run.
        data: What was passed as data; ``None``: the run's own.
    """
    if data is None:
        return config
    path = str(data) if isinstance(data, str | Path) else LIVE
    return config.model_copy(update={"data": config.data.model_copy(update={"path": path})})


def keep(run: Run, data: str, content: Json, said: pa.Table) -> Path | None:
    """Keeps an evaluation on other data in a folder of its own below the run's.

    Args:
        run: That was evaluated.
        data: What the data is called; it names the folder, with a number.
        content: What ``eval.json`` is to hold.
        said: The predictions.

    Returns:
        The folder; ``None``: the run's folder cannot be written, which is a warning.
    """
    above = run.path / FOLDER
    stem = "rows" if data == LIVE else names.short(data)
    try:
        with atomic.writing(above, "the evaluation"), stage.staging(above, stem) as made:
            predictions.keep(made, said)
            atomic.write_json(made / Evaluation.file, content)
            folder = names.place_numbered(made, above, stem)
    except RunError as error:
        log.warning("the evaluation is not kept: %s", error)
        return None
    log.info("kept with its predictions: %s", folder)
    return folder
