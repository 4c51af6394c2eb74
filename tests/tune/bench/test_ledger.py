"""The ledger predicts by operations and is checked against the clock."""

from __future__ import annotations

import pytest

from lorafit.tune.bench.ledger import Cost, Ledger

PLAIN = Cost(trained=1000.0, evaluated=500.0)


def test_a_plain_run_costs_one_run() -> None:
    ledger = Ledger(parameters=7, unit=PLAIN)
    ledger.add("trunk", PLAIN)
    assert ledger.runs() == 1.0
    assert ledger.runs(Cost(evaluated=500.0)) == pytest.approx(500 * 2 / (1000 * 4 + 500 * 2))


def test_by_the_clock_training_and_evaluating_have_each_its_own_speed() -> None:
    """Evaluated tokens, in large batches, often take far less than half of a trained one's time."""
    ledger = Ledger(parameters=7, unit=PLAIN)
    ledger.add("trunk", Cost(trained=1000.0, time_s=10.0))
    ledger.add("decay", Cost(evaluated=500.0, time_s=1.0))
    assert ledger.unit_time_s() == pytest.approx(11.0)
    assert ledger.time_runs() == pytest.approx(1.0)
    ledger.add("rank", Cost(trained=500.0, evaluated=500.0, time_s=6.0))
    assert ledger.time_runs() == pytest.approx(17 / 11)


def test_a_rank_as_large_as_the_layers_costs_a_run_of_its_own() -> None:
    """Factors of as many parameters as the weights: 6 operations beside 4 for a trained token."""
    ledger = Ledger(parameters=7, unit=Cost.of(trained=1000.0))
    assert ledger.runs(Cost.of(trained=1000.0, factors=7)) == pytest.approx((4 + 6) / 4)
    ledger = Ledger(parameters=7, unit=Cost.of(evaluated=1000.0))
    assert ledger.runs(Cost.of(evaluated=1000.0, factors=7)) == pytest.approx(2.0)


def test_a_plain_run_by_the_clock_has_the_rank_it_began_with() -> None:
    """The trunk was slow because it grew; a plain run would not have been."""
    ledger = Ledger(parameters=7, unit=Cost.of(trained=1000.0, factors=0))
    ledger.add("trunk", Cost.of(trained=1000.0, factors=7, time_s=25.0))
    assert ledger.unit_time_s() == pytest.approx(10.0)
    assert ledger.runs() == ledger.time_runs() == pytest.approx(2.5)


def test_the_clock_goes_by_operations_where_nothing_was_evaluated() -> None:
    ledger = Ledger(parameters=7, unit=PLAIN)
    ledger.add("trunk", Cost(trained=1000.0, time_s=10.0))
    assert ledger.unit_time_s() == pytest.approx(10.0 * 5 / 4)
    assert Ledger(parameters=7, unit=PLAIN).time_runs() == 0.0
