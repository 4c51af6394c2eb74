r"""A LoRA update at a smaller rank: plain or activation-weighted SVD, from the factors alone.

The update ``dW = B A`` of rank ``r`` changes outputs by ``dW x``. The best ``X`` of rank
``k`` for inputs with second moment ``C = E[x x^T]`` minimises
``E|(dW - X) x|^2 = |(dW - X) C^(1/2)|_F^2``. By Eckart and Young it is
``X = U_k U_k^T dW`` with ``U_k`` the first ``k`` left singular vectors of ``dW C^(1/2)``.
Neither ``dW`` nor ``C`` is needed for them: with ``B = Q R`` and the ``r x r`` moment
``G = A C A^T = E[(A x)(A x)^T] = L L^T`` they are ``Q`` times those of ``R L``. That costs
``O((d_in + d_out) r^2)``. With ``C = I``, ``G = A A^T`` and this is the plain SVD, which
counts directions that the layer's inputs never take: it is pessimistic.

Activation-weighted truncation of low-rank factors: SVD-LLM (Wang et al. 2024, arXiv
2403.07378) does the same for whole weights by a Cholesky factor of ``C``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Directions:
    """The output directions of one update, the most important first.

    Attributes:
        vectors: ``(d_out, m)``, orthonormal, ``m = min(d_out, r)``.
        values: ``(m,)``: root mean square of the output along each, falling.
    """

    vectors: Tensor
    values: Tensor


def directions(A: Tensor, B: Tensor, moment: Tensor | None = None) -> Directions:
    """Left singular vectors and values of ``B A C^(1/2)``.

    Args:
        A: ``(r, d_in)``.
        B: ``(d_out, r)``.
        moment: ``G = E[(A x)(A x)^T]`` ``(r, r)``; ``None``: inputs alike in all directions.
    """
    A, B = A.double(), B.double()
    G = A @ A.T if moment is None else moment.double()
    Q, R = torch.linalg.qr(B)
    # A square root by eigenvalues: G is singular where an input direction never occurs.
    values, vectors = torch.linalg.eigh((G + G.T) / 2)
    U, S, _ = torch.linalg.svd(R @ (vectors * values.clamp(min=0).sqrt()), full_matrices=False)
    return Directions(Q @ U, S)


def truncated(A: Tensor, B: Tensor, k: int, found: Directions) -> tuple[Tensor, Tensor]:
    """The update projected on its first ``k`` directions, as factors of rank ``k``.

    Each direction's length is shared out between its row of ``A`` and its column of ``B``,
    so that both train at one learning rate.

    Returns:
        ``A (k, d_in)`` and ``B (d_out, k)``, of the dtype of the arguments. Directions that
        are not there (``k`` above ``d_out``) are zeros.
    """
    U = found.vectors[:, :k]
    small_A, small_B = U.T @ B.double() @ A.double(), U
    length = small_A.norm(dim=1).clamp(min=torch.finfo(torch.float64).tiny).sqrt()
    small_A, small_B = small_A / length[:, None], small_B * length
    missing = k - U.shape[1]
    small_A = torch.nn.functional.pad(small_A, (0, 0, 0, missing))
    small_B = torch.nn.functional.pad(small_B, (0, missing))
    return small_A.to(A.dtype).contiguous(), small_B.to(B.dtype).contiguous()


def kept_energy(values: Tensor, k: int) -> float:
    """Share of the mean squared output that the first ``k`` directions carry, 0 to 1."""
    energy = values.double().square()
    total = float(energy.sum())
    return float(energy[:k].sum()) / total if total > 0 else 1.0
