r"""How redundant is an update? What its singular values, the largest first, say of it.

- stable rank :math:`\sum \sigma_i^2 / \sigma_1^2`;
- entropy rank :math:`\exp(-\sum p_i \ln p_i)` with :math:`p_i = \sigma_i^2 / \sum \sigma_j^2`
  (Roy and Vetterli 2007, "The effective rank", with energies for amplitudes);
- ``r90`` and ``r99``: the fewest directions that hold 90 and 99 % of the energy
  :math:`\sum \sigma_i^2`;
- directions above the noise: those with a larger :math:`\sigma` than the largest of an update
  that was trained on shuffled labels, where there was nothing to learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch

from lorafit.evidence.comparison import Ranks

SHARES = (0.90, 0.99)


def singular_values(delta: torch.Tensor) -> np.ndarray:
    """Singular values of a change of a weight, the largest first, float64."""
    values: np.ndarray = torch.linalg.svdvals(delta.detach().float().cpu()).double().numpy()
    return values


def describe(sigma: np.ndarray, noise: np.ndarray | None = None) -> dict[str, float]:
    """The ranks of one update.

    Args:
        sigma: Its singular values, the largest first.
        noise: Those of the same weight's update on shuffled labels; ``None``: not measured.

    Returns:
        ``norm``, ``stable_rank``, ``entropy_rank``, ``r90``, ``r99`` and, with noise,
        ``above_noise``; ranks are 0 for an update that is zero.
    """
    energy = sigma**2
    total = float(energy.sum())
    result = {"norm": total**0.5, "stable_rank": 0.0, "entropy_rank": 0.0}
    result |= {f"r{round(100 * share)}": 0.0 for share in SHARES}
    if total > 0:
        p = energy / total
        positive = p[p > 0]
        result["stable_rank"] = total / float(energy[0])
        result["entropy_rank"] = float(np.exp(-(positive * np.log(positive)).sum()))
        held = np.cumsum(p)
        for share in SHARES:
            # Rounding may leave the sum of all a little below one.
            result[f"r{round(100 * share)}"] = float(min(int(np.sum(held < share)) + 1, len(p)))
    if noise is not None:
        result["above_noise"] = float((sigma > noise[0]).sum())
    return result


def summarise(
    spectra: Mapping[str, np.ndarray], noise: Mapping[str, np.ndarray] | None = None
) -> Ranks:
    """The median over weights of each rank, and of how many weights.

    Args:
        spectra: Singular values by the path of the weight.
        noise: The same of the run on shuffled labels.
    """
    noise = noise or {}
    rows = [describe(sigma, noise.get(path)) for path, sigma in spectra.items()]
    keys = dict.fromkeys(key for row in rows for key in row)
    medians = {key: float(np.median([row[key] for row in rows if key in row])) for key in keys}
    full = float(np.median([len(sigma) for sigma in spectra.values()])) if rows else 0.0
    return cast("Ranks", {"weights": len(rows), "full_rank": full, **medians})
