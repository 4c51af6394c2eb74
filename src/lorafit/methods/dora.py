r"""DoRA: train the length of each row of the weight apart from its direction.

.. math:: W' = m \frac{W + s B A}{\lVert W + s B A \rVert_{row}}

``m (d_out,)`` starts at the row norms of ``W + s B A``, so training starts at the base
model. Liu et al. 2024, arXiv 2402.09353, equation 5. As in section 4.3 of the paper the
norm is a constant in the backward pass.

Where we differ from PEFT: with dropout on, PEFT applies the dropped-out input to the
frozen weight as well; here only the low-rank part sees dropout, as in plain LoRA.
"""

from __future__ import annotations

import torch
from torch import nn


class DoraMagnitude(nn.Module):
    """The trained row lengths ``m`` of one adapter, ``weight (d_out,)`` float32."""

    def __init__(self, norm: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.detach().clone().float())

    def scale(self, norm: torch.Tensor) -> torch.Tensor:
        """``m / norm (d_out,)``; the norm receives no gradient."""
        scale: torch.Tensor = self.weight / norm.detach()
        return scale


def row_norm(weight: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Row norms ``(d_out,)`` of ``weight + delta``, both ``(d_out, d_in)``, in float32."""
    with torch.no_grad():
        norm: torch.Tensor = torch.linalg.vector_norm(weight.float() + delta.float(), dim=1)
    return norm
