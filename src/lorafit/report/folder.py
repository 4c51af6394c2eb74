"""A run folder as plain data, whatever state it is in.

Nothing here fails because a file is missing, damaged or of another shape: what can be read
is, and what cannot is said in `RunFolder.problems`, which the page shows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from safetensors import SafetensorError, safe_open

from lorafit import regular
from lorafit.errors import LorafitError, RunError
from lorafit.evidence import Choices, Evaluation, MetricInfo, Record
from lorafit.evidence.json import Json, mapping, parsed
from lorafit.evidence.predictions import FILE as PREDICTIONS
from lorafit.evidence.predictions import Predictions
from lorafit.evidence.record import check_version
from lorafit.report.predicted import COLUMNS
from lorafit.run import config_file
from lorafit.run.folder import BEGUN
from lorafit.run.locks import is_locked

R = TypeVar("R", bound=Record)


@dataclass
class RunFolder:
    """What the files of a run say.

    Attributes:
        path: The folder, as it was named.
        name: Its last part.
        status: As in ``status.json``; ``"interrupted"``: begun, and no process goes on with
            it; ``"unknown"``: there is no such file.
        message: What went wrong.
        created_at: ISO 8601, or ``""``.
        config: ``config.yaml``.
        origins: Where each setting came from, by dotted name.
        choices: ``choices.json``, as far as it is whole.
        environment: ``environment.json``.
        data: ``data.json``.
        task: The task with its columns and labels: of ``data.json``, or of the adapter.
        evaluation: ``eval.json``, as far as it is whole; ``None``: there is none yet.
        infos: What each metric is.
        metrics: The lines of ``metrics.jsonl``.
        trials: The lines of ``trials.jsonl``.
        adapter: ``adapter/adapter_config.json``.
        extras: ``adapter/lorafit.json``.
        card: ``adapter/README.md``.
        tensors: Shape of each tensor in the adapter's weights.
        adapter_bytes: Size of the weights file.
        predictions: ``predictions.parquet``, less the probabilities of every label.
        problems: What could not be read, and why.
    """

    path: Path
    name: str = ""
    status: str = "unknown"
    message: str | None = None
    created_at: str = ""
    config: Json = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    choices: Choices = field(default_factory=Choices)
    environment: Json = field(default_factory=dict)
    data: Json = field(default_factory=dict)
    task: Json = field(default_factory=dict)
    evaluation: Evaluation | None = None
    infos: dict[str, MetricInfo] = field(default_factory=dict)
    metrics: list[Json] = field(default_factory=list)
    trials: list[Json] = field(default_factory=list)
    adapter: Json = field(default_factory=dict)
    extras: Json = field(default_factory=dict)
    card: str = ""
    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict)
    adapter_bytes: int | None = None
    predictions: Predictions | None = None
    problems: list[str] = field(default_factory=list)

    def setting(self, *names: str) -> Any:
        """A setting of ``config.yaml``, ``None`` where it is missing."""
        value: Any = self.config
        for name in names:
            value = mapping(value).get(name)
        return value


def read_folder(path: Path) -> RunFolder:
    """Reads a run folder.

    Raises:
        RunError: There is no such folder.
    """
    if not path.is_dir():
        raise RunError(f'there is no run folder "{path}". Name a folder made by lorafit train')
    found = RunFolder(path, name=path.resolve().name)
    _read_status(found)
    _read_config(found)
    for attribute, file in (
        ("environment", "environment.json"),
        ("data", "data.json"),
        ("adapter", "adapter/adapter_config.json"),
        ("extras", "adapter/lorafit.json"),
    ):
        setattr(found, attribute, _json(found, file))
    # A run of the version before has the task beside its adapter only.
    found.task = mapping(found.data.get("task")) or mapping(found.extras.get("task"))
    found.choices = _record(found, Choices) or Choices()
    found.evaluation = _record(found, Evaluation)
    found.infos = _infos(found)
    if found.evaluation is not None:
        found.evaluation = found.evaluation.model_copy(update={"metrics": found.infos})
    found.card = _text(found, "adapter/README.md") or ""
    found.metrics = _lines(found, "metrics.jsonl")
    found.trials = _lines(found, "trials.jsonl")
    _read_weights(found)
    _read_predictions(found)
    return found


def _text(found: RunFolder, file: str) -> str | None:
    try:
        return regular.read_text(found.path / file)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        found.problems.append(f"{file} cannot be read: {error}")
        return None


def _json(found: RunFolder, file: str) -> Json:
    text = _text(found, file)
    if text is None:
        return {}
    try:
        value = parsed(text)
    except ValueError as error:
        found.problems.append(f"{file} is damaged: {error}")
        return {}
    if not isinstance(value, dict):
        found.problems.append(f"{file} is damaged: it is no JSON object")
    return mapping(value)


def _record(found: RunFolder, kind: type[R]) -> R | None:
    """A typed file, without what is damaged of it; ``None`` where there is nothing."""
    content = _json(found, kind.file)
    if not content:
        return None
    with _noted(found):
        check_version(content, kind.file)
    record, lost = kind.whole_parts(content)
    if lost:
        found.problems.append(f"{kind.file} is damaged at {', '.join(lost[:5])}")
    return record


@contextlib.contextmanager
def _noted(found: RunFolder) -> Iterator[None]:
    """Notes why something cannot be read, and goes on."""
    try:
        yield
    except LorafitError as error:
        found.problems.append(str(error))


def _infos(found: RunFolder) -> dict[str, MetricInfo]:
    """What the metrics are: the evaluation says, before it the record of the data."""
    if found.evaluation is not None and found.evaluation.metrics:
        return found.evaluation.metrics
    described = mapping(found.data.get("metrics"))
    if described:
        return Evaluation.whole_parts({"metrics": described})[0].metrics
    name = found.task.get("name")
    if found.evaluation is None or not isinstance(name, str):
        return {}
    # Before files described their metrics; here, because only then tasks are needed.
    from lorafit.evaluation.written import infos
    from lorafit.tasks import stored

    try:
        return infos() | stored(found.task).infos
    except (LorafitError, KeyError, TypeError, ValueError):
        return {}  # a task of a package that is not here, or a damaged one


def _lines(found: RunFolder, file: str) -> list[Json]:
    """The objects of a ``.jsonl`` file; a crash may have torn the last line."""
    text = _text(found, file) or ""
    lines: list[Json] = []
    damaged = 0
    whole: Sequence[str] = text.split("\n")[:-1]
    for line in whole:
        try:
            value = parsed(line)
        except ValueError:
            value = None
        if isinstance(value, dict):
            lines.append(value)
        elif line.strip():
            damaged += 1
    if damaged:
        found.problems.append(f"{file} has damaged lines, which are left out: {damaged}")
    return lines


def _read_status(found: RunFolder) -> None:
    content = _json(found, "status.json")
    found.status = str(content.get("status", "unknown"))
    message = content.get("message")
    found.message = None if message is None else str(message)
    found.created_at = str(content.get("created_at") or "")
    if found.status in BEGUN and not is_locked(found.path):
        found.status = "interrupted"


def _read_config(found: RunFolder) -> None:
    text = _text(found, "config.yaml")
    if text is None:
        return
    try:
        value = config_file.parse(text)
    except yaml.YAMLError as error:
        found.problems.append(f"config.yaml is damaged: {' '.join(str(error).split())}")
        return
    found.config = mapping(value)
    with contextlib.suppress(RunError):
        found.origins = config_file.read_origins(found.path / "config.yaml")


def _read_predictions(found: RunFolder) -> None:
    file = found.path / PREDICTIONS
    if not file.is_file():
        return
    try:
        found.predictions = Predictions.read(file, COLUMNS)
    except (OSError, ValueError) as error:
        found.problems.append(f"{PREDICTIONS} is damaged: {error}")


def _read_weights(found: RunFolder) -> None:
    file = found.path / "adapter" / "adapter_model.safetensors"
    if not file.is_file():
        return
    try:
        found.adapter_bytes = file.stat().st_size
        with safe_open(file, framework="np") as tensors:
            found.tensors = {
                key: tuple(tensors.get_slice(key).get_shape())
                for key in tensors.keys()  # noqa: SIM118 (no mapping: it cannot be iterated)
            }
    except (OSError, SafetensorError) as error:
        found.problems.append(f"adapter/{file.name} is damaged: {error}")
