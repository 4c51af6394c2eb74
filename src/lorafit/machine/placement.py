"""Where a model computes: the device of torch that the setting ``device`` names."""

from __future__ import annotations

import torch
from accelerate import Accelerator, PartialState

from lorafit.config import known_device
from lorafit.errors import ConfigError, clause


def find_device(name: str = "auto") -> torch.device:
    """The device that a setting names, if it is there.

    Args:
        name: ``auto``: what accelerate chooses for this process (a GPU where torch finds one);
            ``cpu``, ``cuda`` (the current GPU), ``cuda:N`` or ``mps``.

    Raises:
        ConfigError: There is none of this name, or not on this machine; or several processes were
            started, which accelerate places.
    """
    try:
        known_device(name)
    except ValueError as error:
        raise ConfigError(f"{clause(error)}.") from None
    if name == "auto":
        own: torch.device = Accelerator().device
        return own
    if PartialState().num_processes > 1:
        raise ConfigError(
            f'the device is "{name}", but several processes were started: each has a device of '
            'its own. Leave it at "auto".'
        )
    missing = _missing(name)
    if missing:
        raise ConfigError(
            f'the device is "{name}", but {missing}. Choose "cpu", or "auto", which takes what '
            "there is."
        )
    return (
        torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else torch.device(name)
    )


def _missing(name: str) -> str:
    """Why a device cannot be used; empty: it can."""
    kind, _, number = name.partition(":")
    if kind == "mps" and not torch.backends.mps.is_available():
        built = torch.backends.mps.is_built()
        return "torch cannot use Apple's GPU here" if built else "torch is built without Apple MPS"
    if kind != "cuda":
        return ""
    if not torch.cuda.is_available():
        built = torch.backends.cuda.is_built()  # type: ignore[no-untyped-call]
        why = "finds no GPU that it can use" if built else "is built without CUDA"
        return f"torch {torch.__version__} {why}"
    there = torch.cuda.device_count()
    if number and int(number) >= there:
        last = f"cuda:{there - 1}"
        return f"there {'is one GPU, cuda:0' if there == 1 else f'are {there} GPUs, up to {last}'}"
    return ""
