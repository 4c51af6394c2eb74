"""A comparison as one table: every number is that of the record, and no name breaks the table."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lorafit.comparison.outcome import Comparison
from lorafit.evidence import ComparisonRecord
from lorafit.evidence.comparison_table import latex, markdown, records
from tests.report.comparisons import comparison, record

HOSTILE = r"a|b & 50% \of {it}_#1 ~^$"


def test_the_table_has_each_method_once_the_best_first_with_the_records_numbers() -> None:
    found = record()
    table = Comparison(Path("runs/c"), found).dataframe
    assert sorted(table.index) == sorted(found.arms)
    assert table["value"].is_monotonic_decreasing
    for name, arm in found.arms.items():
        row = table.loc[name]
        assert (row["value"], row["low"], row["high"]) == (
            arm.metric.value,
            arm.metric.low,
            arm.metric.high,
        )
        assert row["cpu_s"] == arm.cpu_s
        assert row["trainable_parameters"] == arm.trainable_parameters
        if arm.difference is None:
            assert pd.isna(row["difference"])
        else:
            assert row["difference"] == arm.difference.value
    again = pd.read_csv(io.StringIO(table.to_csv()), index_col="method")
    assert again["value"].tolist() == pytest.approx(table["value"].tolist())


def test_where_less_is_better_the_least_is_first() -> None:
    found = record().model_copy(update={"greater_is_better": False})
    values: list[Any] = [row["value"] for row in records(found)]
    assert values == sorted(values)


def named(name: str) -> ComparisonRecord:
    content = comparison()
    content["arms"] = {name: content["arms"]["lora"], "full": content["arms"]["full"]}
    return ComparisonRecord.from_json(content)


@pytest.mark.parametrize("name", ["lora", HOSTILE])
def test_no_name_breaks_a_table(name: str) -> None:
    lines = markdown(named(name)).splitlines()
    cells = [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines]
    assert cells == [9] * 4
    text = latex(named(name))
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [7] * 3
    body = "".join(rows)
    assert not re.search(r"(?<!\\)[%#$]", body)
    assert "0.763 [0.737, 0.789]" in text
