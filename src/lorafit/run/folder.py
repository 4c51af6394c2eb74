"""The run folder: what a training run writes, and everything that reading or resuming it needs.

::

    runs/<name>/
      config.yaml       the resolved settings, each with its origin as a comment
      status.json       created, training, trained, delivered, done or failed, and since when
      choices.json      every automatic choice: value, reason, evidence
      data.json         what was found in the data
      environment.json  versions, hardware, threads, seeds, data fingerprint, exact command
      metrics.jsonl     one JSON object a line
      trials.jsonl      what choosing the settings tried, one JSON object a line
      checkpoints/      resumable state
      adapter/          the result, in PEFT format
      eval.json         base and tuned metrics on the test split, with intervals
      predictions.parquet  what base and tuned model said of each test example
      evaluations/      the same two of other data, a folder for each evaluation
      report.html       all of it on one page

What is written there, `lorafit.run.writer` writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, Self, TypedDict, cast

from lorafit import regular
from lorafit.config import Config
from lorafit.errors import RunError, did_you_mean
from lorafit.evidence import Choice as Choice
from lorafit.evidence import Choices, Evaluation, Interval
from lorafit.evidence.json import parsed
from lorafit.evidence.training import ChoosingCost
from lorafit.run import atomic, config_file
from lorafit.run.commands import resume_call, resume_command
from lorafit.run.locks import is_locked
from lorafit.units import shortened

if TYPE_CHECKING:
    import pandas as pd

Lines = list[dict[str, Any]]
"""The content of a ``.jsonl`` file. (Inside `Run`, ``list`` is the method.)"""

Status = Literal["created", "training", "trained", "delivered", "done", "failed"]
"""``delivered``: all files of the result are written, and only the run's closing is left."""

BEGUN: tuple[Status, ...] = ("created", "training", "trained", "delivered")
"""A process goes from each of these to the next; without one the run is interrupted."""

CONFIG = "config.yaml"
STATUS = "status.json"
METRICS = "metrics.jsonl"
TRIALS = "trials.jsonl"
REPORT = "report.html"
"""Files of a run."""

SEARCH = "tune"
"""Folder of what a search has done so far; only there until the run is done."""


class Written(TypedDict):
    """``status.json``.

    Attributes:
        status: How far the run has got.
        message: Why it failed.
        created_at: ISO 8601, UTC.
        updated_at: ISO 8601, UTC.
    """

    status: Status
    message: NotRequired[str | None]
    created_at: NotRequired[str]
    updated_at: NotRequired[str]


@dataclass(frozen=True)
class RunSummary:
    """One line of `lorafit runs`.

    Attributes:
        name: Folder name.
        status: As written, or ``"interrupted"``: it was begun and no process goes on with it.
        created_at: ISO 8601, UTC.
        model: Model as the user named it.
        data: Data as the user named it.
        steps: Last step in the metrics, ``None`` before the first.
        metric: Name of the headline metric, ``None`` before the evaluation.
        base: Headline metric of the untuned model.
        tuned: Headline metric of the tuned model.
    """

    name: str
    status: str
    created_at: str
    model: str
    data: str
    steps: int | None
    metric: str | None
    base: float | None
    tuned: float | None


class Run:
    """What the folder of a run holds; `lorafit.Run` also uses the model in it.

    Args:
        path: The folder, or just the run's name below ``dir``.
        dir: Folder of the runs, for names.

    Raises:
        RunError: There is none, or the folder is not a run.
    """

    def __init__(self, path: str | Path, dir: str | Path = "runs") -> None:
        self.path = _found(path, dir)

    def __repr__(self) -> str:
        found = self.summary
        known = [f"Run({shortened(str(self.path), 80)!r}", found.status]
        if found.metric is not None and found.tuned is not None:
            known.append(f"{shortened(found.metric, 30)} {found.tuned:.3f}")
        return ", ".join(known) + ")"

    # Finding runs

    @classmethod
    def open(cls, path: str | Path, dir: str | Path = "runs") -> Self:
        """Opens an existing run, as calling the class does."""
        return cls(path, dir)

    @classmethod
    def list(cls, dir: str | Path = "runs") -> Sequence[Self]:
        """All runs in a folder, oldest first; other folders are passed over."""
        folder = Path(dir)
        if not folder.is_dir():
            return []
        runs = [cls(path) for path in folder.iterdir() if (path / CONFIG).is_file()]
        return sorted(runs, key=lambda run: (run._created_at, run.name))  # noqa: SLF001 of this class

    # Facts

    @property
    def name(self) -> str:
        """Folder name."""
        return self.path.resolve().name

    @property
    def config(self) -> Config:
        """The settings, read back from ``config.yaml``.

        Raises:
            ConfigError: The file was edited into something that is not a configuration.
        """
        return config_file.read(self.path / CONFIG)

    @property
    def origins(self) -> dict[str, str]:
        """Where each setting came from, by dotted name."""
        return config_file.read_origins(self.path / CONFIG)

    @property
    def status(self) -> Status:
        """How far the run has got."""
        status: Status = self._status["status"]
        return status

    @property
    def message(self) -> str | None:
        """What went wrong in a failed run."""
        message: str | None = self._status.get("message")
        return message

    @property
    def delivered(self) -> bool:
        """Whether the result is all there and the run was stopped before it was closed."""
        status = self.status
        if status != "trained":
            return status == "delivered"
        # A folder of version 0.1.0, where the measured settings were written last but one.
        return (
            config_file.MEASURED in self.origins.values()
            and (self.path / "adapter" / "README.md").is_file()
        )

    @property
    def adapter(self) -> Path:
        """Folder of the finished adapter.

        Raises:
            RunError: There is none yet.
        """
        path = self.path / "adapter"
        if not (path / "adapter_config.json").is_file():
            said = f'"{self.path}" has no adapter yet (status: {self.summary.status}).'
            error = RunError(f"{said} Finish it with: {resume_command(self.path)}")
            error.speak(f"{said} Finish it with: {resume_call(self.path)}")
            raise error
        return path

    @property
    def report(self) -> Path:
        """The page about the run, ``report.html`` (may not exist before its end)."""
        return self.path / REPORT

    @property
    def checkpoints(self) -> Path:
        """Folder of the resumable states (may not exist)."""
        return self.path / "checkpoints"

    @property
    def eval(self) -> dict[str, Any]:
        """The content of ``eval.json``, as it is there; `evaluation` is the same, typed.

        Raises:
            RunError: The run has not been evaluated.
        """
        return self.read_json(Evaluation.file)

    @property
    def evaluation(self) -> Evaluation:
        """Base and tuned model on the test split: ``run.evaluation.tuned["accuracy"].low``.

        Raises:
            RunError: The run has not been evaluated, or the file is damaged or of a later version.
        """
        return Evaluation.from_json(self.eval, str(self.path / Evaluation.file))

    @property
    def predictions(self) -> pd.DataFrame:
        """What base and tuned model said of each test example, a row each; read when asked for.

        Columns: ``row`` (its place in the test split), ``source_row`` (in the data as it was
        read, where known), ``text_hash``, ``text`` (unless ``run.keep_texts`` is off), ``label``,
        and for ``base`` and ``tuned`` the answer, ``_right``, ``_probability`` of the answer,
        ``_loss``, and ``_probabilities`` in the order of ``predictions.attrs["label_names"]``,
        as far as the task has them.

        Raises:
            RunError: The run has none: it is not evaluated yet, or of an earlier version.
        """
        return self._frame(None)

    def mistakes(self, most: int | None = None) -> pd.DataFrame:
        """The rows of `predictions` that the tuned model is wrong on, the surest first.

        Of numbers all that are off, the furthest first; of texts all, that with the highest
        loss of a token first.

        Args:
            most: How many; ``None``: all.

        Raises:
            RunError: As `predictions`.
        """
        return self._frame("mistakes").iloc[:most]

    def flips(self) -> pd.DataFrame:
        """The rows of `predictions` where one model is right and the other is not.

        A column ``flip`` says which: ``gained`` (tuning set it right) or ``lost``.

        Raises:
            RunError: As `predictions`.
        """
        return self._frame("flips")

    def _frame(self, part: Literal["mistakes", "flips"] | None) -> pd.DataFrame:
        # Here: listing runs does without.
        from lorafit.evidence.predictions import FILE, Predictions

        path = self.path / FILE
        if not path.is_file():
            raise RunError(
                f'"{self.path}" has no {FILE}: the run is not evaluated yet, or it was made by an '
                "earlier lorafit, which kept none. A new run has it."
            )
        try:
            return Predictions.read(path).frame(part)
        except (OSError, ValueError) as error:
            raise RunError(f'cannot read "{path}": {error}') from error

    @property
    def choices(self) -> dict[str, Choice]:
        """The automatic choices by name."""
        return self._choices.choices

    @property
    def choosing_cost(self) -> ChoosingCost:
        """What choosing and training cost, in plain runs; empty when nothing was measured."""
        return self._choices.cost

    @property
    def environment(self) -> dict[str, Any]:
        """The content of ``environment.json``."""
        return self.read_json("environment.json")

    @property
    def metrics(self) -> Lines:
        """The lines of ``metrics.jsonl``; a last line torn by a crash is left out.

        Raises:
            RunError: The file cannot be read, or a line is not JSON.
        """
        return self._lines(METRICS)

    @property
    def summary(self) -> RunSummary:
        """What `lorafit runs` shows of this run; a damaged file leaves its part unknown."""
        model = data = "?"
        with contextlib.suppress(Exception):
            config = self.config
            model, data = config.model.name_or_path, config.data.path
        status: str = self.status
        if status in BEGUN and not self.locked:
            status = "interrupted"
        result = Evaluation()
        with contextlib.suppress(RunError):
            result, _ = Evaluation.whole_parts(self.eval)

        def value(side: Mapping[str, Interval]) -> float | None:
            found = side.get(result.metric or "")
            return None if found is None else float(found.value)

        metrics: Lines = []
        with contextlib.suppress(RunError):
            metrics = self.metrics
        return RunSummary(
            name=self.name,
            status=status,
            created_at=self._created_at,
            model=model,
            data=data,
            steps=metrics[-1].get("step") if metrics else None,
            metric=result.metric,
            base=value(result.base),
            tuned=value(result.tuned),
        )

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads a JSON file of this run.

        Raises:
            RunError: It is missing or damaged.
        """
        value = atomic.read_json(self.path / name)
        if not isinstance(value, dict):
            raise RunError(f'cannot read "{self.path / name}": it is not a JSON object')
        return value

    @property
    def trials(self) -> Lines:
        """The lines of ``trials.jsonl``, none if nothing was tried; a torn last one is left out.

        Raises:
            RunError: The file cannot be read, or a line is not JSON.
        """
        return self._lines(TRIALS)

    @property
    def locked(self) -> bool:
        """Whether some process is training in this folder."""
        return is_locked(self.path)

    # Inside

    @property
    def _choices(self) -> Choices:
        if not (self.path / Choices.file).is_file():
            return Choices()
        return Choices.from_json(self.read_json(Choices.file), str(self.path / Choices.file))

    @property
    def _status_file(self) -> Path:
        return self.path / STATUS

    @property
    def _metrics_file(self) -> Path:
        return self.path / METRICS

    @property
    def _status(self) -> Written:
        status: Any = None
        with contextlib.suppress(RunError):
            status = atomic.read_json(self._status_file)
        if isinstance(status, dict) and isinstance(status.get("status"), str):
            message = status.get("message")
            known = status | {"message": None if message is None else str(message)}
            return cast("Written", known)
        # A damaged status must not make the results unreadable.
        return {"status": "failed", "message": "status.json is missing or damaged"}

    @property
    def _created_at(self) -> str:
        return str(self._status.get("created_at", ""))

    def _lines(self, name: str) -> Lines:
        """The objects of a ``.jsonl`` file; of a missing one none."""
        try:
            lines = [parsed(line) for line in self._text_lines(name)]
        except ValueError as error:
            raise RunError(f'cannot read "{self.path / name}": {error}') from error
        objects = [line for line in lines if isinstance(line, dict)]
        if len(objects) != len(lines):
            raise RunError(f'cannot read "{self.path / name}": a line is not a JSON object')
        return objects

    def _text_lines(self, name: str) -> Sequence[str]:
        """The whole lines of a file, none if it is missing; a crash may have torn the last one."""
        file = self.path / name
        if not file.is_file():
            return []
        try:
            return regular.read_text(file).split("\n")[:-1]
        except OSError as error:
            raise RunError(f'cannot read "{file}": {error.strerror}') from error
        except UnicodeDecodeError as error:
            raise RunError(f'cannot read "{file}": {error}') from error


def _found(path: str | Path, dir: str | Path) -> Path:
    """The folder of a run.

    Raises:
        RunError: There is none, or the folder is not a run.
    """
    candidates = [Path(path), Path(dir) / path]
    found = next((candidate for candidate in candidates if candidate.is_dir()), None)
    if found is None:
        names = [run.name for run in Run.list(dir)]
        known = f'; "{dir}" has {", ".join(names[-5:])}' if names else f'; "{dir}" has no runs'
        raise RunError(f'there is no run "{path}"{known}.{did_you_mean(str(path), names)}')
    if not (found / CONFIG).is_file():
        what = "an incomplete run" if (found / STATUS).is_file() else "not a run folder"
        meant = "Name a folder made by lorafit train."
        above = found.parent if found.name else found.resolve().parent
        if (above / CONFIG).is_file():
            meant = f'The run is the folder above: "{above}".'
        raise RunError(f'"{found}" is {what}: it has no config.yaml. {meant}')
    return found
