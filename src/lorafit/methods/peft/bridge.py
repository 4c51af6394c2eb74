"""Every other tuner of the peft package, as ``peft:NAME`` (``peft:vera``, ``peft:oft``, ...).

peft computes, lorafit does the rest: its loop, checks, hand-off, run folder. peft is imported
when such a method is asked for, here and nowhere else. A tuner's layers are made by peft's own
injection, in one go, and each stands inside an adapter layer of ours; what is saved is what peft
would save, and each loads the other's files. Frozen tensors that layers share (VeRA's random
matrices) are saved once, as peft does. Settings are the fields of peft's configuration class.

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
from typing import Any, ClassVar

from pydantic import create_model
from torch import nn

from lorafit.errors import ConfigError, did_you_mean
from lorafit.methods import methods
from lorafit.methods.base import AdapterLayer, Family, Method, MethodConfig
from lorafit.methods.peft.layer import (
    INNER,
    REFUSALS,
    Injected,
    PeftConfig,
    PeftLayer,
    own_parameters,
    own_tensors,
)
from lorafit.model.sites import Site
from lorafit.model.targets import ALL_LINEAR, select

log = logging.getLogger(__name__)

SHARED = "base_model."
"""What stands before the names of tensors that peft keeps beside the model."""

# Fields of peft's configurations that MethodConfig has itself, or that say nothing.
_OWN = {*MethodConfig.model_fields, "auto_mapping", "peft_version", "runtime_config"}

# Tuners that are no reparametrizations of the weights.
_FAMILIES: dict[str, Family] = {
    "beft": "selective",  # biases
    "shira": "selective",  # single weights
    "supertuning": "selective",  # single weights
}

# Tuners that would be injected, but not trained as they should be.
_BEYOND = {
    "adalora": "it has to be called after each step, which lorafit's loop does not do",
    "adaption_prompt": "it adapts whole attention blocks; prompt and prefix are similar",
    "poly": "it wants the number of the task at each call",
    "shadow": "it trains a second model beside the blocks",
    "trainable_tokens": "it adapts embeddings and not layers",
}


class PeftMethod(Method[PeftConfig]):
    """One tuner of peft."""

    family: ClassVar[Family] = "reparametrization"
    recommended: ClassVar[Mapping[str, object]] = {"target_modules": ALL_LINEAR}
    tuner: ClassVar[str]

    def select(self, model: nn.Module, sites: Sequence[Site], config: PeftConfig) -> list[Site]:
        """Resolves the patterns, and has peft make its layers there."""
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
        self, model: nn.Module, sites: Sequence[Site], names: Sequence[str], config: PeftConfig
    ) -> PeftConfig:
        """Lists the layers, and hands on what peft made for them."""
        paths = sorted(site.path for site in sites)
        found = {"target_modules": paths, "exclude_modules": None}
        own = type(config).model_fields
        resolved = config.model_copy(update={k: v for k, v in found.items() if k in own})
        resolved._injected = self._injected  # noqa: SLF001 a private attribute of pydantic
        return resolved


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
    config = create_model(f"{tuner.title()}Config", __base__=PeftConfig, **fields)
    config.__doc__ = f"Settings of peft's {tuner}: the fields of its ``{found.__name__}``."
    members = {
        "config_class": config,
        "tuner": tuner,
        "family": _FAMILIES.get(tuner, PeftMethod.family),
        "__doc__": f"peft's {tuner}.",
    }
    return type(f"Peft{tuner.title()}", (PeftMethod,), members)


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
) -> dict[str, Injected]:
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
    except REFUSALS as error:
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
) -> dict[str, Injected]:
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
    return _with_names(made, own, found)


def _with_names(
    made: nn.Module, config: Any, found: Mapping[str, nn.Module]
) -> dict[str, Injected]:
    """Notes of each layer what peft would save of it.

    Raises:
        ConfigError: Peft would save something else too.
    """
    from peft import get_peft_model_state_dict

    whole: Any = nn.Module()  # the names are those of a PeftModel
    whole.base_model, whole.peft_config = made, {INNER: config}
    names = {*get_peft_model_state_dict(whole, adapter_name=INNER, save_embedding_layers=False)}
    shared: dict[str, tuple[nn.Module, str]] = {}
    for child, module in made.named_children():
        for path, holder in module.named_modules(prefix=child):
            for key in holder._buffers if child != "model" else ():
                name = _without_name(f"{path}.{key}")
                if f"{SHARED}{name}" in names:
                    shared[name] = (holder, key)
    noted = {}
    left = names - {f"{SHARED}{name}" for name in shared}
    for path, layer in found.items():
        prefix = f"{SHARED}model.{path}."
        own = {_without_name(key): key for key in own_tensors(layer)}
        saved = {name: key for name, key in own.items() if f"{prefix}{name}" in names}
        left -= {f"{prefix}{name}" for name in saved}
        noted[path] = Injected(layer, saved, shared)
    if left:
        raise ConfigError(f"it saves {min(left)}, which is outside of its layers.")
    return noted


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
        trained = {id(p) for p in own_parameters(layer).values() if p.requires_grad}
        if trained & seen:
            raise ConfigError("its layers share trained parameters.")
        seen |= trained
    rest = [n for n, p in made.named_parameters() if p.requires_grad and id(p) not in seen]
    if rest:
        raise ConfigError(f"it trains {rest[0]}, which is outside of its layers.")


def _without_name(key: str) -> str:
    return ".".join(part for part in key.split(".") if part != INNER)


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
