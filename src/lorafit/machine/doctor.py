"""What this machine is, and what about it would make training slow or fail.

Each check looks at one thing and returns findings: a fact and, where something is worth
doing, a warning with its fix. No check changes anything, and none raises: a broken
installation is what one calls the doctor for.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal, TypedDict

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from lorafit.errors import clause
from lorafit.machine import memory as memories
from lorafit.machine import processor as processors
from lorafit.units import size

GIB = 1024**3
PATIENCE = 120
"""Seconds after which torch is taken to hang; importing it takes a few."""
LOW_MEMORY = 2 * GIB
"""Below this, even a small model and its data will swap."""
LOW_DISK = GIB
"""Below this, checkpoints of a small model may not fit."""
NVIDIA = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")
"""Device files of NVIDIA's driver; the last one is Windows' subsystem for Linux."""


@dataclass(frozen=True)
class Finding:
    """One fact about the machine.

    Attributes:
        what: What was looked at.
        found: What was found.
        warning: Why that is a problem; ``None`` if it is none.
        fix: What to do about it.
        kind: ``fact`` about the machine, or the ``version`` of a package.
    """

    what: str
    found: str
    warning: str | None = None
    fix: str | None = None
    kind: Literal["fact", "version"] = "fact"

    @property
    def is_version(self) -> bool:
        """Whether it says what is installed."""
        return self.kind == "version"

    def to_dict(self) -> dict[str, object]:
        """JSON values."""
        return asdict(self)


def examine(
    runs_dir: Path = Path("runs"), online: bool = False, load: bool = False
) -> list[Finding]:
    """Makes every check.

    Nothing heavy is imported here: what only torch knows is asked of it in another process,
    where something hints at a GPU, or for ``load``.

    Args:
        runs_dir: The folder whose disk is checked; it may be missing.
        online: Also ask the Hugging Face Hub for an answer; otherwise nothing is sent.
        load: Also see whether torch and transformers can be imported.
    """
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("versions", versions),
        ("processor", processor),
        ("threads", threads),
        ("accelerator", partial(accelerator, load)),
        ("imports", partial(imports, load)),
        ("memory", memory),
        ("disk", partial(disk, runs_dir)),
        ("hub", partial(hub, online)),
    ]
    findings: list[Finding] = []
    for name, check in checks:
        try:
            findings += check()
        except Exception as error:  # noqa: BLE001 a broken package can raise anything
            message = str(error).strip().partition("\n")[0]
            findings.append(
                Finding(name, "unknown", f"{name}: {type(error).__name__}: {message}", None)
            )
    return findings


def versions() -> Iterator[Finding]:
    """Python and the required packages, against what lorafit asks for and was tested with."""
    yield Finding("python", platform.python_version(), kind="version")
    try:
        own, required = metadata.version("lorafit"), metadata.requires("lorafit") or []
    except metadata.PackageNotFoundError:
        yield Finding(
            "lorafit",
            "not installed",
            "lorafit runs from a folder without being installed; versions cannot be checked.",
            "Install it: pip install --editable .",
            "version",
        )
        return
    yield Finding("lorafit", own, kind="version")
    tested = tested_versions()
    for requirement in map(Requirement, required):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield package(requirement, tested.get(canonicalize_name(requirement.name)))


def package(requirement: Requirement, tested: str | None) -> Finding:
    """An installed package against the versions asked for and the one tested with."""
    name = requirement.name
    try:
        version = Version(metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(
            name,
            "missing",
            f"{name} is not installed.",
            f'Install it: pip install "{requirement}"',
            "version",
        )
    found = str(version) + (f" (tested with {tested})" if tested else "")
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(
            name,
            found,
            f"{name} {version} is outside what lorafit works with, {requirement.specifier}.",
            f'Install another: pip install "{requirement}"',
            "version",
        )
    if tested and version.major > Version(tested).major:
        return Finding(
            name,
            found,
            f"{name} {version} is a newer major version than the tested {tested}.",
            f'If something breaks: pip install "{name}<{Version(tested).major + 1}"',
            "version",
        )
    return Finding(name, found, kind="version")


def tested_versions() -> dict[str, str]:
    """Package to version of ``constraints.txt``.

    In a checkout it stands beside ``src``; an installed package has it in its metadata.
    """
    checkout = Path(__file__).parents[3] / "constraints.txt"
    if checkout.is_file():
        text = checkout.read_text("utf-8")
    else:
        own = metadata.distribution("lorafit")
        text = own.read_text("extra_metadata/constraints.txt") or ""
    pairs = re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pairs}


def processor() -> Iterator[Finding]:
    """The processor and whether it computes bfloat16 itself."""
    own = processors.processor()
    capability = processors.vector_units()
    shown = f" ({capability})" if capability else ""
    yield Finding("processor", f"{own.name or platform.machine()}{shown}")
    if capability == "DEFAULT":
        yield Finding(
            "vector units",
            "none used",
            "torch uses no vector instructions on this processor: training will be very slow.",
            "Check that torch is built for this processor, and that ATEN_CPU_CAPABILITY is unset.",
        )
    if own.bf16:
        yield Finding("bfloat16", f"in hardware ({', '.join(own.bf16)}): used by default")
    else:
        yield Finding("bfloat16", "emulated, slower than float32: not used by default")


def threads() -> Iterator[Finding]:
    """Threads against the cores this process may use."""
    cores, used = processors.usable_cores(), processors.expected_threads()
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


def accelerator(ask: bool = False, devices: Sequence[str] = NVIDIA) -> Iterator[Finding]:
    """Graphics processors, and whether torch can use them.

    Args:
        ask: Import torch (in another process) even if nothing hints at a GPU.
        devices: Files that are there where NVIDIA's driver is.
    """
    nvidia = any(Path(name).exists() for name in devices) or shutil.which("nvidia-smi") is not None
    others = sys.platform == "darwin" or Path("/dev/kfd").exists()
    if not (ask or nvidia or others):
        yield Finding("GPU", "none; training runs on the processor")
        yield _device("cpu")
        return
    said = ask_torch()
    for index, (name, n_bytes) in enumerate(said["gpus"]):
        yield Finding(f"GPU {index}", f"{name}, {size(n_bytes)}")
    if said["gpus"]:
        further = "".join(f", cuda:{index}" for index in range(1, len(said["gpus"])))
        yield _device("cuda:0", f"{further}, cpu")
        return
    if said["mps"]:
        yield Finding("GPU", "Apple MPS")
        yield _device("mps", ", cpu")
        return
    if nvidia:
        yield Finding(
            "GPU",
            "present, not used",
            f"there is an NVIDIA GPU, but torch {said['version']} cannot use it.",
            "Install a CUDA build of torch (see pytorch.org), or update the driver.",
        )
    else:
        yield Finding("GPU", "none; training runs on the processor")
    yield _device("cpu")


def _device(auto: str, others: str = "") -> Finding:
    """What ``--device`` can be, and what it is by itself."""
    if auto != "cpu" and os.environ.get("ACCELERATE_USE_CPU", "").lower() in _TRUE:
        auto, others = "cpu", ""  # accelerate then leaves GPUs alone
    choice = f"; --device can be {auto}{others}" if others else ""
    return Finding("device", f"{auto} (what --device auto takes{choice})")


_TRUE = ("y", "yes", "t", "true", "on", "1")
"""How accelerate spells yes in the environment."""


_QUESTION = """
import json, torch, transformers
cuda = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
found = [torch.cuda.get_device_properties(index) for index in cuda]
print(json.dumps({
    "version": torch.__version__,
    "gpus": [(one.name, one.total_memory) for one in found],
    "mps": torch.backends.mps.is_available(),
    "threads": torch.get_num_threads(),
    "capability": torch.backends.cpu.get_cpu_capability(),
}))
"""


class Torch(TypedDict):
    """What torch says of this machine.

    Attributes:
        version: Of torch.
        gpus: Name and bytes of memory of each.
        mps: Whether there is Apple's GPU.
        threads: It would compute with.
        capability: Instructions of the processor, as torch calls them.
    """

    version: str
    gpus: list[tuple[str, int]]
    mps: bool
    threads: int
    capability: str


@functools.cache
def ask_torch() -> Torch:
    """What torch says of this machine, asked in a process of its own.

    Raises:
        ImportError: torch or transformers cannot be imported.
        subprocess.TimeoutExpired: There is no answer within `PATIENCE`: a driver may hang.
    """
    answer = subprocess.run(
        [sys.executable, "-c", _QUESTION],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    if answer.returncode:
        lines = answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"]
        raise ImportError(f"torch and transformers cannot be imported: {lines[-1]}")
    said: Torch = json.loads(answer.stdout.splitlines()[-1])
    return said


def imports(load: bool) -> Iterator[Finding]:
    """Whether torch and transformers can be imported, and what torch would compute with."""
    if not load:
        yield Finding("imports", "not tried (--load imports torch and transformers)")
        return
    said = ask_torch()
    found = f"torch and transformers work; {said['threads']} threads, {said['capability']}"
    yield Finding("imports", found)


def memory() -> Iterator[Finding]:
    """Memory in all and free: the machine's, or its container's where that is less."""
    state = memories.memory()
    found = f"{size(state.available)} free of {size(state.total)}"
    if state.available < LOW_MEMORY:
        yield Finding(
            "memory",
            found,
            f"only {size(state.available)} of memory is free.",
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
            f'"{runs_dir}" cannot be written: you have no permission to write to "{folder}".',
            "Choose another with --runs-dir.",
        )
    elif free < LOW_DISK:
        yield Finding(
            "disk", found, f'only {size(free)} is free for "{runs_dir}".', "Make some room."
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
            f"{endpoint} does not answer: {clause(error)}.",
            "Check the connection and proxy, or work with local models and HF_HUB_OFFLINE=1.",
        )
