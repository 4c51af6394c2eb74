"""Writing files so that a crash, a full disk or a second process never leaves half of one.

A file is written under a temporary name beside its target, flushed to the disk and then
renamed: readers see the old content or the new one, nothing in between.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafit import regular
from lorafit.errors import LorafitError, RunError
from lorafit.evidence.json import parsed

if TYPE_CHECKING:
    from torch import Tensor

TEMPORARY = ".tmp-"
"""Prefix of unfinished files and folders: never read, safe to delete."""

_ADVICE = {
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some of your disk quota",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "choose a folder you may write to",
    errno.EEXIST: "a file is in the way; choose another folder",
    errno.ENOTDIR: "a file is in the way; choose another folder",
}


_REPORTED = re.compile(r"\(os error (\d+)\)")


def os_error(error: BaseException) -> OSError | None:
    """The failed call of the operating system that an exception tells of; ``None``: of none.

    Libraries in Rust (safetensors, tokenizers) raise exceptions of their own, with the cause as
    text: ``... No space left on device (os error 28)``.
    """
    if isinstance(error, OSError):
        return error
    found = _REPORTED.search(str(error))
    return None if found is None else OSError(int(found[1]), os.strerror(int(found[1])))


def advice(error: OSError) -> str:
    """What to do about a failed write; ``""``: not known."""
    return _ADVICE.get(error.errno or 0, "")


@contextlib.contextmanager
def writing(path: Path, what: str, next_step: str = "") -> Iterator[None]:
    """Turns a failed write inside the block into one clear error.

    Args:
        path: Where the block writes; named in the message.
        what: What is written, e.g. ``"the checkpoint"``.
        next_step: What to say after the cause; ``""``: advice made from the error code.

    Raises:
        RunError: The disk is full, permission is missing, or another `OSError` occurred.
    """
    try:
        yield
    except LorafitError:
        raise
    except Exception as error:
        failed = os_error(error)
        if failed is None:
            raise
        cause = failed.strerror or str(failed)
        hint = "; ".join(part for part in (advice(failed), next_step) if part)
        raise RunError(
            f'cannot write {what} to "{path}": {cause}.' + (f" What to do: {hint}." if hint else "")
        ) from error


def refuse_links(folder: Path) -> None:
    """Refuses to work in a folder in which a name stands for something outside of it.

    A folder that came from somewhere else could have files written to wherever its links point.

    Raises:
        RunError: There is a symbolic link.
    """
    for entry in folder.rglob("*"):
        if entry.is_symlink():
            raise RunError(
                f'"{entry}" is a link to "{entry.readlink()}". Only files in the folder itself '
                "are written; put what it points to in its place."
            )


def sync_file(path: Path) -> None:
    """Waits until the content of a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk (where folders can be opened)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def new_file_mode(folder: Path) -> int:
    """The permissions that a new file in a folder gets by the user's umask."""
    probe = folder / f"{TEMPORARY}mode-{secrets.token_hex(4)}"
    try:
        probe.touch()
        return stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink(missing_ok=True)


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Writes a safetensors file and waits until it is on the disk.

    It gets the permissions of any new file; safetensors itself makes private ones.

    Args:
        path: The file.
        tensors: By name; contiguous, and no two of the same memory.
        metadata: For the file's header.

    Raises:
        OSError: It cannot be written.
    """
    # Here: what only reads run folders loads no torch.
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        save_file(dict(tensors), path, metadata=metadata)
    except SafetensorError as error:
        raise os_error(error) or OSError(str(error)) from error
    path.chmod(mode)
    sync_file(path)


def unfinished(folder: Path) -> list[Path]:
    """What killed processes left in a folder; none where there is no folder."""
    return sorted(folder.glob(f"{TEMPORARY}*")) if folder.is_dir() else []


def remove(paths: Iterable[Path]) -> list[str]:
    """Removes files and folders in which nobody else writes now; what cannot be removed stays.

    Returns:
        The names of what is gone.
    """
    gone = []
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
        if not os.path.lexists(path):
            gone.append(path.name)
    return gone


def write_text(path: Path, text: str, what: str | None = None, next_step: str = "") -> None:
    """Writes a UTF-8 file atomically.

    Args:
        path: The file.
        text: Its content.
        what: As of `writing`; ``None``: the file's name.
        next_step: As of `writing`.

    Raises:
        RunError: The file cannot be written; what was there before is untouched.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{secrets.token_hex(4)}")
    with writing(path, what or path.name, next_step):
        try:
            with temporary.open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def plain_json(value: Any, indent: int | None = None, *, escaped: bool = False) -> str:
    """JSON text of values that may hold numbers that are not finite: JSON has none, ``null``.

    Args:
        value: JSON values.
        indent: Spaces a level; ``None``: one line.
        escaped: Characters beyond ASCII as their escapes.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False, ensure_ascii=escaped)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any, what: str | None = None) -> None:
    """Writes a JSON file atomically; NaN and infinity are refused because JSON has neither.

    Raises:
        RunError: The file cannot be written.
        ValueError: The value holds a number that is not finite.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n", what)


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        RunError: The file is missing or is not JSON.
    """
    try:
        return parsed(regular.read_text(path))
    except FileNotFoundError as error:
        raise RunError(f'there is no "{path}"') from error
    except (OSError, ValueError) as error:
        raise RunError(f'cannot read "{path}": {error}') from error
