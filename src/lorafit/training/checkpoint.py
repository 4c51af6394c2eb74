"""Checkpoints: everything a run needs to go on as if it had never stopped.

A checkpoint is a folder ``step-00000120`` with ``state.safetensors`` (trainable weights,
AdamW's moments, torch's generators) and ``state.json`` (counters, Python's and NumPy's
generators, the SHA-256 of the other file and that of its own content). Nothing is pickled. The
folder is written under a temporary name, flushed and renamed, so that a name without prefix is a
whole one.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.nn import Parameter
from torch.optim import Optimizer

from lorafit import regular
from lorafit.errors import RunError
from lorafit.evidence.json import Json, parsed
from lorafit.run import atomic, digest
from lorafit.training.generators import Generators
from lorafit.training.state import TrainState

log = logging.getLogger(__name__)

FORMAT = 1
_TENSORS, _VALUES = "state.safetensors", "state.json"
_PREFIX = "step-"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read from disk and found whole.

    Attributes:
        path: Its folder.
        step: Optimizer steps taken.
        tensors: Content of ``state.safetensors``: ``weight/<name>``, ``exp_avg/<name>``, ...
        state: Counters as JSON values.
        expects: What must be the same in the run that goes on.
        generators: Python's and NumPy's random states, one entry a process.
    """

    path: Path
    step: int
    tensors: dict[str, torch.Tensor]
    state: Json
    expects: Json
    generators: list[Generators]


# Weights and optimizer


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that safetensors can write: on the CPU, contiguous, owning its storage."""
    tensor = tensor.detach().cpu().contiguous()
    shared = tensor.untyped_storage().nbytes() != tensor.nbytes
    return tensor.clone() if shared else tensor


def collect(trainable: Mapping[str, Parameter], optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """The weights and the optimizer's state, by ``<kind>/<parameter name>``."""
    tensors = {f"weight/{name}": _plain(parameter) for name, parameter in trainable.items()}
    for name, parameter in trainable.items():
        for kind, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{kind}/{name}"] = _plain(torch.as_tensor(value))
    return tensors


def load_weights(checkpoint: Checkpoint, trainable: Mapping[str, Parameter]) -> None:
    """Copies a checkpoint's weights into the parameters, in place.

    Raises:
        RunError: The checkpoint is of another set of parameters.
    """
    stored = {
        name.removeprefix("weight/"): tensor
        for name, tensor in checkpoint.tensors.items()
        if name.startswith("weight/")
    }
    different = [
        name
        for name in sorted({*stored, *trainable})
        if name not in stored
        or name not in trainable
        or stored[name].shape != trainable[name].shape
    ]
    if different:
        raise RunError(
            f'the checkpoint "{checkpoint.path}" does not fit this model: '
            f"{len(different)} parameters are missing, unexpected or of another shape "
            f"({', '.join(different[:3])}). Resume with the settings the run was started with."
        )
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(stored[name])


def load_optimizer(
    checkpoint: Checkpoint, trainable: Mapping[str, Parameter], optimizer: Optimizer
) -> None:
    """Puts a checkpoint's moments and step counters into a fresh optimizer."""
    state = optimizer.state_dict()
    names = {id(parameter): name for name, parameter in trainable.items()}
    ordered = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    state["state"] = {
        index: {
            kind: checkpoint.tensors[f"{kind}/{name}"].clone()
            for kind in ("step", "exp_avg", "exp_avg_sq")
        }
        for index, name in enumerate(ordered)
        if f"step/{name}" in checkpoint.tensors
    }
    optimizer.load_state_dict(state)


# Folders


def save(
    folder: Path,
    state: TrainState,
    tensors: dict[str, torch.Tensor],
    expects: Mapping[str, object],
    generators: Sequence[tuple[Generators, dict[str, torch.Tensor]]],
) -> Path:
    """Writes one checkpoint; on any failure what was there before is untouched.

    Args:
        folder: The run's ``checkpoints``.
        state: Steps taken, and the other counters.
        tensors: From `collect`.
        expects: What must be the same on resume (JSON values).
        generators: From `generators.generator_states`, one entry a process.

    Raises:
        RunError: The disk is full, or permission is missing.
    """
    target = path_of(folder, state.step)
    temporary = folder / f"{atomic.TEMPORARY}{target.name}-{os.getpid()}"
    kept = latest_step(folder)
    advice = f"the checkpoint of step {kept} is whole: resume from it" if kept is not None else ""
    tensors = dict(tensors)
    for rank, (_, states) in enumerate(generators):
        tensors |= {f"generator/{rank}/{name}": value for name, value in states.items()}
    with atomic.writing(target, "the checkpoint", advice):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            atomic.save_tensors(temporary / _TENSORS, tensors)
            values: Json = {
                "format": FORMAT,
                "step": state.step,
                "sha256": digest.of_file(temporary / _TENSORS),
                "state": state.to_dict(),
                "expects": expects,
                "generators": [values for values, _ in generators],
            }
            atomic.write_json(temporary / _VALUES, digest.sealed(values), "the checkpoint")
            if target.exists():
                remove(target)
            temporary.rename(target)
            atomic.sync_folder(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def read(path: Path) -> Checkpoint:
    """Reads one checkpoint and verifies it.

    Raises:
        RunError: It is damaged, or of a newer format.
    """
    try:
        values = parsed(regular.read_text(path / _VALUES))
        if values["format"] != FORMAT:
            raise RunError(  # noqa: TRY301 passes through below
                f'the checkpoint "{path}" has format {values["format"]}; this version of lorafit '
                f"reads {FORMAT}. Resume with the version that wrote it."
            )
        if digest.of_file(path / _TENSORS) != values["sha256"]:
            raise ValueError(f"{_TENSORS} is not what was written")  # noqa: TRY301 a damage like others
        # A checkpoint of version 0.1.0 has none.
        if digest.CONTENT in values and digest.of_values(values) != values[digest.CONTENT]:
            raise ValueError(f"{_VALUES} is not what was written")  # noqa: TRY301 as above
        return Checkpoint(
            path=path,
            step=values["step"],
            tensors=load_file(path / _TENSORS),
            state=values["state"],
            expects=values["expects"],
            generators=values["generators"],
        )
    except RunError:
        raise
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RunError(f'the checkpoint "{path}" is damaged: {error}') from error


def steps(folder: Path) -> list[int]:
    """Steps of the finished checkpoints, in order."""
    if not folder.is_dir():
        return []
    names = (path.name.removeprefix(_PREFIX) for path in folder.glob(f"{_PREFIX}*"))
    return sorted(int(name) for name in names if name.isdigit())


def latest_step(folder: Path) -> int | None:
    """Step of the newest checkpoint."""
    return max(steps(folder), default=None)


def path_of(folder: Path, step: int) -> Path:
    """Folder of the checkpoint of a step."""
    return folder / f"{_PREFIX}{step:08d}"


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; a damaged one is passed over, and that is said.

    Returns:
        ``None`` when there are no checkpoints at all.

    Raises:
        RunError: All are damaged.
    """
    problems: list[str] = []
    for step in reversed(steps(folder)):
        try:
            checkpoint = read(path_of(folder, step))
        except RunError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            log.warning("%s; going back to the checkpoint of step %d", problem, step)
        return checkpoint
    if problems:
        raise RunError(
            "; ".join(problems) + ". No whole checkpoint is left: start a new run, "
            f'or delete "{folder}" to begin this one again.'
        )
    return None


def remove(path: Path) -> None:
    """Deletes a checkpoint so that no half-deleted one keeps its name."""
    doomed = path.with_name(f"{atomic.TEMPORARY}{path.name}-{os.getpid()}-old")
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def prune(folder: Path, keep: set[int]) -> None:
    """Deletes all checkpoints but those of the steps in ``keep``."""
    for step in steps(folder):
        if step not in keep:
            with atomic.writing(folder, "the checkpoints"):
                remove(path_of(folder, step))
