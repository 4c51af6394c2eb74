r"""Combining trained low-rank updates into one.

Each update is a pair ``A (r, d_in)``, ``B (d_out, r)`` with a weight ``c`` (the adapter's
scale times the user's weight); the sum wanted is ``sum_i c_i B_i A_i``.

- ``cat`` is exact: the factors side by side, rank ``sum r_i``.
- ``svd`` is the best approximation of the sum at the rank asked for.
- ``linear`` adds the factors themselves, ``A = sum sqrt(c_i) A_i`` and likewise ``B``: a
  rough approximation with mixed terms, kept because PEFT has it.
- ``ties`` (Yadav et al. 2023, arXiv 2306.01708), ``dare_linear``, ``dare_ties`` (Yu et al.
  2023, arXiv 2311.03099) and ``magnitude_prune`` prune first and, for ties, keep only the
  values that agree with the majority's sign; they work on the factors, or with the ending
  ``_svd`` on the full updates.

The results are PEFT's ``add_weighted_adapter``'s; the tests hold them against it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from lorafit.errors import ConfigError, did_you_mean

SignMethod = Literal["total", "frequency"]


@dataclass(frozen=True)
class LowRank:
    """One update ``scaling * B A`` and its weight in the sum: ``A (r, d_in)``, ``B (d_out, r)``."""

    A: torch.Tensor
    B: torch.Tensor
    scaling: float
    weight: float

    @property
    def factor(self) -> float:
        """What stands before ``B A`` in the sum."""
        return self.scaling * self.weight


@dataclass(frozen=True)
class _Recipe:
    prune: Literal["magnitude", "random"] | None = None
    elect_sign: bool = False


_RECIPES = {
    "linear": _Recipe(),
    "magnitude_prune": _Recipe("magnitude"),
    "ties": _Recipe("magnitude", elect_sign=True),
    "dare_linear": _Recipe("random"),
    "dare_ties": _Recipe("random", elect_sign=True),
}

COMBINATION_TYPES = (
    "cat",
    "svd",
    *_RECIPES,
    *(f"{name}_svd" for name in _RECIPES if name != "linear"),
)


def new_rank(
    combination_type: str,
    ranks: Sequence[int],
    svd_rank: int | None = None,
    density: float | None = None,
) -> int:
    """Checks a combination before anything is changed, and returns its rank.

    Raises:
        ConfigError: The type is unknown, adds factors of different ranks, or prunes and
            was given no density in (0, 1].
    """
    if combination_type not in COMBINATION_TYPES:
        raise ConfigError(
            f'there is no combination_type "{combination_type}"; there is '
            f"{', '.join(COMBINATION_TYPES)}.{did_you_mean(combination_type, COMBINATION_TYPES)}"
        )
    prunes = combination_type not in ("cat", "svd", "linear")
    if prunes and (density is None or not 0.0 < density <= 1.0):
        raise ConfigError(f'combination_type="{combination_type}" takes a density in (0, 1].')
    if combination_type == "cat":
        return sum(ranks)
    if combination_type.endswith("svd"):
        return svd_rank or max(ranks)
    if len(set(ranks)) > 1:
        raise ConfigError(
            f'combination_type="{combination_type}" adds the factors, so the ranks have to be '
            f'equal, got {", ".join(map(str, ranks))}; "cat" and "svd" take any.'
        )
    return ranks[0]


def combine(
    updates: Sequence[LowRank],
    combination_type: str,
    rank: int,
    density: float | None = None,
    majority_sign_method: SignMethod = "total",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Combines the updates of one layer.

    Args:
        updates: At least one.
        combination_type: One of `COMBINATION_TYPES`.
        rank: What `new_rank` says, or more: the result is filled up with zeros.
        density: Share of values that pruning keeps, in (0, 1].
        majority_sign_method: Whether values or only their signs vote.

    Returns:
        ``A (rank, d_in)`` and ``B (d_out, rank)`` with the weights inside.
    """
    if combination_type == "cat":
        A = torch.cat([u.factor * u.A for u in updates])
        B = torch.cat([u.B for u in updates], dim=1)
        return _padded(A, B, rank)
    name = "linear" if combination_type == "svd" else combination_type.removesuffix("_svd")
    recipe = _RECIPES[name]
    if combination_type.endswith("svd"):
        delta = _mix(
            [u.scaling * (u.B @ u.A) for u in updates],  # as they are, they vote on signs
            [u.weight for u in updates],
            recipe,
            density,
            majority_sign_method,
        )
        U, S, Vh = torch.linalg.svd(delta, full_matrices=False)
        return _padded(Vh[:rank], U[:, :rank] * S[:rank], rank)
    # The sign goes to one factor only, or a negative weight would cancel itself.
    roots = [math.sqrt(abs(u.factor)) for u in updates]
    signed = [math.copysign(root, u.factor) for root, u in zip(roots, updates, strict=True)]
    A = _mix([u.A for u in updates], signed, recipe, density, majority_sign_method)
    B = _mix([u.B for u in updates], roots, recipe, density, majority_sign_method)
    return _padded(A, B, rank)


def _mix(
    tensors: list[torch.Tensor],
    weights: list[float],
    recipe: _Recipe,
    density: float | None,
    majority_sign_method: SignMethod,
) -> torch.Tensor:
    """Weighted sum of like-shaped tensors after pruning and sign election."""
    if recipe.prune and density is not None and density < 1.0:
        prune = _keep_largest if recipe.prune == "magnitude" else _keep_random
        tensors = [prune(t, density) for t in tensors]
    stacked = torch.stack(tensors)
    factors = torch.tensor(weights).view(-1, *[1] * (stacked.dim() - 1)).to(stacked)
    if not recipe.elect_sign:
        return (stacked * factors).sum(0)
    votes = stacked if majority_sign_method == "total" else stacked.sign()
    majority = torch.where(votes.sum(0) >= 0, 1, -1)
    agrees = stacked.sign() == majority
    return (stacked * factors * agrees).sum(0) / agrees.sum(0).clamp(min=1)


def _keep_largest(tensor: torch.Tensor, density: float) -> torch.Tensor:
    top = tensor.abs().flatten().topk(int(density * tensor.numel())).indices
    mask = torch.zeros(tensor.numel()).to(tensor)
    mask[top] = 1
    return tensor * mask.view_as(tensor)


def _keep_random(tensor: torch.Tensor, density: float) -> torch.Tensor:
    """Keeps each value with probability ``density`` and rescales: the expectation stays."""
    return tensor * torch.bernoulli(torch.full_like(tensor, density)) / density


def _padded(A: torch.Tensor, B: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Fills up to the rank with zeros, which add nothing."""
    missing = rank - A.shape[0]
    if missing <= 0:
        return A, B
    return (
        torch.cat([A, A.new_zeros(missing, A.shape[1])]),
        torch.cat([B, B.new_zeros(B.shape[0], missing)], dim=1),
    )
