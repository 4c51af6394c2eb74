"""Limits of control groups, on trees of files such as Linux shows."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from lorafit.machine import cgroup
from lorafit.machine.memory import memory


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return root


def test_version_2_takes_the_smallest_limit_up_to_the_root(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000",
            "sys/fs/cgroup/a/cpu.max": "150000 100000",
            "sys/fs/cgroup/a/b/memory.max": "8000",
            "sys/fs/cgroup/a/b/memory.current": "3000",
            "sys/fs/cgroup/a/b/memory.stat": "anon 2000\ninactive_file 500",
            "sys/fs/cgroup/a/memory.max": "6000",
            "sys/fs/cgroup/a/memory.current": "5000",
        },
    )
    assert cgroup.cpu_quota(root) == 1.5
    assert cgroup.memory_limit(root) == 6000
    assert cgroup.memory_left(root) == 1000


def test_version_1_reads_each_controllers_tree(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n1:name=systemd:/",
            # In a container its own group is the root of what is seen.
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "4096",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "5000",
            "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 1000",
        },
    )
    assert cgroup.cpu_quota(root) == 0.5
    assert cgroup.memory_limit(root) == 4096
    assert cgroup.memory_left(root) == 96


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"},
        {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "max"},
        {"proc/self/cgroup": "damaged", "sys/fs/cgroup/cpu.max": "1 2"},
        {
            "proc/self/cgroup": "2:cpu:/\n1:memory:/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        },
    ],
)
def test_no_limit_is_none(tmp_path: Path, files: dict[str, str]) -> None:
    root = write(tmp_path, files)
    assert cgroup.cpu_quota(root) is None
    assert cgroup.memory_limit(root) is None
    assert cgroup.memory_left(root) is None


def test_a_containers_limit_is_the_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "memory_limit", lambda: 2**30)
    monkeypatch.setattr(cgroup, "memory_left", lambda: 2**20)
    assert (memory().total, memory().available) == (2**30, 2**20)
    monkeypatch.setattr(cgroup, "memory_limit", lambda: None)
    monkeypatch.setattr(cgroup, "memory_left", lambda: None)
    assert memory().total == psutil.virtual_memory().total
