"""Parameters of the base trained in copies: one put in the other's place.

The original `torch.nn.Parameter` is kept aside untouched, so putting it back restores the
base bit for bit. A parameter that several modules share (tied embeddings) is replaced in
all of them, and stays shared. Copies have the original's number format: a layer computes
with one format, and the copies stand where the originals stood.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn


class Replacements:
    """For each adapter, its copies of parameters of one model.

    Args:
        model: The model. Parameters are named as they were before it was adapted.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._originals: dict[str, nn.Parameter] = {}
        self._places: dict[str, list[tuple[nn.Module, str]]] = {}
        self._copies: dict[str, dict[str, nn.Parameter]] = {}

    def add(self, adapter: str, names: Iterable[str]) -> None:
        """Makes an adapter's copies; `place` brings them into play."""
        copies = {}
        for name in names:
            if name not in self._originals:
                module, key = _resolve(self._model, name)
                original = module._parameters[key]
                assert original is not None
                self._originals[name] = original
                self._places[name] = [
                    (owner, own)
                    for owner in self._model.modules()
                    for own, parameter in owner._parameters.items()
                    if parameter is original
                ]
            copies[name] = nn.Parameter(self._originals[name].detach().clone())
        self._copies[adapter] = copies

    def delete(self, adapter: str) -> None:
        """Forgets an adapter's copies, which must not be in play."""
        self._copies.pop(adapter, None)

    def of(self, adapter: str) -> dict[str, nn.Parameter]:
        """An adapter's copies by the plain name of the original."""
        return self._copies.get(adapter, {})

    def has(self, name: str) -> bool:
        """Whether any adapter has a copy of this parameter."""
        return name in self._originals

    def original(self, name: str) -> nn.Parameter:
        """What an adapter's copy stands for."""
        return self._originals[name]

    def place(self, adapters: Sequence[str]) -> None:
        """Puts these adapters' copies into the model, and originals everywhere else."""
        for name, parameter in self._wanted(adapters).items():
            for module, key in self._places[name]:
                setattr(module, key, parameter)

    def changed_by(self, adapters: Sequence[str]) -> list[tuple[nn.Module, str]]:
        """The places, as module and key, where `place` would put another parameter."""
        return [
            (module, key)
            for name, parameter in self._wanted(adapters).items()
            for module, key in self._places[name]
            if module._parameters[key] is not parameter
        ]

    def path(self, name: str) -> str:
        """Where a parameter stands now, wrappers included."""
        parts = name.split(".")
        path: list[str] = []
        module = self._model
        for part in parts[:-1]:
            for inner in ("original_module", "base_layer"):
                if part not in module._modules and inner in module._modules:
                    path.append(inner)
                    module = module.get_submodule(inner)
            path.append(part)
            module = module.get_submodule(part)
        while parts[-1] not in module._parameters:
            inner = "base_layer" if "base_layer" in module._modules else "original_module"
            path.append(inner)
            module = module.get_submodule(inner)
        return ".".join([*path, parts[-1]])

    def _wanted(self, adapters: Sequence[str]) -> dict[str, nn.Parameter]:
        wanted = dict(self._originals)
        for adapter in adapters:
            wanted |= self.of(adapter)
        return wanted


def _resolve(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a parameter, and its key there."""
    path, _, key = Replacements(model).path(name).rpartition(".")
    return model.get_submodule(path), key
