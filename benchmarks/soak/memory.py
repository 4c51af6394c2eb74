"""Train, load, predict, again and again in one process: does its memory stay flat?"""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil

import lorafit
from benchmarks.soak.cases import Case
from benchmarks.soak.ready import quiet
from benchmarks.soak.works import PLAIN, emptied
from tests.faults.operations import forked

NAME = "train, load, predict in a loop"
FLAT = 0.05
"""MB a round that memory may grow by: of two hours of rounds of a second, less than 400 MB."""
FEWEST = 10
"""Rounds that a line is drawn through."""
SETTLED = 0.3
"""Part of the rounds that are left out: caches fill, and memory is kept for the next time."""


def rounds(inputs: Path, folder: Path) -> Iterator[tuple[float, int, int]]:
    """Trains, loads and predicts; yields seconds, bytes of resident memory, open descriptors."""
    process, began = psutil.Process(), time.perf_counter()
    base, data = inputs.resolve() / "base", inputs.resolve() / "small"
    os.chdir(emptied(folder))
    for _ in itertools.count():
        run = lorafit.train(base, data, **PLAIN)
        tuned = lorafit.load(run.path)
        for _ in range(3):
            lorafit.predict(tuned, ["a great film", "dull"] * 8)
        del run, tuned
        shutil.rmtree("runs")
        gc.collect()
        yield time.perf_counter() - began, process.memory_info().rss, process.num_fds()


def looped(inputs: Path, folder: Path, seconds: float, most: int = 10**6) -> Case:
    """Goes round for some time in a process of its own.

    Returns:
        The one case: ``flat``, ``grows``, ``too short to tell`` or ``failed``.
    """

    def inside() -> list[tuple[float, int, int]]:
        quiet()
        found = []
        for line in itertools.islice(rounds(inputs, folder), most):
            found.append(line)
            if line[0] > seconds:
                break
        return found

    ended = forked(inside, folder / "none")
    if ended.code:
        return Case(NAME, 1, "failed", {"error": ended.error, "code": ended.code})
    return judged(ended.value)


def judged(lines: Sequence[tuple[float, int, int]]) -> Case:
    """Whether the memory of the later rounds grows: a line's slope, beyond two errors of it."""
    megabytes = np.array([line[1] for line in lines]) / 1e6
    later = megabytes[int(len(lines) * SETTLED) :]
    slope = error = 0.0
    if len(later) >= FEWEST:
        line, spread = np.polyfit(np.arange(len(later)), later, 1, cov=True)
        slope, error = float(line[0]), float(np.sqrt(spread[0, 0]))
    facts = {
        "rounds": len(lines),
        "seconds": round(lines[-1][0]),
        "mb_first": round(float(megabytes[0])),
        "mb_settled": round(float(later[0])),
        "mb_last": round(float(later[-1])),
        "mb_a_round": [round(slope, 4), round(error, 4)],
        "descriptors": [lines[0][2], lines[-1][2]],
    }
    result = "too short to tell" if not error else "grows" if slope - 2 * error > FLAT else "flat"
    return Case(NAME, 1, result, facts, round(lines[-1][0], 1))
