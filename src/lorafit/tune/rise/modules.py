"""Which target modules earn their place: how much their update changes what passes through.

A site's energy (`lorafit.tune.bench.truncation.energies`) says what training has made of it, unlike
gradients at the start. A short branch without the weakest modules then decides.
"""

from __future__ import annotations

from lorafit.evidence.measurements import Evidence

WEAK = 0.05
"""Share of the energy below which a kind of module is tried without."""


def shares(energies: dict[str, float]) -> dict[str, float]:
    """Each kind of module's share of the energy, by the last part of its path."""
    total = sum(energies.values()) or 1.0
    found: dict[str, float] = {}
    for path, energy in energies.items():
        name = path.rpartition(".")[2]
        found[name] = found.get(name, 0.0) + energy / total
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def weak(found: dict[str, float]) -> list[str]:
    """The kinds that together hold less than `WEAK` of the energy, weakest first."""
    chosen: list[str] = []
    held = 0.0
    for name, share in sorted(found.items(), key=lambda item: item[1]):
        held += share
        if held >= WEAK or len(chosen) == len(found) - 1:
            break
        chosen.append(name)
    return chosen


def evidence(found: dict[str, float]) -> Evidence:
    """The shares as ``choices.json`` has them."""
    return {"share_of_energy": {name: round(share, 4) for name, share in found.items()}}
