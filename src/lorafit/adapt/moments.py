"""What the low-rank inputs of adapted layers look like: the second moments of ``A x`` over tokens.

They weight the directions of an update (`lorafit.methods.lora.truncate`), and the update's energy,
the mean of ``|B A x|^2`` (LoRA-drop, Zhou et al. 2024, arXiv 2402.07721), is their trace under
``B``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn

from lorafit.adapt.adapters import Adapters
from lorafit.methods.lora import LoraEmbedding, LoraLayer


class Moments:
    """Sums of ``(A x)(A x)^T`` over tokens, and how many there were.

    Attributes:
        sums: By path of the layer, ``(r, r)`` float64 on the CPU; none where nothing passed.
        counts: Tokens, by path.
        mask: ``(batch, length)`` of the batch that passes next, 0 where it is padding; ``None``:
            all of it counts.
    """

    def __init__(self, paths: Sequence[str], adapter: str) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts = dict.fromkeys(paths, 0)
        self.mask: Tensor | None = None
        self._adapter = adapter

    def means(self) -> dict[str, Tensor]:
        """``E[(A x)(A x)^T]`` of each layer that tokens passed."""
        return {path: total / self.counts[path] for path, total in self.sums.items()}

    def add(self, path: str, layer: LoraLayer, x: Tensor) -> None:
        """Adds the inputs of one layer.

        Args:
            path: Of the layer.
            layer: It.
            x: ``(..., d_in)``; of an embedding the ids ``(...)``.
        """
        A = layer.factors(self._adapter)[0].detach()
        if self.mask is not None and x.shape[:2] == self.mask.shape:
            x = x[self.mask.bool()]  # padding is no input
        if isinstance(layer, LoraEmbedding):
            z = A[:, x.reshape(-1)].T
        else:
            z = x.detach().reshape(-1, x.shape[-1]).to(A.dtype) @ A.T
        if not len(z):
            return
        moment = (z.T.cpu().double() @ z.cpu().double()).cpu()
        self.sums[path] = self.sums[path] + moment if path in self.sums else moment
        self.counts[path] += len(z)


@contextmanager
def collecting(
    adapters: Adapters, paths: Sequence[str], adapter: str = "default"
) -> Iterator[Moments]:
    """While open, what the adapted layers are given is added up.

    The passes have to call the model's modules: the eager engine does.

    Args:
        adapters: Of the model.
        paths: Of layers and embeddings with the adapter.
        adapter: Its name.
    """
    found, handles = Moments(paths, adapter), []
    for path in paths:
        layer = adapters.model.get_submodule(path)
        assert isinstance(layer, LoraLayer)

        def note(module: nn.Module, args: Any, path: str = path) -> None:
            found.add(path, cast(LoraLayer, module), args[0])

        handles.append(layer.register_forward_pre_hook(note))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
