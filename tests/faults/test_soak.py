"""A seeded part of ``benchmarks.soak``: every case of it ends well, and soon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from benchmarks.soak import mutate
from benchmarks.soak.__main__ import BEGIN, END, HERE, PAGE, with_table
from benchmarks.soak.cases import HARMLESS, Case, Journal, summary, table
from benchmarks.soak.memory import judged

ROOT = Path(__file__).parents[2]


def soak(folder: Path, parts: list[str], most: int) -> list[Case]:
    """Runs a part of it in a process of its own: forks need one without threads."""
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "8", "--out", str(folder)]
    done = subprocess.run(
        [*command, "--most", str(most), "--part", *parts],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return Journal(folder, 0).cases


def wrong(cases: list[Case]) -> list[str]:
    """The cases that ended badly, in words."""
    return [
        f"{case.part} --case {case.number}: {case.result} {dict(case.facts)}"
        for case in cases
        if case.result not in HARMLESS
    ]


def test_interrupted_runs_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    parts = ["kill: train", "kill: resume", "disk: train", "signal: train"]
    cases = soak(tmp_path / "soak", parts, 4)
    assert wrong(cases) == []
    assert len(cases) == 16
    assert sum(case.result == "equal" for case in cases) >= 10
    said = [case.facts["message"] for case in cases if "message" in case.facts]
    assert set(said) <= {"right"}


def test_damaged_inputs_are_answered_or_refused(tmp_path: Path) -> None:
    cases = soak(tmp_path / "soak", ["inputs"], 25)
    assert wrong(cases) == []
    results: dict[str, set[str]] = {case.part: set() for case in cases}
    for case in cases:
        results[case.part].add(case.result)
    assert len(results) > 20
    # Where nothing is ever accepted, or refused, the damage tries nothing.
    assert sum(len(found) == 2 for found in results.values()) > len(results) / 2


@pytest.mark.parametrize(
    ("damage", "good"),
    [
        (mutate.damaged, b"text,label\na film,good\n"),
        (mutate.relined, b"text,label\na film,good\n"),
        (mutate.json_damaged, b'{"a": [1, {"b": null}], "c": "d"}'),
        (mutate.json_lines_damaged, b'{"a": 1}\n{"a": 2}\n'),
        (mutate.changed, [1, {"a": ["b", None]}]),
    ],
)
def test_damage_follows_from_its_seed_and_leaves_the_good_one(damage, good) -> None:
    before = repr(good)
    found = [repr(damage(good, Random(f"0:{number}"))) for number in range(200)]
    assert found == [repr(damage(good, Random(f"0:{number}"))) for number in range(200)]
    assert repr(good) == before
    assert sum(one != before for one in found) > 150
    assert len(set(found)) > 80


def test_memory_that_grows_is_told_from_memory_that_is_kept() -> None:
    flat = [(float(n), 500_000_000 + (n % 3) * 1_000_000, 7) for n in range(60)]
    grows = [(second, used + n * 500_000, 7) for n, (second, used, _) in enumerate(flat)]
    assert judged(flat).result == "flat"
    assert judged(grows).result == "grows"
    slope = judged(grows).facts["mb_a_round"]
    assert isinstance(slope, list)
    assert slope == [pytest.approx(0.5, abs=0.02), pytest.approx(0.0, abs=0.02)]
    assert judged(flat[:5]).result == "too short to tell"


def test_results_of_another_program_or_seed_are_not_added_to(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    journal.add(Case("kill: train", 3, "equal", {"missing": ["it/report.html"]}))
    assert Journal(tmp_path, 0).cases == journal.cases
    with pytest.raises(SystemExit, match="another seed"):
        Journal(tmp_path, 1)
    found = summary(journal.cases)
    assert "| kill: train | 1 | 1 equal (1 missing: report.html) |" in table(found)


def test_the_page_shows_the_results_that_are_kept() -> None:
    results = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page, table(results["parts"]))
    assert page.count(BEGIN) == page.count(END) == 1
