"""Whether data and base model are what a run began with: digests of both."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    if not (run.path / "environment.json").is_file():
        return
    known = run.environment.get("data", {})
    changed = [name for name, now in fingerprint(splits).items() if known.get(name, now) != now]
    if changed:
        raise DataError(
            f'the data of "{run.path}" changed since it began: {" and ".join(changed)} '
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
    if not (run.path / "environment.json").is_file():
        return
    changed = identity.changed(_identity(run.environment), now)
    if changed:
        raise ModelError(
            f'the base model of "{run.path}" changed since it began: its {_listed(changed)} not '
            f'what {_was(changed)} ("{name}"). Bring the old files back to resume it, or start a '
            "new run."
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
