"""Folders that are either complete or not there: write aside, then rename.

A run that is killed, a full disk or a missing permission must not leave half an adapter
behind, nor damage the one that was there before.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from lorafit.errors import AdapterError, LorafitError
from lorafit.run import atomic
from lorafit.run.stage import settle, staging

FILE_ENDINGS = frozenset(
    {".bin", ".ckpt", ".gguf", ".h5", ".onnx", ".pt", ".pth", ".safetensors", ".tar", ".zip"}
)
"""Of files of weights: whoever types one does not expect a folder."""


def check_free(path: Path) -> None:
    """Refuses to write where something is already, before anything is computed.

    Raises:
        AdapterError: The path is a file, a folder that is not empty, or the name of a file.
    """
    if path.suffix.lower() in FILE_ENDINGS and not path.exists():
        gguf = " llama.cpp's convert_hf_to_gguf.py makes a GGUF file of a merged model's folder."
        raise AdapterError(
            f'"{path}" is a name for a file, but a folder is written, with model.safetensors or '
            f'adapter_model.safetensors in it. Give the name of a folder, such as "{path.stem}".'
            + (gguf if path.suffix.lower() == ".gguf" else "")
        )
    if path.is_dir() and any(path.iterdir()):
        raise AdapterError(f'"{path}" is not empty; give the name of a new folder.')
    if path.exists() and not path.is_dir():
        raise AdapterError(f'"{path}" is a file; give the name of a new folder.')


def copy_regular(source: Path, target: Path, names: Collection[str]) -> list[str]:
    """Copies files from a folder that may have come from anywhere into one that may be published.

    Args:
        source: Where they are.
        target: A folder that exists.
        names: Those that are wanted, where they are there.

    Returns:
        The names that were left behind: links and whatever else is no regular file.
    """
    left = []
    for name in sorted(names):
        try:
            # Opened without following a link, and asked afterwards: nothing can change between.
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            descriptor = os.open(source / name, flags)
        except FileNotFoundError:
            continue
        except OSError:
            left.append(name)
            continue
        with os.fdopen(descriptor, "rb") as file:
            linked = (source / name).is_symlink()  # where the system has no O_NOFOLLOW
            if linked or not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                left.append(name)
                continue
            with (target / name).open("xb") as copy:
                shutil.copyfileobj(file, copy)
    return left


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
        raise AdapterError(f'"{target}" is a file; give the name of a folder.')
    # Inside a folder that exists (its parent may be read-only), else beside it: a rename
    # is atomic only within one file system.
    parent = target if target.is_dir() else target.parent
    try:
        with staging(parent, target.name) as stage:
            yield stage
            settle(stage)
            if target.is_dir():
                for file in sorted(stage.iterdir(), key=lambda f: (f.name == last, f.name)):
                    file.replace(target / file.name)
            else:
                stage.replace(target)
            atomic.sync_folder(parent)
    except LorafitError:
        raise
    except Exception as error:
        failed = atomic.os_error(error)
        if failed is None:
            raise
        remedy = atomic.advice(failed) or "choose another folder or make room"
        raise AdapterError(
            f'cannot write "{target}": {failed.strerror or failed}. Nothing was changed there. '
            f"What to do: {remedy}."
        ) from error
