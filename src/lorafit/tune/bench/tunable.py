"""The model with one adapter whose shape can change, and the way from and to its states."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from lorafit.adapt import Adapters
from lorafit.config import Config
from lorafit.methods.base import MethodConfig
from lorafit.methods.lora import LoraLayer
from lorafit.training import head
from lorafit.training.generators import generator_states, restore_generators
from lorafit.training.optim import parameter_groups
from lorafit.training.seed import seed_everything
from lorafit.tune.bench.adamw import RowAdamW
from lorafit.tune.bench.state import (
    Shape,
    State,
    capture,
    factors_in,
    grown,
    put_back,
    rank_dimension,
    without,
)
from lorafit.tune.bench.truncation import cut


class Tunable:
    """What a strategy trains.

    Args:
        adapters: Of a model with a fresh adapter.
        config: Of the run.
        keeps_scaling: Whether ``lora_alpha`` goes with r; otherwise it stays.

    Attributes:
        shape: Of the fresh adapter a search begins with.
    """

    def __init__(self, adapters: Adapters, config: Config, keeps_scaling: bool) -> None:
        self.adapters = adapters
        self._config = config
        self.keeps_scaling = keeps_scaling
        self._fresh = adapters.configs["default"]
        self.shape = Shape(
            {
                name: sorted(value) if isinstance(value, set) else value
                for name in ("r", "lora_alpha", "target_modules")
                if (value := getattr(self._fresh, name, None)) is not None
            }
        )
        self._current: Shape = self.shape
        self._head: Mapping[str, Tensor] = {}

    def begin_head(self, weights: Mapping[str, Tensor]) -> None:
        """Has this adapter, and every fresh one, begin with a head of these weights, by name."""
        self._head = weights
        head.put(self.trainable(), weights)

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """What trains now."""
        return self.adapters.trainable()

    def factors(self) -> int:
        """Parameters of the low-rank factors that are on the model; 0 for methods without."""
        return factors_in(self.trainable())

    # Shapes

    def of_rank(self, shape: Shape, r: int) -> Shape:
        """A shape with another rank at the same scaling, or at the same ``lora_alpha``."""
        if not self.keeps_scaling:
            return shape.with_(r=r)
        factor = self.size(r) / self.size(shape.settings["r"])
        return shape.with_(r=r, lora_alpha=shape.settings["lora_alpha"] * factor)

    def size(self, r: int) -> float:
        """What ``lora_alpha`` is divided by at this rank."""
        return math.sqrt(r) if getattr(self._fresh, "use_rslora", False) else float(r)

    def _scaling(self, shape: Shape) -> float:
        return float(shape.settings["lora_alpha"]) / self.size(int(shape.settings["r"]))

    def largest_rank(self) -> int:
        """The rank above which an update of the narrowest layer is not low-rank."""
        sites = [s for s in self.adapters.sites["default"] if s.kind != "tokens"]
        return min(min(s.d_in, s.d_out) for s in sites)

    def begin_with(self, r: int, scaling: float) -> None:
        """Takes another rank than the configured one to start with, and another scaling.

        The scaling stays where the rates are for another one: where the user has set
        ``lora_alpha`` or the learning rate, and with rank-stabilised LoRA.
        """
        self.shape = self.of_rank(self.shape, r)
        if self.keeps_scaling and not getattr(self._fresh, "use_rslora", False):
            self.shape = self.shape.with_(lora_alpha=scaling * self.size(r))
        self._fresh_adapter(self.shape)

    def _fresh_adapter(self, shape: Shape) -> None:
        seed_everything(self._config.seed, self._config.deterministic)
        self._reshape(shape)
        head.put(self.trainable(), self._head)

    def _reshape(self, shape: Shape) -> None:
        """Puts a fresh adapter of this shape on the model."""
        values = self._fresh.model_dump() | dict(shape.settings)
        own: MethodConfig = type(self._fresh)(**values)
        self.adapters.delete("default")
        self.adapters.add(own)
        self._current = shape

    # States

    def start(self) -> State:
        """The adapter as it is on the model, before any step."""
        return self.captured(0, self._current, self._optimizer())

    def fresh(self, shape: Shape) -> State:
        """A fresh adapter of a shape, before any step; seeded as the first one was."""
        self._fresh_adapter(shape)
        return self.start()

    def grown(self, state: State, r: int) -> State:
        """The state with factors of rank ``r`` that compute the same."""
        shape = self.of_rank(state.shape, r)
        scale = self._scaling(state.shape) / self._scaling(shape)
        torch.manual_seed(self._config.seed * 1_000_003 + state.step * 1_009 + r)
        self._reshape(shape)
        fresh = {n: p.detach().clone() for n, p in self.trainable().items()}
        return grown(state, fresh, shape, scale)

    def cut(self, state: State, moments: Mapping[str, Tensor], r: int) -> State:
        """The state's best approximation of rank ``r``, to be scored or delivered."""
        shape = self.of_rank(state.shape, r)
        return cut(state, moments, shape, self._scaling(state.shape) / self._scaling(shape))

    def without(self, state: State, names: frozenset[str]) -> State:
        """The state without the adapters on the layers of these names."""
        if not state.shape.same_sites(self._current):
            self._reshape(state.shape)
        layers = [s for s in self.adapters.sites["default"] if s.is_layer]
        kept = sorted(site.path for site in layers if site.name not in names)
        left_out = [site.path for site in layers if site.name in names]
        gone = {
            name
            for name in state.of_kind("weight")
            if rank_dimension(name) is not None
            and any(name.startswith(f"{path}.") for path in left_out)
        }
        return without(state, gone, state.shape.with_(target_modules=kept))

    def load(self, state: State) -> RowAdamW:
        """Leaves a state in the model and in the generators; its optimizer."""
        if state.shape != self._current:
            self._reshape(state.shape)
        optimizer = self._optimizer()
        put_back(state, self.trainable(), optimizer)
        restore_generators(state.generators, state.of_kind("generator"))
        return optimizer

    def captured(self, step: int, shape: Shape, optimizer: RowAdamW) -> State:
        """The state the model is in."""
        values, tensors = generator_states()
        generators = {f"generator/{name}": value for name, value in tensors.items()}
        return State.of(step, shape, capture(self.trainable(), optimizer) | generators, values)

    def _optimizer(self) -> RowAdamW:
        settings = self._config.train
        return RowAdamW(
            parameter_groups(self.trainable(), settings.weight_decay),
            lr=1.0,
            betas=(settings.adam_beta1, settings.adam_beta2),
            eps=settings.adam_epsilon,
        )

    @contextlib.contextmanager
    def scaled(self, factor: float) -> Iterator[None]:
        """Inside, the update of the adapter is multiplied by a factor."""
        layers = [layer for layer in self.adapters.layers() if isinstance(layer, LoraLayer)]
        for layer in layers:
            layer.scale_layer(factor)
        try:
            yield
        finally:
            for layer in layers:
                layer.unscale_layer()
