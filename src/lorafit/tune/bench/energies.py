"""The energy of each site's update: how much it changes what passes through.

It is the mean of ``|s B A x|^2`` over real tokens (LoRA-drop, Zhou et al. 2024, arXiv
2402.07721).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lorafit.adapt import Adapters
from lorafit.methods.lora import LoraLinear


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
