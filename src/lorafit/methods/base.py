"""What a PEFT method is, and the layer that every layer-wise method builds on.

A method trains the base in one of two ways, or both:

- It chooses *sites* and wraps the layers there. The wrapper computes what the adapted
  layer returns, and its `AdapterLayer.delta_weight` says how the frozen weight would have
  to change to compute the same.
- It names *parameters* of the base. Copies of them are put in the originals' places and
  trained; the originals stay untouched beside them.

Finding layers, freezing, saving and merging are not the method's business: they live
once, in ``adapt/`` and ``export/``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn
from typing_extensions import TypeVar

from lorafit.errors import AdapterError
from lorafit.model.sites import Site, shape_of

Family = Literal["selective", "reparametrization", "additive", "yardstick"]


class MethodConfig(BaseModel):
    """Settings that every method has, in PEFT's spelling."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)
    prompt_learning: ClassVar[bool] = False
    """Whether PEFT counts the method as prompt learning, whose files look different."""

    peft_type: str
    task_type: str | None = None
    inference_mode: bool = False
    base_model_name_or_path: str | None = None
    revision: str | None = None
    modules_to_save: list[str] | None = None
    """Modules trained whole and saved with the adapter, such as a new head."""


C = TypeVar("C", bound=MethodConfig, default=Any)
"""The configuration of one method; where any method may come, any."""


class Method(ABC, Generic[C]):
    """One PEFT method with settings of class ``C``."""

    family: ClassVar[Family]
    config_class: type[C]
    recommended: ClassVar[Mapping[str, object]] = {}
    """Settings the pipeline starts from where the PEFT-compatible defaults are another choice."""
    starts_at_base: ClassVar[bool] = True
    """Whether a fresh adapter leaves the model's outputs as they are; if not, the method's
    documentation explains why."""
    preset_of: ClassVar[str | None] = None
    """The method whose settings this name recommends other values of."""
    trains_embeddings: ClassVar[bool] = False
    """Whether the embeddings are trained whole, whatever is set."""
    learning_rate: ClassVar[float | None] = None
    """Peak learning rate the pipeline starts from; ``None``: `TrainConfig`'s."""

    @classmethod
    def starting_from(cls, given: Mapping[str, object]) -> dict[str, object]:
        """What is recommended beside what is set: `recommended`, less what does not go with it.

        Args:
            given: Settings of the method that somebody set.
        """
        return dict(cls.recommended)

    def select(self, model: nn.Module, sites: Sequence[Site], config: C) -> list[Site]:
        """Chooses the sites to adapt; none for methods that only train parameters.

        Raises:
            TargetError: A pattern of the configuration matches nothing.
            ConfigError: The method does not fit the model; the message says why.
        """
        return []

    def wrap(self, layer: nn.Module, site: Site) -> AdapterLayer:
        """Returns the adapter layer around one frozen layer, without adapters yet."""
        raise NotImplementedError(f"{type(self).__name__} wraps no layers")

    def add(self, layer: AdapterLayer, name: str, config: C, site: Site) -> None:
        """Puts one freshly initialised adapter on a layer that `wrap` made."""
        layer.add_adapter(name, config, site)

    def parameters(
        self,
        model: nn.Module,
        names: Sequence[str],
        sites: Sequence[Site],
        config: C,
    ) -> list[str]:
        """Chooses the parameters of the base that are trained in copies of their own.

        Args:
            model: The model, perhaps with adapters on it already.
            names: What there is to choose from, in the plain model's spelling: all
                parameters but those of modules trained whole.
            sites: What `select` chose.
            config: The adapter's configuration.

        Raises:
            ConfigError: The method does not fit the model; the message says why.
        """
        return []

    def resolved(
        self, model: nn.Module, sites: Sequence[Site], names: Sequence[str], config: C
    ) -> C:
        """The configuration with what was found in the model filled in, as it goes on disk."""
        return config

    def saved_name(self, name: str, sites: Sequence[Site]) -> str:
        """Under which name the copy of a base parameter is saved."""
        return name

    def calibration_batches(self, config: C) -> int:
        """How many training batches of gradients the method looks at before training."""
        return 0

    def calibrate(
        self,
        layers: Mapping[str, AdapterLayer],
        gradients: Mapping[str, torch.Tensor],
        name: str,
        config: C,
    ) -> C:
        """Makes a new adapter ready with gradients of the base weights.

        Args:
            layers: The adapter's layers by site path.
            gradients: Of each layer's base weight, summed over the batches.
            name: The adapter.
            config: Its configuration.

        Returns:
            The configuration, with what was chosen filled in.
        """
        return config

    def reserved_tokens(self, config: C) -> int:
        """How many of the model's positions the method takes itself."""
        return 0


class AdapterLayer(nn.Module, ABC, Generic[C]):
    """A frozen layer with any number of named adapters around it.

    Attribute names are PEFT's, so that code written for its layers runs unchanged.

    Attributes:
        base_layer: The frozen layer.
        active_adapters: The adapters that take part in the forward pass, in order.
        merged_adapters: The adapters whose change is in the base layer's weight now.
        disable_adapters: While true, the layer computes what its base layer computes.
    """

    adapter_layer_names: ClassVar[tuple[str, ...]]
    """Attributes that hold one trainable entry per adapter name."""
    unmergeable: ClassVar[str] = ""
    """Why no weight of the base layer computes the same; empty: one does."""

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.active_adapters: list[str] = []
        self.merged_adapters: list[str] = []
        self.disable_adapters = False
        self._pristine: dict[str, nn.Parameter] = {}
        shape = shape_of(base_layer)
        if shape is not None:
            _, self.in_features, self.out_features = shape

    @abstractmethod
    def add_adapter(self, name: str, config: C, site: Site) -> None:
        """Adds one freshly initialised adapter; the layer's output does not change by it."""

    def has_adapter(self, name: str) -> bool:
        """Whether an adapter of this name is here."""
        return any(name in getattr(self, attribute) for attribute in self.adapter_layer_names)

    def delete_adapter(self, name: str) -> None:
        """Forgets one adapter; nothing happens if it is not here."""
        for attribute in self.adapter_layer_names:
            entries = getattr(self, attribute)
            if name in entries:
                del entries[name]

    def delta_weight(self, name: str) -> torch.Tensor:
        """How one adapter changes the base weight: float32, shaped like the base weight."""
        raise AdapterError(f"{type(self).__name__} has no change of the weight: {self.unmergeable}")

    def adapter_state(self, name: str) -> dict[str, torch.Tensor]:
        """The adapter's tensors under their on-disk names relative to this layer."""
        names = self.saved_names(name)
        return {names[path]: p.detach() for path, p in self.parameters_of(name).items()}

    def saved_names(self, name: str) -> dict[str, str]:
        """What the adapter's parameters are called on disk, by their path in this layer."""
        return {
            path: ".".join(part for i, part in enumerate(path.split(".")) if i != 1)
            for path in self.parameters_of(name)
        }

    def shared_state(self, name: str) -> dict[str, torch.Tensor]:
        """Frozen tensors that all layers of the adapter share; on disk they stand alone."""
        return {}

    def load_adapter_state(self, name: str, tensors: dict[str, torch.Tensor]) -> None:
        """Copies tensors as `adapter_state` names and shapes them into the adapter."""
        with torch.no_grad():
            for key, own in self.adapter_state(name).items():
                own.copy_(tensors[key])

    def _running(self) -> list[str]:
        """Adapters that the forward pass has to compute."""
        if self.disable_adapters or self.merged_adapters:
            return []
        return [name for name in self.active_adapters if self.has_adapter(name)]

    def parameters_of(self, name: str) -> dict[str, nn.Parameter]:
        """The trainable parameters of one adapter, by their path relative to this layer."""
        return {
            path: parameter
            for attribute in self.adapter_layer_names
            for path, parameter in getattr(self, attribute).named_parameters(prefix=attribute)
            if path.split(".")[1] == name
        }

    def adapters_here(self) -> list[str]:
        """The adapters of this layer."""
        entries = (getattr(self, attribute) for attribute in self.adapter_layer_names)
        return list(dict.fromkeys(name for entry in entries for name in entry))

    def set_adapter(self, adapter_names: str | Sequence[str], inference_mode: bool = False) -> None:
        """PEFT: makes adapters of this layer active and, unless ``inference_mode``, trainable."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        self.unmerge()
        self.active_adapters = names
        for name in self.adapters_here():
            for parameter in self.parameters_of(name).values():
                parameter.requires_grad_(name in names and not inference_mode)

    def enable_adapters(self, enabled: bool) -> None:
        """PEFT: switches the adapters of this layer on, or off and frozen."""
        if enabled:
            self.set_adapter(self.active_adapters)
        else:
            self.unmerge()
            for name in self.adapters_here():
                for parameter in self.parameters_of(name).values():
                    parameter.requires_grad_(False)
        self.disable_adapters = not enabled

    @property
    def weight(self) -> nn.Parameter:
        """The base layer's weight; some models look at its dtype or device."""
        weight: nn.Parameter = self.base_layer.weight  # type: ignore[assignment]
        return weight

    @property
    def bias(self) -> nn.Parameter | None:
        """The base layer's bias."""
        bias: nn.Parameter | None = getattr(self.base_layer, "bias", None)
        return bias

    @property
    def active_adapter(self) -> str | list[str]:
        """PEFT's spelling: the name if there is one, else the list."""
        return self.active_adapters[0] if len(self.active_adapters) == 1 else self.active_adapters

    @property
    def merged(self) -> bool:
        """Whether any adapter is merged."""
        return bool(self.merged_adapters)

    def get_base_layer(self) -> nn.Module:
        """PEFT's spelling of `base_layer`."""
        return self.base_layer

    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        """PEFT's spelling of `delta_weight`."""
        return self.delta_weight(adapter)

    def merge(self, safe_merge: bool = False, adapter_names: Sequence[str] | None = None) -> None:
        """Puts adapters into the base weight; the layer then costs what the base costs.

        The sum is formed in float32 and rounded once. The original parameter is kept
        aside untouched, so that `unmerge` restores it bit for bit in any dtype, and a
        weight tied to another layer is not changed there.

        Args:
            safe_merge: Refuse a result that is not finite.
            adapter_names: Which adapters; ``None``: the active ones.

        Raises:
            AdapterError: With ``safe_merge``, for a result that is not finite.
        """
        names = self.active_adapters if adapter_names is None else adapter_names
        new = [n for n in names if self.has_adapter(n) and n not in self.merged_adapters]
        if not new:
            return
        if self.unmergeable:
            raise AdapterError(f"{', '.join(new)} cannot be merged: {self.unmergeable}.")
        original = self.pristine_weight
        if not original.is_floating_point():
            raise AdapterError(
                f"a {type(self.base_layer).__name__} with {original.dtype} weights cannot take "
                "a merge; load the base model unquantized to merge."
            )
        with torch.no_grad():
            merged = self.merged_values([*self.merged_adapters, *new])
        if safe_merge and not all(torch.isfinite(value).all() for value in merged.values()):
            raise AdapterError(f"merging {', '.join(new)} gives weights that are not finite.")
        for key, value in merged.items():
            kept = self._pristine.setdefault(key, getattr(self.base_layer, key))
            setattr(self.base_layer, key, nn.Parameter(value.to(kept.dtype), requires_grad=False))
        self.merged_adapters += new

    def merged_values(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """The base layer's parameters that adapters change, with the change, in float32."""
        weight = self.pristine_weight.float()
        for name in names:
            weight = weight + self.delta_weight(name).to(weight.device)
        return {"weight": weight}

    def unmerge(self) -> None:
        """Takes every merged adapter out again: the base has its original parameters."""
        for key, parameter in self._pristine.items():
            setattr(self.base_layer, key, parameter)
        self._pristine.clear()
        self.merged_adapters.clear()

    def pristine(self, key: str) -> nn.Parameter | None:
        """A parameter of the base layer without anything merged."""
        parameter: nn.Parameter | None = self._pristine.get(
            key, getattr(self.base_layer, key, None)
        )
        return parameter

    @property
    def pristine_weight(self) -> nn.Parameter:
        """The base weight without anything merged."""
        return self._pristine.get("weight", self.weight)


class CallLayer(AdapterLayer[C]):
    """An adapter layer that also changes the arguments of the model's call.

    ``adapt/`` has the model call these two around its own forward pass.
    """

    @property
    def positions(self) -> int:
        """How many of the model's positions the active adapters take."""
        return 0

    def called(self, model: nn.Module) -> nn.Module:
        """The module whose call is changed: the model, or a part of it."""
        return model

    @abstractmethod
    def before_call(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Returns the arguments the model is to be called with."""

    @abstractmethod
    def after_call(self, output: Any) -> Any:
        """Returns the output that the caller is to see."""


class ModulesToSaveWrapper(nn.Module):
    """A module trained whole: one copy per adapter beside the untouched original.

    PEFT's name and attribute names. The original is what runs while no adapter of this
    module is active. The copies are float32 whatever the base is; they take the base's
    activations and return its dtype, as the original does.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.original_module = module
        self.modules_to_save = nn.ModuleDict()
        self.active_adapters: list[str] = []
        self.disable_adapters = False

    @property
    def active_adapter(self) -> str | None:
        """The adapter whose copy runs."""
        return self.active_adapters[0] if self.active_adapters else None

    @property
    def current(self) -> nn.Module:
        """The module that runs now."""
        if self.disable_adapters or not self.active_adapters:
            return self.original_module
        return self.modules_to_save[self.active_adapters[0]]

    def set_adapter(self, adapter_names: str | Sequence[str], inference_mode: bool = False) -> None:
        """PEFT: makes the copy of one adapter active and, unless ``inference_mode``, trainable."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        self.active_adapters = [name for name in names if name in self.modules_to_save]
        for name, module in self.modules_to_save.items():
            module.requires_grad_(name in self.active_adapters and not inference_mode)

    def enable_adapters(self, enabled: bool) -> None:
        """PEFT: switches the copies on, or off: then the original runs."""
        self.disable_adapters = not enabled
        if enabled:
            self.set_adapter(self.active_adapters)
        else:
            self.modules_to_save.requires_grad_(False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the active copy."""
        module = self.current
        if module is self.original_module:
            return module(*args, **kwargs)
        outside, inside = _float_dtype(self.original_module), _float_dtype(module)
        if outside == inside or torch.is_autocast_enabled(_device_type(module)):
            return module(*args, **kwargs)
        args, kwargs = _cast(args, inside), _cast(kwargs, inside)
        return _cast(module(*args, **kwargs), outside)

    def __getattr__(self, name: str) -> Any:
        """Looks other attributes (``weight``, ``in_features``) up on the running module."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ("original_module", "modules_to_save"):
                raise
            return getattr(self.current, name)


def _float_dtype(module: nn.Module) -> torch.dtype | None:
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), None)


def _device_type(module: nn.Module) -> str:
    return next((p.device.type for p in module.parameters()), "cpu")


def _cast(value: Any, dtype: torch.dtype | None) -> Any:
    """Casts the floating-point tensors in arguments or results; all else stays."""
    if isinstance(value, torch.Tensor) and value.is_floating_point() and dtype is not None:
        return value.to(dtype)
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_cast(item, dtype) for item in value)
    return value
