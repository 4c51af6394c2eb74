"""The lengths of a weight's rows: what DoRA trains apart from their directions."""

from __future__ import annotations

import torch
from torch import nn


class DoraMagnitude(nn.Module):
    """The trained row lengths ``m`` of one adapter, ``weight (d_out,)`` float32."""

    def __init__(self, norm: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.detach().clone().float())


def row_norm(weight: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Row norms ``(d_out,)`` of ``weight + delta``, both ``(d_out, d_in)``, in float32."""
    with torch.no_grad():
        norm: torch.Tensor = torch.linalg.vector_norm(weight.float() + delta.float(), dim=1)
    return norm
