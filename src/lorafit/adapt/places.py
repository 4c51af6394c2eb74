"""Where the modules of the plain model stand while there are wrappers around them."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from torch import nn

from lorafit.methods.base import AdapterLayer, ModulesToSaveWrapper


def wrappers(model: nn.Module) -> Iterator[ModulesToSaveWrapper]:
    """What stands around the modules that are trained whole."""
    return (m for m in model.modules() if isinstance(m, ModulesToSaveWrapper))


def put(model: nn.Module, path: str, module: nn.Module) -> None:
    """Puts a module in the place of another, wherever that stands.

    A table of embeddings may stand under several paths, each of which is called (T5's after
    its vocabulary was resized).
    """
    parent, _, child = path.rpartition(".")
    before = model.get_submodule(path)
    setattr(model.get_submodule(parent), child, module)
    for holder in model.modules():
        for name, held in holder.named_children():
            if held is before and holder is not module:
                setattr(holder, name, module)


def place_of(model: nn.Module, path: str) -> str:
    """Where a module of the plain model stands now, its own wrappers included."""
    module, place = model, []
    for part in path.split("."):
        while isinstance(module, AdapterLayer | ModulesToSaveWrapper):
            inner = "base_layer" if isinstance(module, AdapterLayer) else "original_module"
            place.append(inner)
            module = module.get_submodule(inner)
        place.append(part)
        module = module.get_submodule(part)
    return ".".join(place)


def place_inside(model: nn.Module, path: str) -> str:
    """Where the adapter layer of a module stands: within what trains the module whole."""
    place = place_of(model, path)
    whole = isinstance(model.get_submodule(place), ModulesToSaveWrapper)
    return f"{place}.original_module" if whole else place


def plain_copy(module: nn.Module) -> nn.Module:
    """A copy of a module without the wrappers of other adapters."""
    holder = nn.ModuleDict({"module": copy.deepcopy(module)})
    for path, part in reversed(list(holder.named_modules())):
        if isinstance(part, AdapterLayer | ModulesToSaveWrapper):
            plain = part.base_layer if isinstance(part, AdapterLayer) else part.original_module
            parent, _, child = path.rpartition(".")
            setattr(holder.get_submodule(parent), child, plain)
    return holder["module"]


def within(path: str, parent: str) -> bool:
    """Whether a module or parameter is another, or inside of it."""
    return path == parent or path.startswith(f"{parent}.")
