r"""LoRA of weights that are plain parameters of a module and no layers: experts of a mixture.

.. math:: W_e' = W_e + s\, B_e A_e

A parameter ``(experts, d_out, d_in)`` (``(experts, d_in, d_out)`` where its module says
``is_transposed``) or ``(d_out, d_in)`` gets one pair of factors for each expert. The module
is called with the changed weights in the parameters' places, whatever it does with them.

As in PEFT, ``A (experts r, d_in)`` has the ranks of an expert together and
``B (d_out, r experts)`` the experts of a rank. PEFT puts one wrapper into another where a
module has several such parameters; on disk the last one's factors therefore stand under the
module's path, those of the one before below ``base_layer``, and so on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from lorafit.errors import AdapterError, TargetError, did_you_mean
from lorafit.methods.lora.config import LoraConfig
from lorafit.methods.lora.layer import LoraLayer
from lorafit.model.sites import Site, find_blocks, loose_weights


def parameter_sites(model: nn.Module, names: Sequence[str]) -> list[Site]:
    """The modules whose parameters are meant, by whole paths or their last parts (PEFT's rule).

    Raises:
        TargetError: A name matches no parameter, or one that is no matrix or stack of them.
    """
    blocks = dict(find_blocks(model))
    sites, found = [], set()
    for path, module in model.named_modules():
        plain = path.replace(".base_layer", "").replace(".original_module", "")
        if not plain or ".modules_to_save." in path or ".lora_" in path:
            continue
        hits = matching(plain, module, names)
        if not hits:
            continue
        found |= {n for n in names for hit in hits if _meant(f"{plain}.{hit}", n)}
        for hit in hits:
            shape = tuple(getattr(module, hit).shape)
            if len(shape) not in (2, 3):
                raise TargetError(
                    f"target_parameters: {plain}.{hit} has the shape {shape}; it has to be a "
                    "matrix or a stack of matrices."
                )
        _, d_in, d_out = _layout(module, hits[-1])
        block = next((i for b, i in blocks.items() if plain.startswith(f"{b}.")), None)
        sites.append(
            Site(plain, "parameter", d_in, d_out, "mlp" if block is not None else "other", block)
        )
    for name in names:
        if name not in found:
            loose = list(loose_weights(model))
            there = f" It has {', '.join(loose)}." if loose else ""
            near = did_you_mean(name, dict.fromkeys([*loose, *_named_like(model, name)]))
            raise TargetError(
                f'target_parameters: no parameter of {type(model).__name__} is called "{name}".'
                f"{there}{near}"
            )
    return sites


def _named_like(model: nn.Module, name: str) -> list[str]:
    """The matrices of a model, by as many last parts of their paths as a name has."""
    parts = name.count(".") + 1
    found = (path.split(".") for path, p in model.named_parameters() if p.ndim in (2, 3))
    return list(dict.fromkeys(".".join(path[-parts:]) for path in found))


def matching(path: str, module: nn.Module, names: Sequence[str]) -> list[str]:
    """Those of a module's own parameters that are meant, in the order of their definition."""
    own = [key for key, _ in module.named_parameters(recurse=False)]
    return [key for key in own if any(_meant(f"{path}.{key}", name) for name in names)]


def _meant(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _layout(module: nn.Module, name: str) -> tuple[int, int, int]:
    """Experts, input and output width of a parameter."""
    shape = tuple(getattr(module, name).shape)
    if len(shape) == 2:
        return 1, shape[1], shape[0]
    if getattr(module, "is_transposed", False):
        return shape[0], shape[1], shape[2]
    return shape[0], shape[2], shape[1]


class LoraParameters(LoraLayer):
    """LoRA around a module with parameters that are weights.

    ``lora_A[name][parameter].weight (experts r, d_in)``, ``lora_B[name][parameter].weight
    (d_out, r experts)``, float32.
    """

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.targets: dict[str, list[str]] = {}
        self._relative: dict[str, dict[str, float]] = {}

    def add_adapter(self, name: str, config: LoraConfig, site: Site) -> None:
        """Adds an adapter for those parameters of the module that the configuration names."""
        names = matching(site.path, self.base_layer, config.target_parameters or [])
        paths = {key: f"{site.path}.{key}" for key in names}
        last = paths[names[-1]]
        self.targets[name] = names
        self.r[name], self.lora_alpha[name] = config.rank(last), config.alpha(last)
        self.scaling[name] = config.scaling(last)
        self._relative[name] = {
            key: config.scaling(path) / self.scaling[name] for key, path in paths.items()
        }
        self.use_rslora[name], self.use_dora[name] = config.use_rslora, False
        self.lora_dropout[name] = nn.Identity()
        A, B = nn.ModuleDict(), nn.ModuleDict()
        for key, path in paths.items():
            experts, d_in, d_out = _layout(self.base_layer, key)
            r, device = config.rank(path), getattr(self.base_layer, key).device
            a = nn.Linear(d_in, r * experts, bias=False)
            b = nn.Linear(r * experts, d_out, bias=False)
            if config.init_lora_weights == "gaussian":
                nn.init.normal_(a.weight, std=1 / r)
            else:
                nn.init.kaiming_uniform_(a.weight, a=math.sqrt(5))
            if config.init_lora_weights is not False:
                nn.init.zeros_(b.weight)
            A[key], B[key] = a.to(device), b.to(device)
        self.lora_A[name], self.lora_B[name] = A, B

    def _initialise(self, name: str, config: LoraConfig, site: Site) -> None:
        raise NotImplementedError("made by add_adapter")

    def delete_adapter(self, name: str) -> None:
        """Forgets one adapter."""
        super().delete_adapter(name)
        self.targets.pop(name, None)
        self._relative.pop(name, None)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes with the changed weights."""
        names = self._running()
        if not names:
            return self.base_layer(*args, **kwargs)
        values = {
            key: value.to(getattr(self.base_layer, key).dtype)
            for key, value in self.merged_values(names).items()
        }
        return torch.func.functional_call(self.base_layer, values, args, kwargs)

    def merged_values(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """The module's parameters that adapters change, with the change, in float32."""
        values: dict[str, torch.Tensor] = {}
        for name in names:
            for key in self.targets[name]:
                original = self.pristine(key)
                assert original is not None
                before = values.get(key, original.float())
                values[key] = before + self.delta_of(name, key).to(before.device)
        return values

    def delta_of(self, name: str, parameter: str) -> torch.Tensor:
        """How one adapter changes one parameter: float32, shaped like it."""
        experts, d_in, d_out = _layout(self.base_layer, parameter)
        A = cast(nn.ModuleDict, self.lora_A[name])[parameter].weight
        B = cast(nn.ModuleDict, self.lora_B[name])[parameter].weight
        assert isinstance(A, torch.Tensor)
        assert isinstance(B, torch.Tensor)
        delta = torch.einsum(
            "ore,eri->eoi", B.view(d_out, -1, experts), A.view(experts, -1, d_in)
        ) * (self.scaling[name] * self._relative[name][parameter])
        if getattr(self.base_layer, parameter).ndim == 2:
            return delta[0]
        return delta.transpose(1, 2) if getattr(self.base_layer, "is_transposed", False) else delta

    def delta_weight(self, name: str) -> torch.Tensor:
        """The change of the only parameter that the adapter has here."""
        if len(self.targets[name]) > 1:
            raise AdapterError(
                f"{', '.join(self.targets[name])} have a change each; ask `delta_of` for one."
            )
        return self.delta_of(name, self.targets[name][0])

    def factors(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Not here: there is a pair for each parameter and expert."""
        raise AdapterError("weights that are plain parameters have a pair of factors an expert.")

    def saved_names(self, name: str) -> dict[str, str]:
        """As PEFT nests its wrappers: the last parameter outside, the first innermost."""
        names = self.targets[name]
        return {
            f"{factor}.{name}.{key}.weight": "base_layer." * depth + f"{factor}.weight"
            for depth, key in enumerate(reversed(names))
            for factor in ("lora_A", "lora_B")
        }

    @property
    def weight(self) -> nn.Parameter:
        """The first adapted parameter; some models look at its dtype or device."""
        first = next(iter(self.targets.values()))[0]
        parameter: nn.Parameter = getattr(self.base_layer, first)
        return parameter

    @property
    def pristine_weight(self) -> nn.Parameter:
        """The first adapted parameter without anything merged."""
        first = self.pristine(next(iter(self.targets.values()))[0])
        assert first is not None
        return first
