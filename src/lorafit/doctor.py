"""What this machine is, and what about it would make training slow or fail.

Each check looks at one thing and returns findings: a fact and, where something is worth
doing, a warning with its fix. No check changes anything, and none raises: a broken
installation is what one calls the doctor for.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from lorafit.units import size

GIB = 1024**3
LOW_MEMORY = 2 * GIB
"""Below this, even a small model and its data will swap."""
LOW_DISK = GIB
"""Below this, checkpoints of a small model may not fit."""


@dataclass(frozen=True)
class Finding:
    """One fact about the machine.

    Attributes:
        what: What was looked at.
        found: What was found.
        warning: Why that is a problem; ``None`` if it is none.
        fix: What to do about it.
    """

    what: str
    found: str
    warning: str | None = None
    fix: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def examine(runs_dir: Path = Path("runs"), online: bool = False) -> list[Finding]:
    """Makes every check.

    Args:
        runs_dir: The folder whose disk is checked; it may be missing.
        online: Also ask the Hugging Face Hub for an answer; otherwise nothing is sent.
    """
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("versions", versions),
        ("processor", processor),
        ("threads", threads),
        ("accelerator", accelerator),
        ("memory", memory),
        ("disk", partial(disk, runs_dir)),
        ("hub", partial(hub, online)),
    ]
    findings: list[Finding] = []
    for name, check in checks:
        try:
            findings += check()
        except Exception as error:  # a broken package can raise anything
            message = str(error).strip().partition("\n")[0]
            findings.append(
                Finding(name, "unknown", f"{name}: {type(error).__name__}: {message}", None)
            )
    return findings


def versions() -> Iterator[Finding]:
    """Python and the required packages, against what lorafit asks for and was tested with."""
    yield Finding("python", platform.python_version())
    try:
        own, required = metadata.version("lorafit"), metadata.requires("lorafit") or []
    except metadata.PackageNotFoundError:
        yield Finding(
            "lorafit",
            "not installed",
            "lorafit runs from a folder without being installed; versions cannot be checked.",
            "Install it: pip install --editable .",
        )
        return
    yield Finding("lorafit", own)
    tested = tested_versions()
    for requirement in map(Requirement, required):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _package(requirement, tested.get(canonicalize_name(requirement.name)))


def _package(requirement: Requirement, tested: str | None) -> Finding:
    name = requirement.name
    try:
        version = Version(metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(
            name, "missing", f"{name} is not installed.", f'Install it: pip install "{requirement}"'
        )
    found = str(version) + (f" (tested with {tested})" if tested else "")
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(
            name,
            found,
            f"{name} {version} is outside what lorafit works with, {requirement.specifier}.",
            f'Install another: pip install "{requirement}"',
        )
    if tested and version.major > Version(tested).major:
        return Finding(
            name,
            found,
            f"{name} {version} is a newer major version than the tested {tested}.",
            f'If something breaks: pip install "{name}<{Version(tested).major + 1}"',
        )
    return Finding(name, found)


def tested_versions() -> dict[str, str]:
    """Package to version of ``constraints.txt``.

    In a checkout it stands two folders up; an installed package has it in its metadata.
    """
    checkout = Path(__file__).parents[2] / "constraints.txt"
    if checkout.is_file():
        text = checkout.read_text("utf-8")
    else:
        own = metadata.distribution("lorafit")
        text = own.read_text("extra_metadata/constraints.txt") or ""
    pairs = re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pairs}


def processor() -> Iterator[Finding]:
    """The processor and whether it computes bfloat16 itself."""
    import torch

    from lorafit.hardware import bf16_flags

    name = _processor_name()
    capability = torch.backends.cpu.get_cpu_capability()
    yield Finding("processor", f"{name or platform.machine()} ({capability})")
    if capability in ("DEFAULT", "NO AVX"):
        yield Finding(
            "vector units",
            "none used",
            "torch uses no vector instructions on this processor: training will be very slow.",
            "Check that torch is built for this processor, and that ATEN_CPU_CAPABILITY is unset.",
        )
    native = bf16_flags()
    if native:
        yield Finding("bfloat16", f"in hardware ({', '.join(native)}): used by default")
    else:
        yield Finding("bfloat16", "emulated, slower than float32: not used by default")


def _processor_name() -> str:
    """Name of the processor; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor()
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return name[1] if name else ""


def threads() -> Iterator[Finding]:
    """Threads against the cores this process may use."""
    import torch

    cores, used = usable_cores(), torch.get_num_threads()
    omp = os.environ.get("OMP_NUM_THREADS")
    found = f"{used} on {cores} usable cores" + (f", OMP_NUM_THREADS={omp}" if omp else "")
    if used > cores:
        yield Finding(
            "threads",
            found,
            f"torch starts {used} threads on {cores} cores: they will wait for one another.",
            f"Set OMP_NUM_THREADS={cores}.",
        )
    elif used < cores:
        fix = "Unset OMP_NUM_THREADS, or set it" if omp else "Set OMP_NUM_THREADS"
        yield Finding(
            "threads",
            found,
            f"torch uses {used} of {cores} cores.",
            f"{fix} to the number of physical cores, unless other programs need them.",
        )
    else:
        yield Finding("threads", found)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = f"{load:.1f} processes running on average over the last minute"
    if load > cores + 0.5:
        yield Finding(
            "load", busy, "other programs use the cores too: training will be slower.", None
        )
    else:
        yield Finding("load", busy)


def usable_cores() -> int:
    """Cores this process may use: its affinity, and a container's share of time."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("utf-8").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def accelerator() -> Iterator[Finding]:
    """Graphics processors, and whether torch can use them."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield Finding(f"GPU {index}", f"{properties.name}, {size(properties.total_memory)}")
    elif torch.backends.mps.is_available():
        yield Finding("GPU", "Apple MPS")
    elif Path("/dev/nvidia0").exists():
        yield Finding(
            "GPU",
            "present, not used",
            f"there is an NVIDIA GPU, but torch {torch.__version__} cannot use it.",
            "Install a CUDA build of torch (see pytorch.org), or update the driver.",
        )
    else:
        yield Finding("GPU", "none; training runs on the processor")


def memory() -> Iterator[Finding]:
    """Memory in all and free."""
    state = psutil.virtual_memory()
    found = f"{size(state.available)} free of {size(state.total)}"
    if state.available < LOW_MEMORY:
        yield Finding(
            "memory",
            found,
            f"only {size(state.available)} of memory are free.",
            "Close other programs, or use a smaller --batch-size or --max-length.",
        )
    else:
        yield Finding("memory", found)


def disk(runs_dir: Path) -> Iterator[Finding]:
    """Space and permission where the runs go."""
    folder = runs_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f'{size(free)} free for "{runs_dir}"'
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        yield Finding(
            "disk",
            found,
            f'"{runs_dir}" cannot be written: "{folder}" is no folder of yours.',
            "Choose another with --runs-dir.",
        )
    elif free < LOW_DISK:
        yield Finding(
            "disk", found, f'only {size(free)} are free for "{runs_dir}".', "Make some room."
        )
    else:
        yield Finding("disk", found)


def hub(online: bool) -> Iterator[Finding]:
    """Whether models can be fetched from the Hugging Face Hub."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        found = "offline (HF_HUB_OFFLINE): cached and local models only"
        if online:
            yield Finding(
                "hub",
                found,
                "HF_HUB_OFFLINE is set: nothing is fetched from the Hub.",
                "Unset it.",
            )
        else:
            yield Finding("hub", found)
    elif not online:
        yield Finding("hub", "not asked (--online asks)")
    else:
        yield _ask(constants.ENDPOINT)


def _ask(endpoint: str) -> Finding:
    """Whether a server answers within five seconds."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    try:
        with urlopen(Request(endpoint, method="HEAD"), timeout=5):
            return Finding("hub", f"{endpoint} answers")
    except HTTPError as error:
        return Finding("hub", f"{endpoint} answers ({error.code})")
    except (OSError, ValueError) as error:
        return Finding(
            "hub",
            "no answer",
            f"{endpoint} does not answer: {error}.",
            "Check the connection and proxy, or work with local models and HF_HUB_OFFLINE=1.",
        )
