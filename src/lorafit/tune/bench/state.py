"""A point of a training that can be gone back to: weights, optimizer, generators, adapter.

Everything a strategy does is a function of such a state, so that a branch starts exactly
where the trunk stands, and a killed run is repeated from the last state on disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from lorafit.training.generators import Generators
from lorafit.tune.bench.adamw import RowAdamW

_FACTORS = {
    # Part of the parameter's path to the dimension that the rank is.
    "lora_A": 0,
    "lora_B": 1,
    "lora_embedding_A": 0,
    "lora_embedding_B": 1,
}


@dataclass(frozen=True)
class Shape:
    """What an adapter is made of, less its numbers.

    Attributes:
        settings: The method's settings that a strategy may change: ``r``, ``lora_alpha``,
            ``target_modules``.
    """

    settings: Mapping[str, Any]

    def with_(self, **settings: Any) -> Shape:
        """The same with other settings."""
        return Shape({**self.settings, **settings})

    def same_sites(self, other: Shape) -> bool:
        """Whether the two are on the same layers."""
        return bool(self.settings.get("target_modules") == other.settings.get("target_modules"))


@dataclass(frozen=True, eq=False)
class State:
    """A point of a training.

    Attributes:
        step: Optimizer steps taken.
        shape: The adapter's settings.
        tensors: ``weight/<name>``, ``exp_avg/<name>``, ``exp_avg_sq/<name>``, ``step/<name>``
            and the generators' ``generator/<name>``; none once nothing starts from it.
        generators: The generators' other values, JSON.
        factors: Parameters of the low-rank factors. They are counted when the state is made and
            written down with it: what is decided by them must not depend on whether the tensors
            are still there.
    """

    step: int
    shape: Shape
    tensors: dict[str, Tensor]
    generators: Generators
    factors: int

    @classmethod
    def of(
        cls, step: int, shape: Shape, tensors: dict[str, Tensor], generators: Generators
    ) -> State:
        """A state with all its tensors; the factors are counted in them."""
        return cls(step, shape, tensors, generators, count_factors(tensors))

    def of_kind(self, kind: str) -> dict[str, Tensor]:
        """The tensors of one kind by name: ``weight``, ``generator``, ..."""
        prefix = f"{kind}/"
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    def factors_at(self, r: int) -> int:
        """Parameters that the low-rank factors would have at another rank."""
        return self.factors * r // int(self.shape.settings["r"])

    def forget(self) -> None:
        """Lets go of the tensors, wherever this state is held; the rest stays."""
        self.tensors.clear()


def rank_dimension(name: str) -> int | None:
    """The dimension of a parameter that the rank is; ``None``: it has none."""
    return next((d for part in name.split(".") if (d := _FACTORS.get(part)) is not None), None)


def count_factors(tensors: Mapping[str, Tensor]) -> int:
    """Parameters of the low-rank factors among a state's tensors."""
    kind = "weight/"
    return factors_in({k.removeprefix(kind): v for k, v in tensors.items() if k.startswith(kind)})


def factors_in(weights: Mapping[str, Tensor]) -> int:
    """How many of these numbers are in low-rank factors."""
    return sum(w.numel() for name, w in weights.items() if rank_dimension(name) is not None)


def grown(state: State, fresh: Mapping[str, Tensor], shape: Shape, scale: float) -> State:
    """The state with factors of a larger rank that compute the same.

    ``A' = [A; A_new]``, ``B' = [scale * B, 0]``: with ``scale`` the old scaling over the new
    one, ``s' B' A' = s B A``. New rows have their own moments and step counter, zero; the
    old ones' moments follow the change of scale of their gradients.

    Args:
        state: The smaller one.
        fresh: The weights of a freshly initialised adapter of the new shape, by name.
        shape: Of the result.
        scale: Old scaling divided by new scaling.
    """
    tensors = dict(state.tensors)
    r = int(state.shape.settings["r"])
    for name, start in fresh.items():
        dim = rank_dimension(name)
        if dim is None:
            continue
        weight = state.tensors[f"weight/{name}"]
        stack = Stack(dim, weight.shape[dim] // r)
        weight, start = stack.apart(weight), stack.apart(start)
        own = weight.shape[1]
        extra = start[:, own:]
        # A keeps its gradient; B's is proportional to the scaling.
        is_b = dim == 1
        factor = scale if is_b else 1.0

        def put(
            kind: str, old: Tensor, new: Tensor, name: str = name, stack: Stack = stack
        ) -> None:
            tensors[f"{kind}/{name}"] = stack.together(torch.cat([old, new], dim=1))

        put("weight", weight * factor, torch.zeros_like(extra) if is_b else extra)
        if f"step/{name}" not in state.tensors:
            continue
        nothing = torch.zeros_like(extra)
        moments = {"exp_avg": 1.0 / factor, "exp_avg_sq": 1.0 / factor**2}
        for kind, change in moments.items():
            put(kind, stack.apart(state.tensors[f"{kind}/{name}"]) * change, nothing)
        counted = [1, 1]
        counted[dim] = state.tensors[f"weight/{name}"].shape[dim]
        steps = stack.apart(state.tensors[f"step/{name}"].expand(counted))
        put("step", steps, torch.zeros((len(steps), extra.shape[1], *steps.shape[2:])))
    return State.of(state.step, shape, tensors, state.generators)


@dataclass(frozen=True)
class Stack:
    """How the ranks of several matrices are laid out in one factor.

    A layer has one matrix. Weights that are no layers may be a stack of them, such as experts:
    ``A (experts r, d_in)`` has the ranks of an expert together, ``B (d_out, r experts)`` the
    experts of a rank.

    Attributes:
        dim: The dimension the ranks are in: 0 for ``A``, 1 for ``B``.
        matrices: How many there are.
    """

    dim: int
    matrices: int

    def apart(self, factor: Tensor) -> Tensor:
        """``A`` as ``(experts, r, d_in)``, ``B`` as ``(d_out, r, experts)``."""
        if self.dim == 0:
            return factor.reshape(self.matrices, -1, factor.shape[1])
        return factor.reshape(factor.shape[0], -1, self.matrices)

    def together(self, apart: Tensor) -> Tensor:
        """The inverse of `apart`."""
        return apart.reshape(-1, apart.shape[2]) if self.dim == 0 else apart.flatten(1)


def without(state: State, names: set[str], shape: Shape) -> State:
    """The state without the tensors of some parameters."""
    kept = {k: v for k, v in state.tensors.items() if k.partition("/")[2] not in names}
    return State.of(state.step, shape, kept, state.generators)


def capture(trainable: Mapping[str, Parameter], optimizer: RowAdamW) -> dict[str, Tensor]:
    """Copies of the weights and of what the optimizer knows of them."""
    tensors = {f"weight/{name}": p.detach().clone() for name, p in trainable.items()}
    for name, parameter in trainable.items():
        for kind, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{kind}/{name}"] = value.detach().clone()
    return tensors


def put_back(state: State, trainable: Mapping[str, Parameter], optimizer: RowAdamW) -> None:
    """Inverse of `capture`, for parameters of the same shapes."""
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(state.tensors[f"weight/{name}"])
            parameter.grad = None
            optimizer.state.pop(parameter, None)
            if f"step/{name}" in state.tensors:
                optimizer.state[parameter] = {
                    kind: state.tensors[f"{kind}/{name}"].clone()
                    for kind in ("step", "exp_avg", "exp_avg_sq")
                }
