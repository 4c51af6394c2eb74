"""A layer of one of peft's tuners as an adapter layer of ours; peft itself is not imported here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import PrivateAttr
from torch import nn

from lorafit.errors import AdapterError
from lorafit.methods.base import AdapterLayer, MethodConfig
from lorafit.model.sites import Site

INNER = "default"
"""What peft calls the one adapter in each of its layers here."""

# What peft raises for settings or models that do not fit.
REFUSALS = (
    *(ValueError, TypeError, AttributeError, RuntimeError, NotImplementedError),
    *(AssertionError, KeyError, IndexError, ImportError),
)


@dataclass(frozen=True)
class Injected:
    """What peft made for one layer.

    Attributes:
        layer: Its own layer, with the frozen one inside.
        saved: The layer's tensors that are saved: key in `own_tensors` by name on disk.
        shared: The same of what all of the tuner's layers share: module and attribute.
    """

    layer: nn.Module
    saved: dict[str, str]
    shared: dict[str, tuple[nn.Module, str]]


class PeftConfig(MethodConfig):
    """What the configurations of all tuners have in common."""

    target_modules: set[str] | list[str] | str | None = None
    """Names, a regular expression that matches whole paths, or ``"all-linear"`` (also ``None``)."""
    _injected: dict[str, Injected] = PrivateAttr(default_factory=dict)


class PeftLayer(AdapterLayer[PeftConfig]):
    """A frozen layer with peft's layers around it, one for each adapter."""

    adapter_layer_names: ClassVar[tuple[str, ...]] = ("tuners",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.tuners = nn.ModuleDict()
        self._made: dict[str, Injected] = {}
        self._trained: dict[str, list[str]] = {}
        self._unmergeable: dict[str, str] = {}

    def add_adapter(self, name: str, config: PeftConfig, site: Site) -> None:
        """Takes over the layer that peft made here."""
        made = config._injected.pop(site.path)  # noqa: SLF001 a private attribute of pydantic
        self._trained[name] = [
            path for path, p in own_parameters(made.layer).items() if p.requires_grad
        ]
        self._made[name], self.tuners[name] = made, made.layer

    def delete_adapter(self, name: str) -> None:
        """Forgets one adapter."""
        super().delete_adapter(name)
        for entries in (self._made, self._trained, self._unmergeable):
            entries.pop(name, None)

    def parameters_of(self, name: str) -> dict[str, nn.Parameter]:
        """What peft trains, by the path relative to this layer."""
        own = own_parameters(self.tuners[name])
        return {f"tuners.{name}.{path}": own[path] for path in self._trained[name]}

    def adapter_state(self, name: str) -> dict[str, torch.Tensor]:
        """Parameters and buffers under peft's names on disk."""
        tensors = own_tensors(self.tuners[name])
        return {key: tensors[path] for key, path in self._made[name].saved.items()}

    def shared_state(self, name: str) -> dict[str, torch.Tensor]:
        """Buffers of the tuner that its layers share, under peft's names on disk."""
        return {key: getattr(*place) for key, place in self._made[name].shared.items()}

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """What peft's layer computes, or the base layer."""
        names = self._running()
        if not names:
            base: torch.Tensor = self.base_layer(x, *args, **kwargs)
            return base
        output: torch.Tensor = self.tuners[self._only(names)](x, *args, **kwargs)
        return output

    @property
    def unmergeable(self) -> str:  # type: ignore[override]
        """Why peft cannot merge this layer, tried once; empty: it can."""
        for name in self.active_adapters:
            if name in self.tuners and name not in self._unmergeable:
                try:
                    self._merged(name)
                    self._unmergeable[name] = ""
                except REFUSALS as error:
                    self._unmergeable[name] = f"peft says: {error}" if str(error) else "peft cannot"
        return next(filter(None, self._unmergeable.values()), "")

    @torch.no_grad()
    def delta_weight(self, name: str) -> torch.Tensor:
        """The change of the weight by peft's merge."""
        return self._merged(name)["weight"] - self.pristine_weight.float()

    def merged_values(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """The base layer's parameters that peft's merge changes."""
        return self._merged(self._only(names))

    @torch.no_grad()
    def _merged(self, name: str) -> dict[str, torch.Tensor]:
        """Has peft merge, reads the result, and puts the original back."""
        layer: Any = self.tuners[name]
        base = self.base_layer
        now = dict(base._parameters)
        filled = [key for key, p in now.items() if p is not None]
        pristine = {key: p for key in filled if (p := self.pristine(key)) is not None}
        base._parameters.update({k: nn.Parameter(p.clone(), False) for k, p in pristine.items()})
        try:
            layer.merge(safe_merge=False, adapter_names=[INNER])
            merged = {key: p for key, p in base._parameters.items() if p is not None}
            return {
                key: p.detach().float()
                for key, p in merged.items()
                if key not in pristine or key == "weight" or not torch.equal(p, pristine[key])
            }
        finally:
            layer.merged_adapters.clear()
            base._parameters.update(now)

    def _only(self, names: Sequence[str]) -> str:
        if len(names) > 1:
            raise AdapterError(
                f"{' and '.join(names)} cannot be active together: what peft's layers compute does "
                "not add up."
            )
        return names[0]


def own_parameters(layer: nn.Module) -> dict[str, nn.Parameter]:
    """A peft layer's parameters without those of the base layer."""
    return {n: p for n, p in layer.named_parameters() if not n.startswith("base_layer.")}


def own_tensors(layer: nn.Module) -> dict[str, torch.Tensor]:
    """A peft layer's state, with what peft keeps in plain dictionaries (SHiRA's indices)."""
    found = layer.state_dict()
    for attribute, entries in vars(layer).items():
        tensor = entries.get(INNER) if isinstance(entries, dict) else None
        if isinstance(tensor, torch.Tensor) and not attribute.startswith("_"):
            found[f"{attribute}.{INNER}"] = tensor
    return found
