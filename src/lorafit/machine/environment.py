"""What is noted of the machine and the packages that a run ran with: ``environment.json``."""

from __future__ import annotations

# pydantic reads this one; on Python 3.11 not typing's.
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict


@with_config(ConfigDict(extra="allow"))
class Environment(TypedDict, total=False):
    """What a process ran on.

    Attributes:
        command: The command line, as a shell takes it.
        python: Version of Python.
        platform: Operating system and architecture.
        versions: Of packages; ``None``: not installed.
        cpu: Name of the processor.
        cpu_capability: Its instructions, as torch calls them.
        cores: That this process may use.
        memory_bytes: That this process may use.
        gpus: Their names.
        threads: Of torch, and the variables that set how many.
    """

    command: str | None
    python: str
    platform: str
    versions: dict[str, str | None]
    cpu: str
    cpu_capability: str
    cores: int
    memory_bytes: int
    gpus: list[str]
    threads: dict[str, int | str]
