"""Made-up comparisons, in the shape of ``compare.json``."""

from __future__ import annotations

from typing import Any

from lorafit.evidence import ComparisonRecord
from lorafit.evidence.costs import COSTS

# Method, family, trained parameters, accuracy, half of its interval, processor seconds, GB,
# forgetting.
ROWS = """
full         yardstick         22713216 .786 .025 22 1.71 .319
head         yardstick              770 .593 .157  6 0.88 .000
last_layers  selective          3634176 .773 .026 14 1.28 .162
layernorm    selective             9984 .732 .027 15 1.09 .141
sparse       selective            54613 .723 .030 20 1.15 .021
bitfit       selective            25000 .701 .035 15 1.09 .133
rslora       reparametrization   344064 .767 .030 13 1.05 .235
lora         reparametrization   344064 .763 .026 12 1.06 .337
pissa        reparametrization   344064 .734 .057 14 1.05 .336
dora         reparametrization   363000 .714 .217 33 1.74 .275
ia3          additive             13824 .761 .027 16 1.16 .113
bottleneck   additive            228000 .740 .086 17 1.24 .486
prefix       additive             92160 .547 .081 16 1.22 .072
prompt       additive              7680 .537 .075 24 1.17 .066
"""


def record(noise: bool = True) -> ComparisonRecord:
    """The same as a record."""
    return ComparisonRecord.from_json(comparison(noise))


def comparison(noise: bool = True) -> dict[str, Any]:
    """Fourteen methods on an encoder; without ``noise`` none had shuffled labels."""
    arms: dict[str, Any] = {}
    for line in ROWS.split("\n")[1:-1]:
        name, family, *rest = line.split()
        parameters, value, half, seconds, memory, forgotten = map(float, rest)
        gap = value - 0.786
        arms[name] = {
            "family": family,
            "trainable_parameters": int(parameters),
            "share": parameters / 22713216,
            "metric": {"value": value, "low": value - half, "high": value + half},
            "difference": {"value": gap, "low": gap - half, "high": gap + half},
            "verdict": "worse" if gap < -half else "cannot tell",
            "learning_rate": 1e-3,
            "rate_at_edge": False,
            "time_s": seconds,
            "cpu_s": seconds,
            "peak_memory_bytes": memory * 1e9,
            "saved_bytes": 4 * parameters,
            "train_loss": 0.5,
            "gap": 0.1,
            "curve": [{"step": s, "eval_loss": 1.0 - value * s / 100} for s in (25, 50, 75, 100)],
            "forgetting": forgotten,
            "forgetting_kind": "encoder",
            "forgetting_details": {"neighbours_lost": 0.5},
            "forgetting_at_equal_quality": None,
        }
    ranks = {"full_rank": 384, "stable_rank": 1.6, "entropy_rank": 4.5, "r90": 5, "r99": 75}
    return {
        "arms": arms,
        "request": {
            "config": {"model": {"name_or_path": "MODEL"}, "data": {"path": "DATA"}},
            "seeds": 3,
        },
        "metric": "accuracy",
        "greater_is_better": True,
        "confidence": 0.95,
        "margin": 0.01,
        "n": 1066,
        "reference": "full",
        "left_out": {},
        "failed": {},
        "redundancy": {"full": ranks | ({"above_noise": 1.0} if noise else {}), "dora": ranks},
        "fronts": {cost.name: front(arms, cost.key) for cost in COSTS},
        "recommendation": {"method": "ia3", "best": "full", "sentence": "Take ia3."},
        "environment": {"command": None},
    }


def front(arms: dict[str, Any], key: str) -> list[str]:
    """By going from the cheapest to the dearest."""
    kept: list[str] = []
    for name in sorted(arms, key=lambda n: (arms[n][key], -arms[n]["metric"]["value"])):
        if not kept or arms[name]["metric"]["value"] > arms[kept[-1]]["metric"]["value"]:
            kept.append(name)
    return kept
