"""Limits that a container or a service manager sets (Linux control groups, version 1 and 2).

A limit holds for a group and everything below it, so the smallest on the way from the
process's own group up to the root is the one that counts. Where the groups above are hidden
(a container with a namespace of its own), the root that is seen is the container's group.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
_MOUNT = Path("sys/fs/cgroup")
UNLIMITED = 1 << 60
"""Version 1 writes "no limit" as a number: the largest multiple of a page below 2**63."""


def cpu_quota(root: Path = ROOT) -> float | None:
    """Processors' worth of time that this process may use; ``None``: as much as there is.

    Args:
        root: Where the file system begins.
    """
    shares = [share for folder in _groups("cpu", root) if (share := _share(folder)) is not None]
    return min(shares, default=None)


def _share(folder: Path) -> float | None:
    """Processors' worth of time of one group."""
    words = (_read(folder / "cpu.max") or "").split()
    if len(words) != 2:
        words = [_read(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
    quota, period = map(_number, words)
    if quota is None or period is None or quota <= 0 or period <= 0:
        return None
    return quota / period


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes that this process and those beside it may use together; ``None``: no limit."""
    return min((limit for limit, _ in _memory(root)), default=None)


def memory_left(root: Path = ROOT) -> int | None:
    """Bytes up to the nearest limit; ``None``: there is none.

    What the kernel only caches (inactive file pages) counts as free, because it gives that up.
    """
    return min((max(limit - used, 0) for limit, used in _memory(root)), default=None)


def _memory(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of each group that has a limit, in bytes."""
    for folder in _groups("memory", root):
        for limit_file, used_file, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit = _number(_read(folder / limit_file))
            if limit is not None and 0 < limit < UNLIMITED:
                used = _number(_read(folder / used_file)) or 0
                yield limit, used - _stat(folder / "memory.stat", cached)


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of this process's groups that a controller limits, the innermost first."""
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":  # version 2: one tree for all
            mounts = [_MOUNT, _MOUNT / "unified"]
        elif controller in controllers.split(","):
            mounts = [_MOUNT / controllers, _MOUNT / controller]
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        for mount in mounts:
            if (root / mount).is_dir():
                yield from (root / mount / group for group in (inside, *inside.parents))
                break


def _stat(file: Path, name: str) -> int:
    for line in (_read(file) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return _number(value) or 0
    return 0


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _number(text: str | None) -> int | None:
    """The whole number a file holds; ``None`` for ``max`` and whatever else is none."""
    try:
        return int(text or "")
    except ValueError:
        return None
