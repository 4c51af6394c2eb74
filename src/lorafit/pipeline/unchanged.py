"""Whether data is what a run began with: the hash of each split."""

from __future__ import annotations

from collections.abc import Mapping

from datasets import Dataset

from lorafit.data.fingerprint import fingerprint
from lorafit.errors import DataError
from lorafit.run import Run


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
