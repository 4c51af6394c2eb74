"""A trained state at a smaller rank, and how much of its update each rank keeps.

Each layer's update is projected on the directions that carry most of its output
(`lorafit.methods.lora.truncate`). Weights that are no layers have a stack of matrices in a pair of
factors; each is truncated by itself, by plain SVD, for nothing tells its inputs apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lorafit.methods.lora.truncate import Directions, directions, truncated
from lorafit.tune.bench.state import Shape, Stack, State, rank_dimension


@dataclass(frozen=True)
class Pair:
    """The two factors of one or more updates.

    Attributes:
        path: Of the module.
        names: Of ``A`` and of ``B`` among the state's weights.
        updates: ``A (r, d_in)`` and ``B (d_out, r)`` of each matrix, float64 on the CPU.
        moment: ``(r, r)``, of the inputs; ``None``: not known.
    """

    path: str
    names: tuple[str, str]
    updates: list[tuple[Tensor, Tensor]]
    moment: Tensor | None

    def directions(self) -> list[Directions]:
        """The output directions of each matrix."""
        return [directions(A, B, self.moment) for A, B in self.updates]


def pairs(state: State, moments: Mapping[str, Tensor]) -> Iterator[Pair]:
    """All pairs of factors of a state.

    Args:
        state: It.
        moments: Of its inputs, as `lorafit.tune.bench.bench.LookedAt` has them.
    """
    r = int(state.shape.settings["r"])
    weights = state.of_kind("weight")
    for name, weight in weights.items():
        if rank_dimension(name) != 0:
            continue
        parts = name.split(".")
        at = next(i for i, part in enumerate(parts) if part in ("lora_A", "lora_embedding_A"))
        path = ".".join(parts[:at])
        other = ".".join([*parts[:at], f"{parts[at][:-1]}B", *parts[at + 1 :]])
        A = Stack(0, weight.shape[0] // r).apart(weight.cpu().double())
        B = Stack(1, weight.shape[0] // r).apart(weights[other].cpu().double())
        updates = [(A[i], B[:, :, i]) for i in range(len(A))]
        moment = moments.get(path) if len(updates) == 1 else None
        yield Pair(path, (name, other), updates, moment)


def cut(state: State, moments: Mapping[str, Tensor], shape: Shape, scale: float) -> State:
    """The state at a smaller rank.

    It has no memory of the optimizer: it is to be scored or delivered, not trained on.

    Args:
        state: The larger one.
        moments: Of its inputs.
        shape: Of the result, which has the rank.
        scale: Old scaling divided by new scaling.
    """
    r = int(shape.settings["r"])
    kept = ("weight/", "generator/")
    tensors = {name: tensor for name, tensor in state.tensors.items() if name.startswith(kept)}
    for pair in pairs(state, moments):
        found = zip(pair.updates, pair.directions(), strict=True)
        small = [truncated(A, B, r, one) for (A, B), one in found]
        factors = torch.stack([A for A, _ in small]), torch.stack([B for _, B in small], dim=2)
        for dim, (name, apart) in enumerate(zip(pair.names, factors, strict=True)):
            old = state.tensors[f"weight/{name}"]
            whole = Stack(dim, len(small)).together(apart * (scale if dim else 1.0))
            tensors[f"weight/{name}"] = whole.to(old).contiguous()
    return State.of(state.step, shape, tensors, state.generators)


def energies(state: State, moments: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """The energy ``|B A x|^2`` of each direction of each layer that has a moment, by path.

    The most important first, summed over the tokens of the moments.
    """
    return {
        pair.path: pair.directions()[0].values.square().tolist()
        for pair in pairs(state, moments)
        if pair.moment is not None
    }


def kept_share(found: Mapping[str, list[float]], r: int) -> float:
    """Share of the energy of all layers that rank ``r`` keeps, 0 to 1."""
    total = sum(sum(values) for values in found.values())
    return sum(sum(values[:r]) for values in found.values()) / total if total > 0 else 1.0
