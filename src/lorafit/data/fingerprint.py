"""Whether two runs saw the same data: a hash of each split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from datasets import Dataset

from lorafit.evidence.comparison import Rows


def fingerprint(splits: Mapping[str, Dataset]) -> dict[str, Rows]:
    """Rows and a hash of each split: whether two runs saw the same data."""
    return {name: {"rows": len(rows), "sha256": _hash(rows)} for name, rows in splits.items()}


def _hash(rows: Dataset) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    return digest.hexdigest()
