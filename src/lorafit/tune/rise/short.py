"""Short runs: too few steps for branches, so whole runs at three learning rates are compared."""

from __future__ import annotations

from dataclasses import replace

from lorafit.run import Choice
from lorafit.tune import whole
from lorafit.tune.base import Found
from lorafit.tune.bench.bench import Bench
from lorafit.tune.whole import Point

FEWEST_STEPS = 300
"""Below this branches are too short to tell anything."""
FACTORS = (1.0, 3.0, 1 / 3)
"""Times the method's usual rate, in the order a budget pays for them."""
RUNS = float(len(FACTORS))
"""The budget of short runs when nobody set one; they are cheap."""


def choose_rate(bench: Bench) -> Found:
    """Makes as many whole runs as the budget pays for; the best is kept, the rest is default.

    Raises:
        TrainingError: All of them diverge.
    """
    prior = bench.config.train.learning_rate
    few = f"{bench.total_steps} steps are too few for short trials"
    count = max(1, min(len(FACTORS), int(bench.budget)))
    open_rate = "train.learning_rate" in bench.open
    factors = FACTORS[:count] if open_rate else FACTORS[:1]
    bench.say(f"{few}: {len(factors)} whole runs")
    bench.notes.expect_runs(len(factors))
    outcomes: list[whole.Outcome] = []
    for factor in factors:
        outcomes.append(whole.run(bench, Point(prior * factor)))
        whole.drop_losers(bench, outcomes)
    found = whole.found(bench, outcomes, "at other learning rates")
    choices = {
        name: replace(choice, reason=f"default; {few}, so it was not measured")
        for name, choice in found.choices.items()
        if name != "learning_rate"
    }
    if open_rate:
        measured = found.choices["learning_rate"]
        why = measured.reason
        if len(factors) == 1:
            why = f"default; the budget of {bench.budget:g} runs pays for no other rate"
        tried = [
            {
                "learning_rate": outcome.point.learning_rate,
                "steps": bench.total_steps,
                "loss": None if outcome.best is None else outcome.nll,
                "diverged": outcome.best is None,
            }
            for outcome in sorted(outcomes, key=lambda outcome: outcome.point.learning_rate)
        ]
        choices["learning_rate"] = Choice(
            float(f"{measured.value:.3g}"), f"{few}: {why}", measured.evidence | {"tried": tried}
        )
    return replace(found, choices=choices)
