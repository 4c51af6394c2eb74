"""What a PEFT method is, and the layer that every layer-wise method builds on.

A method chooses sites and wraps the layers there. The wrapper computes what the
adapted layer returns, and its `AdapterLayer.delta_weight` says how the frozen weight
would have to change to compute the same. Finding layers, freezing, saving and merging
are not the method's business: they live once, in ``adapt.py`` and ``export/``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from lorafit.errors import AdapterError
from lorafit.model.sites import Site

Family = Literal["selective", "reparametrization", "additive", "yardstick"]


class MethodConfig(BaseModel):
    """Settings that every method has, in PEFT's spelling."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    peft_type: str
    task_type: str | None = None
    inference_mode: bool = False
    base_model_name_or_path: str | None = None
    revision: str | None = None
    modules_to_save: list[str] | None = None
    """Modules trained whole and saved with the adapter, such as a new head."""


class Method(ABC):
    """One PEFT method."""

    family: ClassVar[Family]
    config_class: ClassVar[type[MethodConfig]]
    recommended: ClassVar[dict[str, Any]] = {}
    """Settings the pipeline starts from where the PEFT-compatible defaults are another choice."""

    @abstractmethod
    def select(self, model: nn.Module, sites: Sequence[Site], config: MethodConfig) -> list[Site]:
        """Chooses the sites to adapt.

        Raises:
            TargetError: A pattern of the configuration matches nothing.
        """

    @abstractmethod
    def wrap(self, layer: nn.Module, site: Site) -> AdapterLayer:
        """Returns the adapter layer around one frozen layer, without adapters yet."""


class AdapterLayer(nn.Module, ABC):
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

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.active_adapters: list[str] = []
        self.merged_adapters: list[str] = []
        self.disable_adapters = False
        self._pristine: nn.Parameter | None = None

    @abstractmethod
    def add_adapter(self, name: str, config: MethodConfig, site: Site) -> None:
        """Adds one freshly initialised adapter; the layer's output does not change by it."""

    @abstractmethod
    def has_adapter(self, name: str) -> bool:
        """Whether an adapter of this name is here."""

    @abstractmethod
    def delete_adapter(self, name: str) -> None:
        """Forgets one adapter; nothing happens if it is not here."""

    @abstractmethod
    def delta_weight(self, name: str) -> torch.Tensor:
        """How one adapter changes the base weight: float32, shaped like the base weight."""

    @abstractmethod
    def adapter_state(self, name: str) -> dict[str, torch.Tensor]:
        """The adapter's tensors under their on-disk names relative to this layer."""

    @abstractmethod
    def load_adapter_state(self, name: str, tensors: dict[str, torch.Tensor]) -> None:
        """Copies tensors as `adapter_state` names and shapes them into the adapter."""

    def parameters_of(self, name: str) -> dict[str, nn.Parameter]:
        """The trainable parameters of one adapter, by their path relative to this layer."""
        return {
            path: parameter
            for attribute in self.adapter_layer_names
            for path, parameter in getattr(self, attribute).named_parameters(prefix=attribute)
            if path.split(".")[1] == name
        }

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
        original = self._pristine if self._pristine is not None else self.weight
        if not original.is_floating_point():
            raise AdapterError(
                f"a {type(self.base_layer).__name__} with {original.dtype} weights cannot take "
                "a merge; load the base model unquantized to merge."
            )
        with torch.no_grad():
            merged = original.float()
            for name in [*self.merged_adapters, *new]:
                merged = merged + self.delta_weight(name).to(merged.device)
            if safe_merge and not torch.isfinite(merged).all():
                raise AdapterError(f"merging {', '.join(new)} gives weights that are not finite.")
            merged = merged.to(original.dtype)
        self._pristine = original
        self.base_layer.weight = nn.Parameter(merged, requires_grad=False)
        self.merged_adapters += new

    def unmerge(self) -> None:
        """Takes every merged adapter out again: the base weight is the original parameter."""
        if self._pristine is not None:
            self.base_layer.weight = self._pristine
            self._pristine = None
        self.merged_adapters.clear()

    @property
    def pristine_weight(self) -> torch.Tensor:
        """The base weight without anything merged."""
        return self._pristine if self._pristine is not None else self.weight


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
