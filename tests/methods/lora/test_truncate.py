"""Truncated LoRA factors against the dense singular value decomposition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lorafit.methods.lora.truncate import directions, kept_energy, truncated

D_IN, D_OUT, R = 24, 18, 6


@pytest.fixture
def factors() -> tuple[Tensor, Tensor, Tensor]:
    """A, B and inputs that hardly use some directions."""
    torch.manual_seed(0)
    A, B = torch.randn(R, D_IN), torch.randn(D_OUT, R)
    inputs = torch.randn(500, D_IN) * torch.logspace(0, -3, D_IN) @ torch.randn(D_IN, D_IN)
    return A, B, inputs


def moment_of(A: Tensor, inputs: Tensor) -> Tensor:
    z = inputs.double() @ A.double().T
    return z.T @ z / len(inputs)


def output_error(A: Tensor, B: Tensor, small_A: Tensor, small_B: Tensor, inputs: Tensor) -> float:
    """Mean squared difference of the outputs."""
    change = B.double() @ A.double() - small_B.double() @ small_A.double()
    return float((inputs.double() @ change.T).square().sum(1).mean())


def test_full_rank_is_exact(factors: tuple[Tensor, Tensor, Tensor]) -> None:
    A, B, inputs = factors
    for moment in (None, moment_of(A, inputs)):
        small_A, small_B = truncated(A, B, R, directions(A, B, moment))
        torch.testing.assert_close(small_B @ small_A, B @ A, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_weighted_truncation_is_the_dense_optimum(
    factors: tuple[Tensor, Tensor, Tensor], k: int
) -> None:
    A, B, inputs = (t.double() for t in factors)
    C = inputs.T @ inputs / len(inputs)
    values, vectors = torch.linalg.eigh(C)
    root = vectors * values.clamp(min=0).sqrt()
    lost = torch.linalg.svdvals(B @ A @ root)[k:].square().sum()  # Eckart and Young
    found = directions(A, B, moment_of(A, inputs))
    small_A, small_B = truncated(A, B, k, found)
    assert small_A.shape == (k, D_IN)
    assert small_B.shape == (D_OUT, k)
    assert output_error(A, B, small_A, small_B, inputs) == pytest.approx(float(lost), rel=1e-6)
    total = float((inputs @ (B @ A).T).square().sum(1).mean())
    assert kept_energy(found.values, k) == pytest.approx(1 - float(lost) / total, rel=1e-6)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_plain_truncation_is_the_dense_svd(factors: tuple[Tensor, Tensor, Tensor], k: int) -> None:
    A, B, inputs = factors
    U, S, Vh = torch.linalg.svd(B @ A, full_matrices=False)
    small_A, small_B = truncated(A, B, k, directions(A, B))
    torch.testing.assert_close(small_B @ small_A, U[:, :k] * S[:k] @ Vh[:k], rtol=1e-4, atol=1e-4)
    weighted = truncated(A, B, k, directions(A, B, moment_of(A, inputs)))
    assert output_error(A, B, *weighted, inputs) < output_error(A, B, small_A, small_B, inputs)


def test_both_factors_have_the_same_length_in_each_direction(
    factors: tuple[Tensor, Tensor, Tensor],
) -> None:
    A, B, _ = factors
    small_A, small_B = truncated(A, B, 3, directions(A, B))
    torch.testing.assert_close(small_A.norm(dim=1), small_B.norm(dim=0))


def test_degenerate_updates_stay_finite() -> None:
    torch.manual_seed(0)
    A, zero = torch.randn(4, 8), torch.zeros(6, 4)
    small_A, small_B = truncated(A, zero, 2, directions(A, zero, torch.zeros(4, 4)))
    assert float((small_B @ small_A).abs().max()) == 0.0
    assert kept_energy(directions(A, zero).values, 1) == 1.0
    wide_B = torch.randn(2, 4)  # fewer outputs than the rank: the rest are zeros
    small_A, small_B = truncated(A, wide_B, 4, directions(A, wide_B))
    torch.testing.assert_close(small_B @ small_A, wide_B @ A, rtol=1e-4, atol=1e-5)
