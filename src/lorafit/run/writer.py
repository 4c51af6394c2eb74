"""The run folder while it is worked on: only what trains a model writes there.

Every file is written under a temporary name and then renamed; ``metrics.jsonl`` alone is
appended to, and cut back to the checkpoint on resume.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from filelock import FileLock

from lorafit.config import Config
from lorafit.errors import RunError
from lorafit.evidence import Choice, Choices, Evaluation
from lorafit.machine.environment import Environment
from lorafit.run import atomic, config_file, locks, names, stage
from lorafit.run.folder import CONFIG, METRICS, SEARCH, STATUS, Run, Status

log = logging.getLogger(__name__)

FINAL = "config-final.yaml"
"""The settings with what was measured, until closing the run makes them its ``config.yaml``:
a run that is killed before that is resumed with the settings it began with."""


class RunWriter(Run):
    """A run whose files this process writes. Make a new one with `create`.

    Args:
        path: As of `Run`.
        dir: As of `Run`.
    """

    def __init__(self, path: str | Path, dir: str | Path = "runs") -> None:
        super().__init__(path, dir)
        self._lock = FileLock(self.path / locks.LOCK)
        self._working = False

    @classmethod
    def create(
        cls,
        config: Config,
        dir: str | Path | None = None,
        name: str | None = None,
        origins: Mapping[str, str] | None = None,
    ) -> RunWriter:
        """Makes a new run folder, all or nothing; an existing one is never touched.

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
        stem = name or names.automatic(config.model.name_or_path, config.data.path)
        with atomic.writing(parent, "the run folder"):
            stage.sweep(parent)
            with stage.staging(parent, stem) as folder:
                _write_status(folder, "created")
                atomic.write_text(folder / CONFIG, config_file.render(config, origins or {}))
                if name is None:
                    path = names.place_numbered(folder, parent, stem)
                else:
                    path = parent / name
                    if not stage.place(folder, path):
                        raise RunError(
                            f'"{path}" exists and is never overwritten. Choose another run name, '
                            "or resume that run."
                        )
        return cls(path)

    # Writing

    def write_config(self, config: Config, origins: Mapping[str, str] | None = None) -> None:
        """Writes ``config.yaml``.

        Args:
            config: The resolved settings.
            origins: Origin by dotted name (``{"train.learning_rate": "flag"}``): ``default``,
                ``file``, ``flag``, ``measured``, or any short text. Left out: ``default`` when the
                value was not set, else ``set``.
        """
        atomic.write_text(self.path / CONFIG, config_file.render(config, origins or {}))

    def write_choices(self, choices: Mapping[str, Choice], **other: Any) -> None:
        """Writes ``choices.json``; ``other`` are entries that are no choices, such as ``cost``."""
        cost = other.pop("cost", {})
        found = Choices(choices=dict(choices), cost=cost, others=other)
        atomic.write_json(self.path / Choices.file, found.to_json())

    def write_evaluation(self, evaluation: Evaluation) -> None:
        """Writes ``eval.json``."""
        atomic.write_json(self.path / Evaluation.file, evaluation.to_json())

    def write_environment(self, **facts: Any) -> Environment:
        """Writes ``environment.json``: what `lorafit.machine.describe` finds, and ``facts``.

        Args:
            **facts: JSON values to add, such as ``seed`` and ``data_fingerprint``.

        Returns:
            What was written.
        """
        # Loads torch, which listing runs can do without.
        from lorafit.machine.describe import describe

        written = cast("Environment", {**describe(), **facts})
        atomic.write_json(self.path / "environment.json", written)
        return written

    def write_json(self, name: str, value: Any) -> Path:
        """Writes a JSON file of this run atomically and returns its path."""
        path = self.path / name
        atomic.write_json(path, value)
        return path

    def set_status(self, status: Status, message: str | None = None) -> None:
        """Writes how far the run has got; ``message`` says why it failed."""
        created = self._status.get("created_at") if (self.path / STATUS).is_file() else None
        _write_status(self.path, status, message, created)

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

    def truncate_metrics(self, lines: int) -> None:
        """Keeps the first ``lines`` lines of ``metrics.jsonl``."""
        kept = self._text_lines(METRICS)[:lines]
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
            self.tidy()
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
            with atomic.writing(self.path, CONFIG):
                final.replace(self.path / CONFIG)
                atomic.sync_folder(self.path)
        self.set_status(status)

    @property
    def leftovers(self) -> list[Path]:
        """What killed processes left unfinished, and of a run that is done its search."""
        folders = (self.path, self.path / "adapter", self.checkpoints)
        found = [path for folder in folders for path in atomic.unfinished(folder)]
        search = self.path / SEARCH
        if self.status == "done" and search.is_dir() and not search.is_symlink():
            found.append(search)
        return found

    def tidy(self) -> list[str]:
        """Removes the `leftovers`; call it with the run's lock held.

        Returns:
            The names of what is gone.
        """
        return atomic.remove(self.leftovers)

    # One process at a time

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from training in this folder; may be nested.

        Raises:
            RunError: Another process holds it, the folder has links in it, or it cannot be written.
        """
        if not self._lock.is_locked:
            atomic.refuse_links(self.path)
        with locks.held(self.path, "training", self._lock):
            yield

    @property
    def locked(self) -> bool:
        """Whether some process is training in this folder; this one may be."""
        return self._lock.is_locked or super().locked


def _write_status(
    folder: Path, status: Status, message: str | None = None, created_at: str | None = None
) -> None:
    """Writes ``status.json``; ``created_at`` of ``None`` is now."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    facts = {"status": status, "message": message, "created_at": created_at or now}
    atomic.write_json(folder / STATUS, facts | {"updated_at": now})
