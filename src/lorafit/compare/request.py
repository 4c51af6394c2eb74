"""What is compared, and the folder in which it is kept.

::

    runs/<name>/
      request.json       settings, methods, seeds, budget, the task; what an arm reads
      data/              the three splits, as every arm reads them
      base/              the model, if it was a live one
      general.txt        the text on which forgetting is measured
      arms/<method>/     trials.json, seed-0.json, seed-0.npz ..., noise.json, adapter/, log.txt
      compare.json       the result
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from lorafit import files, runname
from lorafit.config import Config

REQUEST = "request.json"
RESULT = "compare.json"


@dataclass(frozen=True)
class Request:
    """Everything that decides the result.

    Attributes:
        config: The settings of the runs, as JSON; method and learning rate are each arm's own.
        arms: The settings of each arm's adapter, by method.
        rates: Where each arm's search starts.
        seeds: How many runs each arm has.
        budget: What the search of an arm may cost, in full runs.
        steps: Optimizer steps of a full run.
        trial_steps: Those of one trial of the search.
        noise: The arms that are also trained on shuffled labels.
        task: The task, as JSON.
        parameters: Those of the base.
        base: Where arms load the model from.
        data: Rows and hash of each split.
        general: Hash of the general text.
    """

    config: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    rates: dict[str, float]
    seeds: int
    budget: float
    steps: int
    trial_steps: int
    noise: list[str]
    task: dict[str, Any]
    parameters: int
    base: str
    data: dict[str, Any]
    general: str

    @property
    def settings(self) -> Config:
        """The settings, checked."""
        return Config.model_validate(self.config)

    @property
    def key(self) -> str:
        """The same for the same comparison, wherever it is kept."""
        content = asdict(self)
        content["config"] = {k: v for k, v in content["config"].items() if k != "run"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @classmethod
    def read(cls, folder: Path) -> Request:
        """Reads the request of a comparison's folder."""
        content = files.read_json(folder / REQUEST)
        content.pop("key")
        return cls(**content)


def find_or_make(request: Request, splits: DatasetDict, general: list[str]) -> tuple[Path, bool]:
    """The folder of a comparison: a new one, or the one in which it was begun.

    Args:
        request: What is compared.
        splits: The data.
        general: The general text.

    Returns:
        The folder, and whether it was there already.

    Raises:
        RunError: It cannot be written, or a folder of the name asked for holds something else.
    """
    config = request.settings
    parent, name = Path(config.run.dir), config.run.name
    for known in sorted(parent.glob(f"*/{REQUEST}"), reverse=True):
        if files.read_json(known).get("key") == request.key and name in (None, known.parent.name):
            return known.parent, True
    with files.writing(parent, "the comparison"):
        parent.mkdir(parents=True, exist_ok=True)
        if name is None:
            usual = runname.automatic(config.model.name_or_path, config.data.path)
            folder = runname.make_numbered(parent, f"{usual}-compare")
        else:
            runname.check(name)
            folder = parent / name
            folder.mkdir()
        splits.save_to_disk(str(folder / "data"))
        (folder / "general.txt").write_text("\n".join(general) + "\n", encoding="utf-8")
    files.write_json(folder / REQUEST, asdict(request) | {"key": request.key})
    return folder, False
