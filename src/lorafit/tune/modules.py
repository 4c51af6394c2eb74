"""Which target modules earn their place: how much their update changes what passes through.

The energy of a site is the mean of ``|s B A x|^2`` over real tokens (LoRA-drop, Zhou et al.
2024, arXiv 2402.07721). Unlike gradients at the start it says what training has made of a
site. A short branch without the weakest modules then decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lorafit.adapt import Adapters
from lorafit.methods.lora import LoraLinear

WEAK = 0.05
"""Share of the energy below which a kind of module is tried without."""


@contextmanager
def collecting(adapters: Adapters) -> Iterator[dict[str, float]]:
    """Inside, forward passes add up each site's energy; the names are the sites' paths.

    The passes have to call the model's modules: the eager engine does.
    """
    energies: dict[str, float] = {}
    handles = []
    for site in adapters.sites["default"]:
        layer = adapters.model.get_submodule(site.path)
        if isinstance(layer, LoraLinear):
            handles.append(layer.register_forward_pre_hook(_Meter(site.path, energies)))
    try:
        yield energies
    finally:
        for handle in handles:
            handle.remove()


class _Meter:
    """Adds ``|s B A x|^2`` of one layer's inputs."""

    def __init__(self, path: str, energies: dict[str, float]) -> None:
        self._path = path
        self._energies = energies
        energies[path] = 0.0

    @torch.no_grad()
    def __call__(self, layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, LoraLinear)
        A, B = layer.factors("default")
        x = arguments[0].reshape(-1, arguments[0].shape[-1]).float()
        update = (x @ A.T) @ B.T * layer.scaling["default"]
        self._energies[self._path] += float(update.square().sum())


def shares(energies: dict[str, float]) -> dict[str, float]:
    """Each kind of module's share of the energy, by the last part of its path."""
    total = sum(energies.values()) or 1.0
    found: dict[str, float] = {}
    for path, energy in energies.items():
        name = path.rpartition(".")[2]
        found[name] = found.get(name, 0.0) + energy / total
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def weak(found: dict[str, float]) -> list[str]:
    """The kinds that together hold less than `WEAK` of the energy, weakest first."""
    chosen: list[str] = []
    held = 0.0
    for name, share in sorted(found.items(), key=lambda item: item[1]):
        held += share
        if held >= WEAK or len(chosen) == len(found) - 1:
            break
        chosen.append(name)
    return chosen


def evidence(found: dict[str, float]) -> dict[str, Any]:
    """JSON values for ``choices.json``."""
    return {"share_of_energy": {name: round(share, 4) for name, share in found.items()}}
