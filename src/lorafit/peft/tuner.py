"""PEFT's ``LoraModel``: the module between a `PeftModel` and the adapted model."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from lorafit.adapt import Adapters
from lorafit.adapt.combine import SignMethod
from lorafit.adapt.weighted import add_weighted
from lorafit.errors import AdapterError, ConfigError, TargetError
from lorafit.export.merged import untie
from lorafit.methods.base import MethodConfig
from lorafit.model.sites import Site, find_sites, loose_weights, output_embeddings
from lorafit.model.targets import ALL_LINEAR, summary
from lorafit.peft.config import LoraConfig, TaskType

log = logging.getLogger(__name__)

# Projections of queries and values, apart or fused: PEFT's defaults for the models it knows.
_QUERY_VALUE = re.compile(r"(q|v)(uery|alue)?(_proj|_lin)?")
_FUSED = re.compile(r"c_attn|query_key_value|qkv_proj|Wqkv|in_proj|qkv")

# Where `inject_adapter_in_model` remembers on the model what it has done.
_INJECTED, _SITES = "_lorafit_adapters", "_lorafit_sites"


class LoraModel(nn.Module):
    """Holds the adapted model as ``model`` and its adapters as ``adapters``.

    Args:
        model: The base model; its layers are wrapped in place.
        config: The first adapter's configuration, or one by its name, or ``None``.
        adapter_name: The first adapter's name.
    """

    prefix = "lora_"

    def __init__(
        self,
        model: nn.Module,
        config: LoraConfig | dict[str, LoraConfig] | None = None,
        adapter_name: str = "default",
        low_cpu_mem_usage: bool = False,
    ) -> None:
        super().__init__()
        self.adapters = Adapters(model)
        self._sites = find_sites(self.adapters.model)
        self._loose = loose_weights(self.adapters.model)
        self.model = model
        if isinstance(config, dict):
            config = config[adapter_name]
        if config is not None:
            self.add(config, adapter_name)

    def add(self, config: LoraConfig, name: str) -> None:
        """Adds an adapter; `peft_config` then names what was selected, as in PEFT."""
        self.adapters.add(with_targets(config, self.adapters.model, self._sites), name)
        if self._loose and not config.target_parameters:
            log.warning(
                "not adapted: %s; they are no layers (name them in target_parameters).",
                ", ".join(self._loose),
            )
        self._publish()

    def _publish(self) -> None:
        """PEFT puts the configurations on the base model too; libraries look for them there."""
        object.__setattr__(self.adapters.model, "peft_config", self.adapters.configs)

    @property
    def peft_config(self) -> dict[str, LoraConfig]:
        """The configurations by adapter name."""
        return cast(dict[str, LoraConfig], self.adapters.configs)

    @property
    def active_adapters(self) -> list[str]:
        """Names of the active adapters."""
        return list(self.adapters.active)

    @property
    def active_adapter(self) -> str | list[str]:
        """The name if there is one active adapter, else the list."""
        active = self.active_adapters
        return active[0] if len(active) == 1 else active

    @property
    def is_disabled(self) -> bool:
        """Whether the adapters are switched off."""
        return any(layer.disable_adapters for layer in self.adapters.layers())

    @property
    def targeted_module_names(self) -> list[str]:
        """Paths of the adapted layers."""
        return list(dict.fromkeys(s.path for sites in self.adapters.sites.values() for s in sites))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the adapted model."""
        _refuse_mixed(kwargs)
        return self.model(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generates with the adapted model."""
        _refuse_mixed(kwargs)
        return self.model.generate(*args, **kwargs)  # type: ignore[operator]

    def __getattr__(self, name: str) -> Any:
        """Forwards what is missing to the model."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "model":  # not there yet while a copy is being built
                raise
            return getattr(self.model, name)

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Makes one adapter or several active, and trainable unless ``inference_mode``."""
        if self.adapters.merged:
            warnings.warn(
                "Adapter cannot be set when the model is merged. Unmerging the model first.",
                stacklevel=2,
            )
            self.adapters.unmerge()
        self.adapters.set(adapter_name, inference_mode=inference_mode)

    def set_requires_grad(
        self, adapter_names: str | Sequence[str], requires_grad: bool = True
    ) -> None:
        """Makes all parameters of adapters trainable, or freezes them, active or not."""
        names = [adapter_names] if isinstance(adapter_names, str) else adapter_names
        for name in names:
            for parameter in self.adapters.parameters_of(name).values():
                parameter.requires_grad_(requires_grad)

    def disable_adapter_layers(self) -> None:
        """Switches all adapters off: the model computes what the base computes."""
        self.adapters.unmerge()
        self.adapters.disable(True)

    def enable_adapter_layers(self) -> None:
        """Switches the adapters on again."""
        self.adapters.disable(False)

    def delete_adapter(self, adapter_name: str) -> None:
        """Forgets an adapter. If it was active, the first one left becomes active."""
        was_active = adapter_name in self.adapters.active
        self.adapters.delete(adapter_name)
        if was_active and self.adapters.active:
            warnings.warn(
                f"Adapter {adapter_name} was active which is now deleted. Setting active adapter "
                f"to {self.adapters.active[0]}.",
                stacklevel=2,
            )

    def merge_adapter(
        self, adapter_names: list[str] | None = None, safe_merge: bool = False
    ) -> None:
        """Merges adapters into the weights; `unmerge_adapter` restores them bit for bit."""
        self.adapters.merge(adapter_names, safe_merge=safe_merge)

    def unmerge_adapter(self) -> None:
        """Takes merged adapters out again."""
        self.adapters.unmerge()

    def merge_and_unload(
        self,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> nn.Module:
        """Returns the plain model with the active (or named) adapters merged in."""
        if adapter_names is not None:
            self.adapters.unmerge()
            self.adapters.set(adapter_names)
        if safe_merge:
            self.adapters.merge(safe_merge=True)
        self._unload(merge=True)
        untie(self.adapters.model)
        return self.model

    def unload(self) -> nn.Module:
        """Returns the plain base model, as it was before."""
        self._unload(merge=False)
        return self.model

    def _unload(self, merge: bool) -> None:
        self.adapters.unload(merge=merge).__dict__.pop("peft_config", None)

    def add_weighted_adapter(
        self,
        adapters: list[str],
        weights: list[float],
        adapter_name: str,
        combination_type: str = "svd",
        svd_rank: int | None = None,
        svd_clamp: float | None = None,
        svd_full_matrices: bool = True,
        svd_driver: str | None = None,
        density: float | None = None,
        majority_sign_method: SignMethod = "total",
    ) -> None:
        """Adds an adapter that is a weighted combination of others, as in PEFT.

        ``svd_full_matrices`` and ``svd_driver`` only choose how the SVD is computed and
        are accepted without effect.

        Raises:
            ConfigError: ``svd_clamp`` is set, or the type does not exist.
        """
        if adapter_name in self.adapters.configs:
            return
        if svd_clamp is not None:
            raise ConfigError("svd_clamp: lorafit does not clamp the factors; leave it out.")
        active = list(self.adapters.active)
        add_weighted(
            self.adapters,
            adapter_name,
            adapters,
            weights,
            combination_type=combination_type,
            svd_rank=svd_rank,
            density=density,
            majority_sign_method=majority_sign_method,
        )
        if self.adapters.active != active:
            self.adapters.set(active)
        self.adapters.configs[adapter_name] = as_peft(self.adapters.configs[adapter_name])

    def get_peft_config_as_dict(self, inference: bool = False) -> dict[str, Any]:
        """The configurations as plain dictionaries."""
        return {
            name: config.model_dump() | ({"inference_mode": True} if inference else {})
            for name, config in self.peft_config.items()
        }


def _refuse_mixed(kwargs: dict[str, Any]) -> None:
    """Takes PEFT's argument for batches of several adapters out, and refuses a value."""
    if kwargs.pop("adapter_names", None) is not None:
        raise ConfigError(
            "adapter_names: lorafit does not mix adapters in one batch; call the model once "
            "for each adapter (`set_adapter`)."
        )


def as_peft(config: MethodConfig) -> LoraConfig:
    """A core configuration as the class that scripts know."""
    if isinstance(config, LoraConfig):
        return config
    return LoraConfig(**config.model_dump(exclude={"peft_type"}))


def with_targets(config: LoraConfig, model: nn.Module, sites: Sequence[Site]) -> LoraConfig:
    """The configuration with names of layers where it leaves them open or says "all-linear"."""
    targets = config.target_modules
    if targets is None and config.target_parameters:
        targets = set()
    elif targets is None:
        targets = default_targets(model, sites)
    elif isinstance(targets, str) and targets.lower() == ALL_LINEAR:
        targets = all_linear(model, sites, config.task_type)
    return config.model_copy(update={"target_modules": targets})


def all_linear(model: nn.Module, sites: Sequence[Site], task_type: str | None) -> set[str]:
    """PEFT's ``"all-linear"``: every weight matrix but the output embeddings.

    With ``SEQ_CLS`` the module ``score``, or else ``classifier``, is left out; other heads
    are targets. (In lorafit's own pipeline ``"all-linear"`` never means the head.)
    """
    output = output_embeddings(model)
    if output is None and task_type == TaskType.SEQ_CLS:
        heads = (getattr(model, name, None) for name in ("score", "classifier"))
        output = next((head for head in heads if head is not None), None)
    left_out = {path for path, module in model.named_modules() if module is output}
    return {s.path for s in sites if s.kind != "embedding" and s.path not in left_out}


def default_targets(model: nn.Module, sites: Sequence[Site]) -> set[str]:
    """What PEFT adapts when nothing is said: queries and values, or the fused projection.

    PEFT has a table of model types; here the projections are recognised by where they
    stand and by their names.

    Raises:
        TargetError: The attention has no such layers.
    """
    names = {site.name for site in sites if site.role == "attention"}
    chosen = {n for n in names if _FUSED.fullmatch(n)}
    chosen = chosen or {n for n in names if _QUERY_VALUE.fullmatch(n)}
    if not chosen:
        raise TargetError(
            f"please specify target_modules: {type(model).__name__} has {summary(sites)}."
        )
    return chosen


def adapters_of(model: nn.Module) -> Adapters:
    """The adapters of a `PeftModel`, a `LoraModel` or a model with injected adapters.

    Raises:
        AdapterError: There are none.
    """
    for owner, attribute in (
        (getattr(model, "base_model", None), "adapters"),
        (model, "adapters"),
        (model, _INJECTED),
    ):
        adapters = getattr(owner, "__dict__", {}).get(attribute)
        if isinstance(adapters, Adapters):
            return adapters
    raise AdapterError(f"this {type(model).__name__} has no adapters of lorafit.")


def inject(config: LoraConfig, model: nn.Module, name: str) -> None:
    """Adds an adapter to a model that is not wrapped, and remembers it there."""
    adapters = model.__dict__.get(_INJECTED)
    if adapters is None:
        tuner = LoraModel(model, config, name)
        object.__setattr__(model, _INJECTED, tuner.adapters)
        object.__setattr__(model, _SITES, tuner._sites)  # noqa: SLF001 of the class above
    else:
        adapters.add(with_targets(config, model, model.__dict__[_SITES]), name)
