"""The exhaustive grid of whole runs: the reference that cheaper strategies are held against."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import ClassVar

from lorafit.errors import ConfigError
from lorafit.tune import strategies, whole
from lorafit.tune.base import Found, Strategy
from lorafit.tune.bench.bench import Bench
from lorafit.tune.whole import Point


@strategies.register("grid")
class Grid(Strategy):
    """Every combination of a few ranks, learning rates and sets of modules, each a whole run."""

    ranks: ClassVar[Sequence[int]] = whole.RANKS
    rate_factors: ClassVar[Sequence[float]] = whole.RATE_FACTORS

    def search(self, bench: Bench) -> Found:
        """Makes all runs and keeps the best on the selection set.

        Raises:
            ConfigError: The budget does not pay for all of them.
            TrainingError: All of them diverge.
        """
        points = [
            Point(rate, r, modules)
            for rate, r, modules in product(
                whole.rates(bench, self.rate_factors),
                whole.ranks(bench, self.ranks),
                whole.module_sets(bench),
            )
        ]
        if len(points) > bench.budget:
            raise ConfigError(
                f"the grid is {len(points)} whole runs, and tune.budget is {bench.budget:g}. "
                f"Give --budget {len(points)}, set some of "
                f"{', '.join(sorted(name.rpartition('.')[2] for name in bench.open))} yourself, "
                "or search with --strategy rise."
            )
        bench.say(f"grid: {len(points)} whole runs")
        bench.notes.expect_runs(len(points))
        outcomes: list[whole.Outcome] = []
        for point in points:
            outcomes.append(whole.run(bench, point))
            whole.drop_losers(bench, outcomes)
        return whole.found(bench, outcomes, "of a grid")
