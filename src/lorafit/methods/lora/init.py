"""Where LoRA's A and B start when neither is plain noise nor zero.

Each function returns ``A (r, d_in)`` and ``B (d_out, r)``, contiguous, float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from lorafit.errors import AdapterError


def orthogonal(d_in: int, d_out: int, r: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random A and B whose ranges are orthogonal in the rank space, so that B A = 0.

    The product is zero up to rounding. PEFT's recipe (datta0.github.io, "Rethinking LoRA
    initialisation"): odd rows of one orthogonal matrix for A, even rows for B.
    """
    Q, _ = torch.linalg.qr(torch.randn(r, r))
    A = (torch.randn(d_in, r // 2) @ Q[0::2]).T / 10.0
    B = (torch.randn(r // 2, d_out).T @ Q[1::2]) / 10.0
    return A.contiguous(), B.contiguous()


def olora(W: torch.Tensor, r: int, _s: float, init: str) -> tuple[torch.Tensor, torch.Tensor]:
    """First r directions of the QR decomposition of ``W (d_out, d_in)``."""
    Q, R = torch.linalg.qr(W.float())
    return _checked(R[:r], Q[:, :r], W, r, init)


def pissa(W: torch.Tensor, r: int, s: float, init: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The r largest singular directions of ``W (d_out, d_in)``, split evenly, over the scale."""
    if "_niter_" in init:
        U, S, V = torch.svd_lowrank(W.float(), r, niter=int(init.rpartition("_")[2]))
        Vh = V.T
    else:
        U, S, Vh = torch.linalg.svd(W.float(), full_matrices=False)
    root = torch.sqrt(S[:r] / s)
    return _checked(root[:, None] * Vh[:r], U[:, :r] * root, W, r, init)


def _checked(
    A: torch.Tensor, B: torch.Tensor, W: torch.Tensor, r: int, init: str
) -> tuple[torch.Tensor, torch.Tensor]:
    if A.shape[0] < r:
        raise AdapterError(
            f'init_lora_weights="{init}" takes r up to {min(W.shape)} for a weight of shape '
            f"{tuple(W.shape)}, got r={r}."
        )
    return A.contiguous(), B.contiguous()


class Origin(nn.Module):
    """The frozen start ``B_0 A_0`` of an adapter: ``A (r, d_in)``, ``B (d_out, r)``."""

    A: torch.Tensor
    B: torch.Tensor

    def __init__(self, A: torch.Tensor, B: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("A", A)
        self.register_buffer("B", B)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``B_0 A_0 x``, by the same two products as the trained pair: the start is exact."""
        product: torch.Tensor = F.linear(F.linear(x, self.A), self.B)
        return product
