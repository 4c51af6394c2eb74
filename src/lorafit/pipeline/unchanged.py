"""Whether data and base model are what a run began with: digests of both."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset

from lorafit.data.fingerprint import fingerprint
from lorafit.errors import DataError, ModelError
from lorafit.model import identity
from lorafit.model.identity import Identity
from lorafit.run import Run

log = logging.getLogger(__name__)

BASE = "base"
"""Name of the base model's identity in ``environment.json`` and in an adapter's facts."""


def check_unchanged(run: Run, splits: Mapping[str, Dataset], instead: str) -> None:
    """Refuses rows that are not those that the run began with, if it had noted them.

    Args:
        run: An interrupted or finished run.
        splits: What was read again.
        instead: What to do.

    Raises:
        DataError: A split has other rows.
    """
    if (run.path / "environment.json").is_file():
        check_rows(run.path, run.environment.get("data", {}), fingerprint(splits), instead)


def check_rows(
    folder: Path, known: Mapping[str, Any], now: Mapping[str, Any], instead: str
) -> None:
    """Refuses rows that are not those that something began with.

    Args:
        folder: Of a run or a comparison.
        known: What `fingerprint` said then; of a split that is left out nothing is known.
        now: What it says now.
        instead: What to do.

    Raises:
        DataError: A split has other rows.
    """
    changed = [name for name in now if known.get(name, now[name]) != now[name]]
    if changed:
        raise DataError(
            f'the data of "{folder}" changed since it began: {" and ".join(changed)} '
            f"{'has' if len(changed) == 1 else 'have'} other rows now. {instead}"
        )


def check_base(run: Run, name: str, now: Identity | None) -> None:
    """Refuses a base model that is not the one that the run began with, if it had noted that.

    Args:
        run: An interrupted run.
        name: Of the model.
        now: What it is now.

    Raises:
        ModelError: Weights, config or tokenizer are others.
    """
    if (run.path / "environment.json").is_file():
        instead = "Bring the old files back to resume it, or start a new run."
        check_identity(run.path, _identity(run.environment), Base(name, now), instead)


class Base(NamedTuple):
    """A base model as it is now.

    Attributes:
        name: What the user calls it.
        identity: What it is; ``None``: not known.
    """

    name: str
    identity: Identity | None


def check_identity(folder: Path, known: Identity | None, now: Base, instead: str) -> None:
    """Refuses a base model that is not the one that something began with.

    Args:
        folder: Of a run or a comparison.
        known: What the base was then; ``None``: not known.
        now: What it is.
        instead: What to do.

    Raises:
        ModelError: Weights, config or tokenizer are others.
    """
    changed = identity.changed(known, now.identity)
    if changed:
        raise ModelError(
            f'the base model of "{folder}" changed since it began: its {_listed(changed)} not '
            f'what {_was(changed)} ("{now.name}"). {instead}'
        )


def say_base(adapter: Path, known: Identity | None, name: str, now: Identity | None) -> None:
    """Warns of a base model that is not the one that an adapter was trained on.

    Args:
        adapter: Its folder.
        known: What is written there about it; ``None``: nothing.
        name: Of the model.
        now: What it is now.
    """
    changed = identity.changed(known, now)
    if changed:
        log.warning(
            'the base model of "%s" changed since it was trained: its %s not what %s ("%s"), so it '
            "will not answer as it was measured. Use the old files, or train again.",
            *(adapter, _listed(changed), _was(changed), name),
        )


def _identity(facts: Mapping[str, Any]) -> Identity | None:
    known = facts.get(BASE)
    return known if isinstance(known, dict) else None


def _listed(parts: list[str]) -> str:
    verb = "is" if parts in (["config"], ["tokenizer"]) else "are"
    return f"{' and '.join(parts)} {verb}"


def _was(parts: list[str]) -> str:
    return "it was" if parts in (["config"], ["tokenizer"]) else "they were"
