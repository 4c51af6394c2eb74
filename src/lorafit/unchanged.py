"""Whether data is what a run began with: the hash of each split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from datasets import Dataset

from lorafit.errors import DataError
from lorafit.run import Run


def fingerprint(splits: Mapping[str, Dataset]) -> dict[str, Any]:
    """Rows and a hash of each split: whether two runs saw the same data."""
    return {name: {"rows": len(rows), "sha256": _hash(rows)} for name, rows in splits.items()}


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


def _hash(rows: Dataset) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    return digest.hexdigest()
