"""What a search asks and what it may spend on asking: the numbers behind its decisions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """The numbers that a search goes by; `docs/explanation/tuning.md` has where they come from.

    Attributes:
        first_rank: Where it begins. In the grids of whole runs none smaller is better at its best
            rate, and a language model loses .1 nats with 4; from 1 or 2 the losses on news (20
            classes) were higher, whatever became of the learning rate.
        room: Budget in plain runs from which larger ranks and fewer modules are trained on trial.
            On the pairs of benchmarks/tuning these tests change the result by less than its noise.
        pruning: Plain runs that scoring smaller ranks and fewer modules may cost at the end, at
            most.
        losable: Nats: the most that the validation loss may rise by a smaller rank and fewer
            modules.
        losable_share: The same as a share of what training gained, where that is less.
    """

    first_rank: int = 16
    room: float = 1.5
    pruning: float = 0.08
    losable: float = 0.01
    losable_share: float = 0.1
