"""The files that arms leave, each with a digest: a changed one would be another result, unseen.

``seed-0.json`` has its own digest (`lorafit.run.digest`) and that of ``seed-0.npz``, and so has
every pair of files of one name. The JSON is written last: what it tells of is done once it is
there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np

from lorafit.errors import RunError
from lorafit.evidence.json import Json
from lorafit.run import atomic, digest

ARRAYS = "arrays_sha256"
"""Entry for the digest of the arrays; ``None``: there are none."""


def write(
    file: Path, values: Mapping[str, object], arrays: Mapping[str, np.ndarray] | None = None
) -> None:
    """Writes a record into an arm's folder.

    Args:
        file: ``.json``, in the arm's folder.
        values: JSON values.
        arrays: Written beside it, as ``.npz``.

    Raises:
        RunError: It cannot be written.
    """
    sha256 = None
    if arrays is not None:
        target = file.with_suffix(".npz")
        part = target.with_name(f"{atomic.TEMPORARY}{target.name}")
        with atomic.writing(target, "the comparison"):
            np.savez(part, allow_pickle=False, **arrays)
            atomic.sync_file(part)
            sha256 = digest.of_file(part)
            part.replace(target)
    atomic.write_json(file, digest.sealed({**values, "name": _name(file), ARRAYS: sha256}))


def read(file: Path) -> Json:
    """The values of a record, as they were written.

    Raises:
        RunError: It is missing, is not what was written, or belongs to another arm.
    """
    try:
        values = atomic.read_json(file)
        if digest.of_values(values) != values[digest.CONTENT] or values["name"] != _name(file):
            raise _damaged(file)
    except (RunError, AttributeError, KeyError, TypeError) as error:
        raise _damaged(file) from error
    return cast("Json", values)


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a record.

    Args:
        file: As of `write`.

    Raises:
        RunError: They, or the record, are missing or are not what was written.
    """
    sha256, target = read(file)[ARRAYS], file.with_suffix(".npz")
    try:
        if digest.of_file(target) != sha256:
            raise _damaged(target)
    except OSError as error:
        raise _damaged(target) from error
    with np.load(target, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _name(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


def _damaged(file: Path) -> RunError:
    return RunError(
        f'"{file}" is damaged: it is not what lorafit compare wrote there. Delete the folder '
        f'"{file.parent}", and the same command measures that method again.'
    )
