"""What is compared, and the folder in which it is kept.

::

    runs/<name>/
      request.json       settings, methods, seeds, budget, the task; what an arm reads
      data/              the three splits, as every arm reads them
      base/              the model, if it was a live one
      general.txt        the text on which forgetting is measured
      arms/<method>/     trials.json, seed-0.json, seed-0.npz ..., noise.json, adapter/, log.txt;
                         as `records` writes them
      compare.json       the result, and compare.html
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from datasets import DatasetDict
from pydantic import TypeAdapter, ValidationError
from torch import nn

from lorafit import quiet
from lorafit.comparison.fitting import Field
from lorafit.comparison.search import TRIALS
from lorafit.config import AdapterConfig, Config, ModelConfig
from lorafit.data.fingerprint import fingerprint
from lorafit.errors import ConfigError, ModelError, RunError
from lorafit.evaluation.forgetting import LONGEST
from lorafit.evidence.comparison import Requested, Rows
from lorafit.evidence.json import Json
from lorafit.model.identity import Identity
from lorafit.pipeline.problem import Live, Problem
from lorafit.pipeline.unchanged import Base, check_identity, check_rows
from lorafit.run import atomic, digest, names, stage
from lorafit.run.listing import COMPARISON, REQUEST
from lorafit.settings import LIVE
from lorafit.training.steps import StepPlan
from lorafit.trust import recorded

log = logging.getLogger(__name__)

BASE = "base"
"""Folder of a live model."""

NOISE = ("full", "lora")
"""The arms that are also trained on shuffled labels."""


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
        text_length: Tokens that are read of each of its texts.
        identity: Of the base model when the comparison began, `lorafit.model.identity`; ``None``:
            not known, or of an earlier version. It decides nothing: a comparison goes on with it
            or not at all.
        saved: Digests of the files in the folder of a live model; ``None``: there is none, or of
            an earlier version. It decides nothing either.
    """

    config: Json
    arms: dict[str, Json]
    rates: dict[str, float]
    seeds: int
    budget: float
    steps: int
    trial_steps: int
    noise: list[str]
    task: Json
    parameters: int
    base: str
    data: dict[str, Rows]
    general: str
    text_length: int
    identity: Identity | None = None
    saved: dict[str, str] | None = None

    @property
    def settings(self) -> Config:
        """The settings, checked; what they say of trust is a record (`lorafit.trust`)."""
        config = Config.model_validate(self.config)
        config.model = recorded(config.model, "the comparison's request.json")
        return config

    def run(self, method: str, rate: float, seed: int, steps: int, model: ModelConfig) -> Config:
        """The settings of one training.

        Args:
            method: The arm.
            rate: Its learning rate.
            seed: Of the arm's runs, from 0.
            steps: Optimizer steps.
            model: The base, as the caller may load it.
        """
        config = self.settings
        config.model = model
        config.adapter = AdapterConfig(method=method, **self.arms[method])
        config.seed += seed
        settings = config.train
        settings.learning_rate, settings.max_steps = rate, steps
        # A trial is judged by its end; runs are evaluated as often as asked, else four times.
        short = steps == self.trial_steps != self.steps
        settings.eval_steps = steps if short else settings.eval_steps or math.ceil(steps / 4)
        settings.early_stopping_patience = None
        settings.report_to = []
        return config

    @property
    def content(self) -> Requested:
        """JSON values, as the record of the comparison has them."""
        return cast("Requested", asdict(self))

    @property
    def key(self) -> str:
        """The same for the same comparison, wherever it is kept."""
        content = asdict(self)
        del content["identity"], content["saved"]
        content["config"] = {k: v for k, v in content["config"].items() if k != "run"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def check_saved_base(self, folder: Path) -> None:
        """Refuses a live model's folder that is not what was saved.

        Args:
            folder: The comparison's.

        Raises:
            ModelError: A file changed, is missing, or is new.
        """
        if self.saved is not None and self.saved != _digests(folder / BASE):
            raise ModelError(
                f'"{folder / BASE}" is not the model that this comparison began with: its files '
                f'changed. Delete "{folder}", and compare again.'
            )

    def asks_the_same(self, other: Request) -> bool:
        """Whether another one differs at most in the rows, and in what follows from them."""
        if other.settings.data.path == LIVE:  # other objects are other data
            return False

        def typed(one: Request) -> Json:
            settings = {k: v for k, v in one.config.items() if k != "run"}
            return settings | {
                "arms": one.arms,
                "base": one.base,
                "budget": one.budget,
                "general": one.general,
                "seeds": one.seeds,
            }

        return typed(self) == typed(other)

    @classmethod
    def read(cls, folder: Path) -> Request:
        """Reads the request of a comparison's folder.

        Raises:
            RunError: There is none, or it is damaged.
        """
        file = folder / REQUEST
        content = atomic.read_json(file)
        try:
            plain = {name: value for name, value in content.items() if name != "key"}
            return _READER.validate_json(json.dumps(plain), strict=True)
        except (AttributeError, ValidationError) as error:
            raise RunError(
                f'"{file}" is damaged: it is not what lorafit compare writes. Bring the file back, '
                "or compare anew under another run name."
            ) from error


_READER = TypeAdapter(Request)


def arm_folder(folder: Path, method: str) -> Path:
    """Where an arm keeps what it found; ``peft:vera`` is no name for a folder everywhere."""
    return folder / "arms" / method.replace(":", "-")


@dataclass(frozen=True)
class Size:
    """How much a comparison trains.

    Attributes:
        seeds: Runs of each method.
        budget: What one search may cost, in full runs.

    Raises:
        ConfigError: One is out of range.
    """

    seeds: int
    budget: float

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(
                f"seeds is {self.seeds}, but it should be 1 or more: runs of each method."
            )
        if not 0.0 < self.budget <= TRIALS:
            raise ConfigError(
                f"budget is {self.budget:g}, but it should be above 0 and at most {TRIALS}: what "
                "finding a method's learning rate may cost, in runs "
                f"({TRIALS}: every trial is as long as one)."
            )


def make_request(
    problem: Problem, field: Field, config: Config, size: Size, text: list[str]
) -> Request:
    """Puts together what is compared.

    Args:
        problem: The task and its rows.
        field: Who takes part.
        config: The settings of all.
        size: Runs, and what their search may cost.
        text: The general text.
    """
    steps = StepPlan(field.train, config).total_steps
    base, arms = config.model.name_or_path, {n: e.settings for n, e in field.entries.items()}
    if base == LIVE:  # on disk its head no longer looks new
        whole = field.loaded.new_modules
        for name, own in arms.items():
            kept = own.get("modules_to_save")
            asked = kept if isinstance(kept, list | tuple) else ()
            arms[name] = own | {"modules_to_save": [*asked, *whole]}
    # Only where an example has one label is there a shuffled one.
    plain = isinstance(field.train[0]["labels"], int | float)
    return Request(
        config=config.model_dump(mode="json"),
        arms=_json(arms),
        rates={name: entry.learning_rate for name, entry in field.entries.items()},
        seeds=size.seeds,
        budget=size.budget,
        steps=steps,
        trial_steps=max(1, round(size.budget * steps / TRIALS)),
        noise=[name for name in NOISE if name in field.entries and plain],
        task=_json(problem.task.to_dict()),
        parameters=field.parameters,
        base=_weights(field.loaded.model) if base == LIVE else base,
        data=fingerprint(problem.splits),
        general=hashlib.sha256("\n".join(text).encode()).hexdigest(),
        text_length=min(LONGEST, field.shortest_limit),
    )


def _json(value: Any) -> Any:
    """What reading it back from a file gives."""
    return json.loads(json.dumps(value))


def _weights(model: nn.Module) -> str:
    """A live model's name: a hash of its weights."""
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().contiguous().cpu().view(torch.uint8).numpy())
    return f"{LIVE} {found.hexdigest()}"


def find_or_make(
    request: Request, splits: DatasetDict, general: list[str], live: Live | None = None
) -> tuple[Path, bool]:
    """The folder of a comparison: a new one, or the one in which it was begun.

    A new one appears with everything in it that arms read.

    Args:
        request: What is compared.
        splits: The data.
        general: The general text.
        live: The model, if it was passed as an object.

    Returns:
        The folder, and whether it was there already.

    Raises:
        DataError: The comparison of the name asked for was begun with other rows.
        ModelError: It was begun with another base model of the same name.
        RunError: It cannot be written, or a folder of the name asked for holds something else.
    """
    config = request.settings
    parent, name = Path(config.run.dir), config.run.name
    found = begun(parent, name, request)
    if found is not None:
        if live is not None and not (found / BASE).is_dir():  # killed in an earlier version
            with atomic.writing(found, "the model"), stage.staging(found, BASE) as base:
                _save_base(live, base)
                stage.place(base, found / BASE)
        return found, True
    usual = f"{names.automatic(config.model.name_or_path, config.data.path)}-compare"
    if name is not None:
        names.check(name)
    with atomic.writing(parent, "the comparison"):
        stage.sweep(parent)
        with stage.staging(parent, name or usual) as folder:
            with quiet.others():
                splits.save_to_disk(str(folder / "data"))
            (folder / "general.txt").write_text("\n".join(general) + "\n", encoding="utf-8")
            if live is not None:
                _save_base(live, folder / BASE)
                request = replace(request, saved=_digests(folder / BASE))
            atomic.write_json(folder / REQUEST, asdict(request) | {"key": request.key})
            stage.settle(folder)
            if name is None:
                return names.place_numbered(folder, parent, usual), False
            if not stage.place(folder, parent / name):
                raise RunError(
                    f'"{parent / name}" exists and holds something else than this comparison. '
                    "Choose another run name."
                )
            return parent / name, False


INSTEAD = "Bring the old {} back to go on with it, or choose another run name for a new one."


def begun(parent: Path, name: str | None, request: Request) -> Path | None:
    """The folder in which a comparison was begun; damaged ones are passed over, and that is said.

    Args:
        parent: Where comparisons are.
        name: The folder's name; ``None``: any.
        request: What is compared.

    Raises:
        DataError: The one of this name was begun with other rows.
        ModelError: It was begun with another base model of the same name.
    """
    for file in sorted(parent.glob(f"{name or '*'}/{REQUEST}"), reverse=True):
        if file.parent.name.startswith(atomic.TEMPORARY):
            continue
        try:
            known = Request.read(file.parent)
        except RunError as error:
            log.warning("%s; it is passed over", error)
            continue
        # By what it holds, not by what it says it holds.
        same = known.key == request.key
        if same or (name is not None and known.asks_the_same(request)):
            now = Base(request.settings.model.name_or_path, request.identity)
            check_rows(file.parent, known.data, request.data, INSTEAD.format("rows"))
            check_identity(file.parent, known.identity, now, INSTEAD.format("files"))
        if same:
            return file.parent
        if name is None and known.asks_the_same(request) and not _is_finished(file.parent):
            what = "data" if known.data != request.data else "base model"
            log.warning(
                'the comparison in "%s" is not finished, and its %s changed since it began; this '
                "is a new one. To go on with that one, bring back what it began with.",
                *(file.parent, what),
            )
    return None


def _is_finished(folder: Path) -> bool:
    return (folder / COMPARISON).is_file()


def _save_base(live: Live, folder: Path) -> None:
    with quiet.others():
        live.model.save_pretrained(folder)
        live.tokenizer.save_pretrained(folder)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): digest.of_file(file) for file in files}
