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

Every file is written under a temporary name and then renamed; ``metrics.jsonl`` alone is
appended to, and cut back to the checkpoint on resume.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from lorafit.config import Config
from lorafit.errors import RunError, did_you_mean
from lorafit.evidence import Choice as Choice
from lorafit.evidence import Choices, Evaluation, Interval
from lorafit.run import atomic, config_file, names
from lorafit.run.commands import resume_command

log = logging.getLogger(__name__)

Lines = list[dict[str, Any]]
"""The content of a ``.jsonl`` file. (Inside `Run`, ``list`` is the method.)"""

Status = Literal["created", "training", "trained", "delivered", "done", "failed"]
"""``delivered``: all files of the result are written, and only the run's closing is left."""

FINAL = "config-final.yaml"
"""The settings with what was measured, until closing the run makes them its ``config.yaml``:
a run that is killed before that is resumed with the settings it began with."""


@dataclass(frozen=True)
class RunSummary:
    """One line of `lorafit runs`.

    Attributes:
        name: Folder name.
        status: As written, or ``"interrupted"``: training was begun and no process goes on with it.
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
    """A run folder. Make one with `Run.create` or `Run.open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock", timeout=0)
        self._working = False

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    # Finding and making runs

    @classmethod
    def create(
        cls,
        config: Config,
        dir: str | Path | None = None,
        name: str | None = None,
        origins: Mapping[str, str] | None = None,
    ) -> Run:
        """Makes a new run folder; an existing one is never touched.

        Args:
            config: The resolved settings.
            dir: Folder of the runs; ``None``: ``config.run.dir``.
            name: Folder name; ``None``: ``config.run.name``, else ``<model>-<data>-001`` or the
                next free number.
            origins: Where values came from, see `write_config`.

        Raises:
            ConfigError: The name is not a plain folder name.
            RunError: The run exists, or the folder cannot be written.
        """
        parent = Path(dir if dir is not None else config.run.dir)
        name = name if name is not None else config.run.name
        if name is not None:
            names.check(name)
        with atomic.writing(parent, "the run folder"):
            parent.mkdir(parents=True, exist_ok=True)
            if name is not None:
                path = parent / name
                try:
                    path.mkdir()
                except FileExistsError as error:
                    raise RunError(
                        f'"{path}" exists and is never overwritten. Choose another run name, '
                        "or resume that run."
                    ) from error
            else:
                path = names.make_numbered(
                    parent, names.automatic(config.model.name_or_path, config.data.path)
                )
        run = cls(path)
        try:
            run.set_status("created")
            run.write_config(config, origins)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return run

    @classmethod
    def open(cls, path: str | Path, dir: str | Path = "runs") -> Run:
        """Opens an existing run.

        Args:
            path: The folder, or just the run's name below ``dir``.
            dir: Folder of the runs, for names.

        Raises:
            RunError: There is none, or the folder is not a run.
        """
        candidates = [Path(path), Path(dir) / path]
        found = next((candidate for candidate in candidates if candidate.is_dir()), None)
        if found is None:
            names = [run.name for run in cls.list(dir)]
            known = f'; "{dir}" has {", ".join(names[-5:])}' if names else f'; "{dir}" has no runs'
            raise RunError(f'there is no run "{path}"{known}.{did_you_mean(str(path), names)}')
        if not (found / "config.yaml").is_file():
            what = "an incomplete run" if (found / "status.json").is_file() else "not a run folder"
            meant = "Name a folder made by lorafit train."
            above = found.parent if found.name else found.resolve().parent
            if (above / "config.yaml").is_file():
                meant = f'The run is the folder above: "{above}".'
            raise RunError(f'"{found}" is {what}: it has no config.yaml. {meant}')
        return cls(found)

    @classmethod
    def list(cls, dir: str | Path = "runs") -> Sequence[Run]:
        """All runs in a folder, oldest first; other folders are passed over."""
        folder = Path(dir)
        if not folder.is_dir():
            return []
        runs = [cls(path) for path in folder.iterdir() if (path / "config.yaml").is_file()]
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
        return config_file.read(self.path / "config.yaml")

    @property
    def origins(self) -> dict[str, str]:
        """Where each setting came from, by dotted name."""
        return config_file.read_origins(self.path / "config.yaml")

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
            raise RunError(
                f'"{self.path}" has no adapter yet (status: {self.summary.status}). '
                f"Finish it with: {resume_command(self.path)}"
            )
        return path

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
    def choices(self) -> dict[str, Choice]:
        """The automatic choices by name."""
        return self._choices.choices

    @property
    def choosing_cost(self) -> dict[str, Any]:
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
        try:
            lines = [json.loads(line) for line in self._metric_lines()]
        except ValueError as error:
            raise RunError(f'cannot read "{self._metrics_file}": {error}') from error
        if not all(isinstance(line, dict) for line in lines):
            raise RunError(f'cannot read "{self._metrics_file}": a line is not a JSON object')
        return lines

    @property
    def summary(self) -> RunSummary:
        """What `lorafit runs` shows of this run; a damaged file leaves its part unknown."""
        model = data = "?"
        with contextlib.suppress(Exception):
            config = self.config
            model, data = config.model.name_or_path, config.data.path
        status: str = self.status
        if status in ("training", "delivered") and not self.locked:
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

    # Writing

    def write_config(self, config: Config, origins: Mapping[str, str] | None = None) -> None:
        """Writes ``config.yaml``.

        Args:
            config: The resolved settings.
            origins: Origin by dotted name (``{"train.learning_rate": "flag"}``): ``default``,
                ``file``, ``flag``, ``measured``, or any short text. Left out: ``default`` when the
                value was not set, else ``set``.
        """
        atomic.write_text(self.path / "config.yaml", config_file.render(config, origins or {}))

    def write_choices(self, choices: Mapping[str, Choice], **other: Any) -> None:
        """Writes ``choices.json``; ``other`` are entries that are no choices, such as ``cost``."""
        cost = other.pop("cost", {})
        found = Choices(choices=dict(choices), cost=cost, others=other)
        atomic.write_json(self.path / Choices.file, found.to_json())

    def write_evaluation(self, evaluation: Evaluation) -> None:
        """Writes ``eval.json``."""
        atomic.write_json(self.path / Evaluation.file, evaluation.to_json())

    def write_environment(self, **facts: Any) -> dict[str, Any]:
        """Writes ``environment.json``: what `lorafit.machine.describe` finds, and ``facts``.

        Args:
            **facts: JSON values to add, such as ``seed`` and ``data_fingerprint``.

        Returns:
            What was written.
        """
        # Loads torch, which listing runs can do without.
        from lorafit.machine.describe import describe

        written = describe() | facts
        atomic.write_json(self.path / "environment.json", written)
        return written

    def write_json(self, name: str, value: Any) -> Path:
        """Writes a JSON file of this run atomically and returns its path."""
        path = self.path / name
        atomic.write_json(path, value)
        return path

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads a JSON file of this run.

        Raises:
            RunError: It is missing or damaged.
        """
        value = atomic.read_json(self.path / name)
        if not isinstance(value, dict):
            raise RunError(f'cannot read "{self.path / name}": it is not a JSON object')
        return value

    def set_status(self, status: Status, message: str | None = None) -> None:
        """Writes how far the run has got; ``message`` says why it failed."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        created = self._status.get("created_at", now) if self._status_file.is_file() else now
        atomic.write_json(
            self._status_file,
            {"status": status, "message": message, "created_at": created, "updated_at": now},
        )
        self.__dict__.pop("_created_at", None)

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Appends one line to ``metrics.jsonl``.

        Raises:
            RunError: The file cannot be written.
        """
        text = json.dumps(line, allow_nan=False) + "\n"
        with (
            atomic.writing(self._metrics_file, "metrics.jsonl"),
            self._metrics_file.open("a", encoding="utf-8") as file,
        ):
            file.write(text)

    def write_trials(self, trials: Sequence[Mapping[str, Any]]) -> None:
        """Writes ``trials.jsonl`` anew."""
        text = "".join(json.dumps(trial, allow_nan=False) + "\n" for trial in trials)
        atomic.write_text(self.path / "trials.jsonl", text)

    def append_trial(self, trial: Mapping[str, Any]) -> None:
        """Appends one line to ``trials.jsonl``.

        Raises:
            RunError: The file cannot be written.
        """
        path = self.path / "trials.jsonl"
        with atomic.writing(path, "trials.jsonl"), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(trial, allow_nan=False) + "\n")

    @property
    def trials(self) -> Lines:
        """The lines of ``trials.jsonl``; none if nothing was tried."""
        path = self.path / "trials.jsonl"
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def truncate_metrics(self, lines: int) -> None:
        """Keeps the first ``lines`` lines of ``metrics.jsonl``."""
        kept = self._metric_lines()[:lines]
        if len(kept) < lines:
            log.warning(
                "%s has %d lines and the checkpoint was made after %d: earlier metrics are lost",
                self._metrics_file,
                len(kept),
                lines,
            )
        if kept or self._metrics_file.exists():
            atomic.write_text(self._metrics_file, "".join(f"{line}\n" for line in kept))

    # From the beginning to the end

    @contextlib.contextmanager
    def working(self, reaching: Literal["trained", "done"] = "done") -> Iterator[None]:
        """Keeps the run's status while it is worked on, and other processes out.

        The status is ``training`` inside, then ``reaching``; after an error it is ``failed``,
        with the message. After an interruption or a kill it stays what it was inside.
        Entered again inside, it only says how far the run has got.

        Args:
            reaching: What the run is when the block ends; ``done`` also closes it.

        Raises:
            RunError: Another process works on the run, or the folder cannot be written.
        """
        if self._working:
            yield
            self._reach(reaching)
            return
        with self.lock():
            if not self.delivered:
                self.set_status("training")
            self._working = True
            try:
                yield
                self._reach(reaching)
            except Exception as error:
                # The disk may be full: the first error is the one to show.
                with contextlib.suppress(OSError, RunError):
                    self.set_status("failed", str(error))
                raise
            finally:
                self._working = False

    def deliver(self, config: Config, origins: Mapping[str, str]) -> None:
        """Notes that all of the result is written, and the settings that it was made with.

        They become the run's own when it is closed, at the end of `working`.
        """
        atomic.write_text(self.path / FINAL, config_file.render(config, origins))
        self.set_status("delivered")

    def _reach(self, status: Status) -> None:
        final = self.path / FINAL
        if status == "done" and final.is_file():
            with atomic.writing(self.path, "config.yaml"):
                final.replace(self.path / "config.yaml")
                atomic.sync_folder(self.path)
        self.set_status(status)

    # One process at a time

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from training in this folder; may be nested.

        The operating system frees the lock when the process ends, however it ends, so there
        is no stale lock to remove.

        Raises:
            RunError: Another process holds it, or the folder cannot be written.
        """
        with atomic.writing(self.path, "the lock"):
            try:
                self._lock.acquire()
            except Timeout as error:
                pid = ""
                with contextlib.suppress(OSError):
                    pid = (self.path / ".lock.pid").read_text().strip()
                raise RunError(
                    f'another process{f" ({pid})" if pid else ""} is training in "{self.path}". '
                    "Wait for it or stop it."
                ) from error
        try:
            with atomic.writing(self.path, "the lock"):
                (self.path / ".lock.pid").write_text(str(os.getpid()))
            yield
        finally:
            self._lock.release()

    @property
    def locked(self) -> bool:
        """Whether some process is training in this folder."""
        if self._lock.is_locked:
            return True
        if not (self.path / ".lock").exists():
            return False
        try:
            # A FileLock of its own: this one's counter must not change.
            with FileLock(self.path / ".lock", timeout=0):
                return False
        except (Timeout, OSError):
            return True

    # Inside

    @property
    def _choices(self) -> Choices:
        if not (self.path / Choices.file).is_file():
            return Choices()
        return Choices.from_json(self.read_json(Choices.file), str(self.path / Choices.file))

    @property
    def _status_file(self) -> Path:
        return self.path / "status.json"

    @property
    def _metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def _status(self) -> dict[str, Any]:
        status: Any = None
        with contextlib.suppress(RunError):
            status = atomic.read_json(self._status_file)
        if isinstance(status, dict) and "status" in status:
            return status
        # A damaged status must not make the results unreadable.
        return {"status": "failed", "message": "status.json is missing or damaged"}

    @functools.cached_property
    def _created_at(self) -> str:
        return str(self._status.get("created_at", ""))

    def _metric_lines(self) -> Sequence[str]:
        if not self._metrics_file.is_file():
            return []
        try:
            text = self._metrics_file.read_text(encoding="utf-8")
        except OSError as error:
            raise RunError(f'cannot read "{self._metrics_file}": {error.strerror}') from error
        lines = text.split("\n")
        return lines[:-1]
