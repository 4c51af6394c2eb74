"""Folders that are either complete or not there: write aside, then rename.

A run that is killed, a full disk or a missing permission must not leave half an adapter
behind, nor damage the one that was there before.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from lorafit.errors import AdapterError


@contextmanager
def staged(path: str | os.PathLike[str], last: str | None = None) -> Iterator[Path]:
    """Opens an empty folder whose files appear at ``path`` when the block ends well.

    Where ``path`` does not exist yet, the whole folder appears at once. Where it does
    (a trainer's checkpoint with other files in it), the new files take the place of the
    old ones one by one, each atomically, after all of them are on the disk.

    Args:
        path: The folder to write.
        last: The file that is moved last into a folder that exists.

    Raises:
        AdapterError: The folder cannot be written; what was there is unchanged.
    """
    target = Path(path)
    if target.exists() and not target.is_dir():
        raise AdapterError(f"{target} is a file; give the name of a folder.")
    # Inside a folder that exists (its parent may be read-only), else beside it: a rename
    # is atomic only within one file system.
    parent = target if target.is_dir() else target.parent
    stage = parent / f".{target.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        stage.mkdir(parents=True)
        yield stage
        for file in stage.rglob("*"):
            _sync(file)
        if target.is_dir():
            for file in sorted(stage.iterdir(), key=lambda f: (f.name == last, f.name)):
                os.replace(file, target / file.name)
        else:
            os.replace(stage, target)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AdapterError(
            f"cannot write {target}: {reason}. Nothing was changed there; "
            "choose another folder or make room."
        ) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _sync(file: Path) -> None:
    """Waits until a file's contents are on the disk, so that the rename cannot overtake them."""
    if not file.is_file():
        return
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
