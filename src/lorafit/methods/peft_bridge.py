"""Every other tuner of the peft package, as ``peft:NAME`` (``peft:vera``, ``peft:oft``, ...).

peft computes, lorafit does the rest: its loop, checks, hand-off, run folder. peft is imported
when such a method is asked for, here and nowhere else. A tuner's layers are made by peft's own
injection, in one go, and each stands inside an adapter layer of ours; what is saved is peft's
format, and peft loads it. Settings are the fields of peft's configuration class.

Merging is peft's too. The original weight is put back bit for bit afterwards, so the base stays
whole. Left out, with the reason: prompt learning and the other methods that lorafit has itself,
and tuners that share trained parameters between layers or have to be called after each step.
Some (C3A, FourierFT) do not start at the base.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from pydantic import PrivateAttr, create_model
from torch import nn

from lorafit.errors import AdapterError, ConfigError, did_you_mean
from lorafit.methods import methods
from lorafit.methods.base import AdapterLayer, Family, Method, MethodConfig
from lorafit.model.sites import Site
from lorafit.model.targets import ALL_LINEAR, select

log = logging.getLogger(__name__)

INNER = "default"
"""What peft calls the one adapter in each of its layers here."""

# Fields of peft's configurations that MethodConfig has itself, or that say nothing.
_OWN = {*MethodConfig.model_fields, "auto_mapping", "peft_version", "runtime_config"}

# Tuners that would be injected, but not trained as they should be.
_BEYOND = {
    "adalora": "it has to be called after each step, which lorafit's loop does not do",
    "poly": "it wants the number of the task at each call",
    "trainable_tokens": "it adapts embeddings and not layers",
}

# What peft raises for settings or models that do not fit.
_REFUSALS = (
    *(ValueError, TypeError, AttributeError, RuntimeError, NotImplementedError),
    *(AssertionError, KeyError, IndexError, ImportError),
)


class PeftConfig(MethodConfig):
    """What the configurations of all tuners have in common."""

    target_modules: set[str] | list[str] | str | None = None
    """Names, a regular expression that matches whole paths, or ``"all-linear"`` (also ``None``)."""
    _injected: dict[str, nn.Module] = PrivateAttr(default_factory=dict)


class PeftMethod(Method):
    """One tuner of peft."""

    family: ClassVar[Family] = "reparametrization"
    recommended: ClassVar[dict[str, Any]] = {"target_modules": ALL_LINEAR}
    tuner: ClassVar[str]

    def select(self, model: nn.Module, sites: Sequence[Site], config: MethodConfig) -> list[Site]:
        """Resolves the patterns, and has peft make its layers there."""
        config = cast(PeftConfig, config)
        targets = config.target_modules
        chosen = select(
            model,
            [site for site in sites if site.kind != "embedding"],
            target_modules=ALL_LINEAR if targets is None else targets,
            exclude_modules=getattr(config, "exclude_modules", None),
            modules_to_save=config.modules_to_save,
        )
        self._injected = _inject(self.tuner, model, [site.path for site in chosen], config)
        return [site for site in chosen if site.path in self._injected]

    def wrap(self, layer: nn.Module, site: Site) -> AdapterLayer:
        """Wraps a linear layer or a ``Conv1D``."""
        return PeftLayer(layer)

    def resolved(
        self, model: nn.Module, sites: Sequence[Site], names: Sequence[str], config: MethodConfig
    ) -> MethodConfig:
        """Lists the layers, and hands on what peft made for them."""
        paths = sorted(site.path for site in sites)
        found = {"target_modules": paths, "exclude_modules": None}
        own = type(config).model_fields
        resolved = config.model_copy(update={k: v for k, v in found.items() if k in own})
        cast(PeftConfig, resolved)._injected = self._injected
        return resolved


class PeftLayer(AdapterLayer):
    """A frozen layer with peft's layers around it, one for each adapter."""

    adapter_layer_names: ClassVar[tuple[str, ...]] = ("tuners",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__(base_layer)
        self.tuners = nn.ModuleDict()
        self._trained: dict[str, list[str]] = {}
        self._unmergeable: dict[str, str] = {}

    def add_adapter(self, name: str, config: MethodConfig, site: Site) -> None:
        """Takes over the layer that peft made here."""
        layer = cast(PeftConfig, config)._injected.pop(site.path)
        self._trained[name] = [path for path, p in _own(layer).items() if p.requires_grad]
        self.tuners[name] = layer

    def delete_adapter(self, name: str) -> None:
        """Forgets one adapter."""
        super().delete_adapter(name)
        self._trained.pop(name, None)
        self._unmergeable.pop(name, None)

    def parameters_of(self, name: str) -> dict[str, nn.Parameter]:
        """What peft trains, by the path relative to this layer."""
        own = _own(self.tuners[name])
        return {f"tuners.{name}.{path}": own[path] for path in self._trained[name]}

    def adapter_state(self, name: str) -> dict[str, torch.Tensor]:
        """Parameters and buffers under peft's names on disk: without its adapter's name."""
        layer = self.tuners[name]
        kept = {path.split(".")[0] for path in _own(layer)}
        return {
            _without_name(key): tensor.detach()
            for key, tensor in layer.state_dict(keep_vars=True).items()
            if key.split(".")[0] in kept
        }

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
                except _REFUSALS as error:
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
        layer, base = cast(Any, self.tuners[name]), self.base_layer
        now = dict(base._parameters)
        filled = [key for key, p in now.items() if p is not None]
        pristine = {key: cast(nn.Parameter, self.pristine(key)) for key in filled}
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


@methods.provide("peft")
def method(tuner: str) -> type[Method]:
    """The method ``peft:NAME``.

    Raises:
        ConfigError: peft is not installed, has no such tuner, or lorafit has it itself.
    """
    configs = _configs(f"peft:{tuner}")
    if tuner not in configs:
        known = ", ".join(sorted(configs))
        raise ConfigError(
            f'peft has no tuner "{tuner}"; it has {known}.{did_you_mean(tuner, configs)}'
        )
    ours = next((n for n in methods if _kind_of(n) == tuner.upper()), None)
    if ours is not None:
        raise ConfigError(f"lorafit has peft's {tuner} itself: --method {ours}.")
    found = configs[tuner]
    kind = found.__dataclass_fields__  # every configuration of peft is a dataclass
    beyond = _BEYOND.get(tuner)
    if "target_modules" not in kind:
        beyond = "it adapts no layers; of prompt learning lorafit has prompt and prefix"
    if beyond:
        raise ConfigError(f"peft:{tuner} cannot be trained here: {beyond}.")
    fields: dict[str, Any] = {"peft_type": (str, tuner.upper())}
    for name, field in kind.items():
        if name in _OWN or name in PeftConfig.model_fields:
            continue
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        fields[name] = (Any, None if default is dataclasses.MISSING else default)
    if "save_projection" in fields:  # peft makes it again of its seed
        fields["save_projection"] = (bool, False)
    config = create_model(f"{tuner.title()}Config", __base__=PeftConfig, **fields)
    config.__doc__ = f"Settings of peft's {tuner}: the fields of its ``{found.__name__}``."
    members = {"config_class": config, "tuner": tuner, "__doc__": f"peft's {tuner}."}
    return type(f"Peft{tuner.title()}", (PeftMethod,), members)


def name_of(peft_type: str) -> str | None:
    """The method whose adapters have this ``peft_type``, if peft is here and has it."""
    try:
        name = f"peft:{peft_type.lower()}"
        methods[name]
    except ConfigError:
        return None
    return name


def _kind_of(name: str) -> str:
    """The ``peft_type`` of one of our methods; empty for presets."""
    if methods[name].preset_of is not None:
        return ""
    return str(methods[name].config_class.model_fields["peft_type"].default)


def _configs(asked: str) -> dict[str, Any]:
    """Peft's configuration classes by the name of the tuner."""
    try:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    except ImportError as error:
        raise ConfigError(f"{asked} needs the package peft: pip install peft.") from error
    return {str(kind.value).lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def _inject(
    tuner: str, model: nn.Module, paths: list[str], config: PeftConfig
) -> dict[str, nn.Module]:
    """Has peft make its layers, and takes them off the model again.

    Raises:
        ConfigError: The tuner does not fit the model, its settings, or the bridge.
    """
    before = {path: model.get_submodule(path) for path in paths}
    trainable = {name: p.requires_grad for name, p in model.named_parameters()}
    noted = hasattr(model, "peft_config")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = _made(tuner, model, before, config)
    except _REFUSALS as error:
        raise ConfigError(f"peft:{tuner} does not fit {type(model).__name__}: {error}") from error
    finally:
        for path, layer in before.items():
            _put(model, path, layer)
        for name, p in model.named_parameters():
            p.requires_grad_(trainable[name])
        if not noted and hasattr(model, "peft_config"):
            del model.peft_config
    for warning in dict.fromkeys(str(w.message) for w in said):
        log.info("peft: %s", warning)
    return found


def _made(
    tuner: str, model: nn.Module, before: Mapping[str, nn.Module], config: PeftConfig
) -> dict[str, nn.Module]:
    """The layers that peft puts into a model in the places of others."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.tuners_utils import BaseTunerLayer

    own = _configs(tuner)[tuner](target_modules=list(before), **_settings(config))
    for path, layer in before.items():
        _put(model, path, layer.base_layer if isinstance(layer, AdapterLayer) else layer)
    made = PEFT_TYPE_TO_TUNER_MAPPING[own.peft_type](model, {INNER: own}, INNER)
    layers = {path: model.get_submodule(path) for path in before}
    found: dict[str, nn.Module] = {
        path: layer for path, layer in layers.items() if isinstance(layer, BaseTunerLayer)
    }
    _check_reach(made, found)
    return found


def _settings(config: PeftConfig) -> dict[str, Any]:
    """The tuner's own settings, as its configuration takes them."""
    common = {*PeftConfig.model_fields}
    return {key: value for key, value in config.model_dump().items() if key not in common}


def _check_reach(made: nn.Module, found: Mapping[str, nn.Module]) -> None:
    """Refuses a tuner that trains something the layers alone do not hold.

    Raises:
        ConfigError: It does.
    """
    if not found:
        raise ConfigError("it adapts none of the layers.")
    seen: set[int] = set()
    for layer in found.values():
        trained = {id(p) for p in _own(layer).values() if p.requires_grad}
        if trained & seen:
            raise ConfigError("its layers share trained parameters.")
        seen |= trained
    rest = [n for n, p in made.named_parameters() if p.requires_grad and id(p) not in seen]
    if rest:
        raise ConfigError(f"it trains {rest[0]}, which is outside of its layers.")


def _own(layer: nn.Module) -> dict[str, nn.Parameter]:
    """A peft layer's parameters without those of the base layer."""
    return {n: p for n, p in layer.named_parameters() if not n.startswith("base_layer.")}


def _without_name(key: str) -> str:
    return ".".join(part for part in key.split(".") if part != INNER)


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
