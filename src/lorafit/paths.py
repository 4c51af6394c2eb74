"""What a name given for a model or a data set points to.

A name is one of three things, tried in this order:

1. ``package:NAME/path``: a file or folder shipped inside an installed Python package.
   The package is located, never imported, and the path cannot leave its folder.
2. An existing local path (``~`` is expanded).
3. Otherwise it may be an id on the Hugging Face Hub, and the answer is ``None``,
   unless it can only have been meant as a path: then the missing path is an error.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
from pathlib import Path, PurePosixPath

from lorafit.errors import DataError, LorafitError, clause, did_you_mean

PACKAGE_PREFIX = "package:"

COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")
FILE_SUFFIXES = (
    *(".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather", ".txt"),
    *(".safetensors", ".gguf", ".pt", ".pkl", ".xlsx", *COMPRESSED_SUFFIXES),
)
"""A name that ends in one of these is meant as a file, not as a Hub id."""

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def resolve(name: str | Path, error: type[LorafitError] = DataError) -> Path | None:
    """Returns the local path a name stands for, or ``None`` if it looks like a Hub id.

    Args:
        name: ``package:NAME/path``, a local path, or a Hub id.
        error: The class of error to raise, so that the model loader can raise its own.

    Raises:
        LorafitError: (of class ``error``) The package is not installed, the path does not
            exist, or it points outside the package.
    """
    text = os.fspath(name)
    if not text.strip():
        raise error('got an empty name. Give a path, a Hub id, or "package:NAME/path".')
    if "\0" in text:
        raise error(f"a path cannot contain a NUL character: {text!r}.")
    if text.startswith(PACKAGE_PREFIX):
        return _in_package(text, error)
    try:
        path = Path(text).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError) as reason:  # no permission, name too long, no such user
        raise error(f'cannot look at "{text}": {clause(reason)}.') from reason
    if isinstance(name, Path) or _means_a_path(text):
        raise error(_missing(path, text))
    return None


def _means_a_path(text: str) -> bool:
    """Whether a name that does not exist can only have been meant as a path."""
    return (
        text.startswith((".", "/", "~"))
        or text.endswith("/")
        or text.lower().endswith(FILE_SUFFIXES)
        or not _HUB_ID.fullmatch(text)
    )


def _missing(path: Path, text: str) -> str:
    """The message for a path that does not exist: which part is missing, and what is near."""
    parent = path.parent
    while not parent.exists() and parent != parent.parent:
        path, parent = parent, parent.parent
    if not parent.is_dir():
        return f'"{text}" does not exist: "{parent}" is a file, not a folder.'
    where = "the current folder" if str(parent) == "." else f'"{parent}"'
    return f'"{text}" does not exist: {where} has no "{path.name}".' + _near(path.name, parent)


def _near(name: str, folder: Path) -> str:
    """`` Did you mean ...?`` over the names in a folder, or a short list of them."""
    try:
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as reason:
        return f" It cannot be listed: {reason.strerror}."
    close = did_you_mean(name, names)
    if close or not names:
        return close or " It is empty."
    shown = ", ".join(names[:8])
    return f" It has {shown}{f' and {len(names) - 8} more' if len(names) > 8 else ''}."


def _in_package(text: str, error: type[LorafitError]) -> Path:
    """The path behind ``package:NAME/path``."""
    package, _, inside = text.removeprefix(PACKAGE_PREFIX).partition("/")
    parts = PurePosixPath(inside).parts
    if not package:
        raise error(f'"{text}" names no package. Write "package:NAME/path/in/package".')
    if ".." in parts or inside.startswith("/"):
        raise error(f'"{text}" leaves the package. Give a path inside it, without "..".')
    roots = [Path(root).resolve() for root in _package_folders(package, error)]
    for root in roots:
        path = root.joinpath(*parts)
        if path.exists():
            _stays_inside(path, root, text, error)
            return path.resolve()
    nearest, missing = roots[0], inside
    for part in parts:
        if not (nearest / part).exists():
            missing = part
            break
        nearest = nearest / part
    if not nearest.is_dir():
        raise error(f'"{text}" does not exist: "{nearest.name}" is a file, not a folder.')
    inner = nearest.relative_to(roots[0]).as_posix()
    folder = f'package "{package}"' if inner == "." else f'"{inner}" of package "{package}"'
    raise error(f'"{text}" does not exist: {folder} has no "{missing}".' + _near(missing, nearest))


def _stays_inside(path: Path, root: Path, text: str, error: type[LorafitError]) -> None:
    """Refuses symbolic links that lead out of the package, also below a folder."""
    inside = [path]
    if path.is_dir():
        for folder, folders, files in os.walk(path):
            entries = [Path(folder, name) for name in (*folders, *files)]
            inside.extend(entry for entry in entries if entry.is_symlink())
    for entry in inside:
        if not entry.resolve().is_relative_to(root):
            raise error(f'"{text}" leaves the package: "{entry.name}" is a link to outside of it.')


def _package_folders(package: str, error: type[LorafitError]) -> list[str]:
    """The folders of a top-level package, found without importing it."""
    module = package.replace("-", "_")
    if not module.isidentifier():
        raise error(
            f'"{package}" is not the name of a package. Write "package:NAME/path/in/package", '
            "with the top-level name only."
        )
    spec = _find(module)
    if spec is None:
        # A distribution may be called otherwise than the module it installs.
        installed = importlib.metadata.packages_distributions()
        owned = sorted(
            name
            for name, distributions in installed.items()
            if name.isidentifier()
            and any(_same_project(package, distribution) for distribution in distributions)
        )
        spec = next((found for name in owned if (found := _find(name)) is not None), None)
        if spec is None:
            names = [name for name in installed if not name.startswith("_")]
            raise error(
                f'package "{package}" is not installed.{did_you_mean(module, names)} '
                f"To install it: pip install {package}"
            )
    if not spec.submodule_search_locations:
        raise error(f'package "{package}" is a single module and ships no files.')
    folders = [folder for folder in spec.submodule_search_locations if Path(folder).is_dir()]
    if not folders:
        raise error(f'package "{package}" is not installed as a folder; its files cannot be read.')
    return folders


def _find(module: str) -> importlib.machinery.ModuleSpec | None:
    """The spec of a top-level module; looking for one with no dots imports nothing."""
    try:
        return importlib.util.find_spec(module)
    except (ValueError, ImportError):  # a module such as __main__ has no spec
        return None


def _same_project(one: str, other: str) -> bool:
    """Whether two distribution names are the same to pip (PEP 503)."""

    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    return normal(one) == normal(other)
