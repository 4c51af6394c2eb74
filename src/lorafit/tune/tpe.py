"""Optuna's TPE over whole runs: the reference for a searcher that learns from its runs.

Tree-structured Parzen estimator (Bergstra et al. 2011), as Optuna has it. The study is
written to ``optuna.log`` in the run folder, in the format of Optuna's journal storage, so
that Optuna's tools can read it. A resumed search asks and tells all finished runs again from
the journal of the bench, which takes no time and leads to the same next question.
"""

from __future__ import annotations

from typing import Any

from lorafit.errors import ConfigError
from lorafit.tune import strategies, whole
from lorafit.tune.base import Found, Strategy
from lorafit.tune.bench.bench import Bench
from lorafit.tune.whole import Point

FEWEST_RUNS = 2
STARTUP_SHARE = 4
"""Of a budget of n runs, ``n / 4`` and at least two are drawn at random; Optuna's own ten
would make every small budget a random search."""
STUDY = "optuna.log"


@strategies.register("tpe")
class Tpe(Strategy):
    """As many whole runs as the budget pays for, each asked for by TPE."""

    def search(self, bench: Bench) -> Found:
        """Makes the runs and keeps the best on the selection set.

        Raises:
            ConfigError: Optuna is not installed, or the budget is below two runs.
            TrainingError: All runs diverge.
        """
        count = int(bench.budget)
        if count < FEWEST_RUNS:
            raise ConfigError(
                f"tpe learns from whole runs, and tune.budget is {bench.budget:g}: give it "
                f"{FEWEST_RUNS} runs or more (--budget 10), or search with --strategy rise."
            )
        study = _study(bench, count)
        bench.notes.expect_runs(count)
        rates, ranks = whole.rates(bench), whole.ranks(bench)
        module_sets = whole.module_sets(bench)
        outcomes: list[whole.Outcome] = []
        asked: dict[Point, whole.Outcome] = {}
        for _ in range(count):
            trial = study.ask()
            rate = rates[0]
            if len(rates) > 1:
                rate = trial.suggest_float("learning_rate", rates[0], rates[-1], log=True)
            r, modules = ranks[0], module_sets[0]
            if len(ranks) > 1:  # by place: the ranks are even on a log scale
                r = ranks[trial.suggest_int("r_index", 0, len(ranks) - 1)]
            if len(module_sets) > 1:
                modules = module_sets[trial.suggest_int("modules_index", 0, len(module_sets) - 1)]
            point = Point(float(f"{rate:.3g}"), r, modules)
            if point not in asked:
                asked[point] = whole.run(bench, point)
                outcomes.append(asked[point])
                whole.drop_losers(bench, outcomes)
            study.tell(trial, min(asked[point].nll, 1e6))
        return whole.found(bench, outcomes, "asked for by TPE")


def _study(bench: Bench, count: int) -> Any:
    """A new study, in the run folder if there is one."""
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise ConfigError("strategy tpe needs Optuna: pip install 'lorafit[tpe]'.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = None
    if bench.run is not None:
        file = bench.run.path / STUDY
        file.unlink(missing_ok=True)
        storage = JournalStorage(JournalFileBackend(str(file)))
    sampler = optuna.samplers.TPESampler(
        seed=bench.config.seed, n_startup_trials=max(2, count // STARTUP_SHARE)
    )
    return optuna.create_study(storage=storage, sampler=sampler, study_name="lorafit")
