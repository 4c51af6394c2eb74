"""Tiny trainings that meet faults; run as a program by the tests here.

``python -m tests.faults.program SCENARIO FOLDER`` prints a JSON list, an object for each fault.
Every training is a process of its own, forked before torch has started any thread, so that the
imports are paid for once.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# The commands import it in the call, which would be in each fork.
import lorafit.api  # noqa: F401
from lorafit.__main__ import main
from lorafit.run import Run
from tests import tiny_text
from tests.faults.operations import Ended, Fault, forked, full_disk, kill, send

SAMPLED = 4
"""Of the operations that are not singled out."""


def build(top: Path) -> None:
    """The model and the data."""

    def work() -> None:
        tiny_text.save_base(top / "base", "bert")
        (top / "data").mkdir()
        for split, rows in tiny_text.splits(16).items():
            rows.to_json(str(top / "data" / f"{split}.jsonl"))

    ended = forked(work, top / "none")
    assert ended.code == 0, ended.error


def train(top: Path, runs: Path, resume: bool = False) -> Callable[[], Any]:
    """The command ``lorafit train``, as a process runs it; standard error goes to a file."""

    def work() -> None:
        log = os.open(runs.with_suffix(".err"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 2)
        settings: dict[str, Any] = {"train.max_steps": 2, "train.per_device_train_batch_size": 8}
        settings |= {"train.bf16": "false", "tune.strategy": "none"}
        settings |= {"run.dir": runs, "run.name": "x"}
        new = [str(top / "base"), str(top / "data")]
        for name, value in settings.items():
            new += ["--set", f"{name}={value}"]
        sys.argv = ["lorafit", "train", "-q", *(["--resume", str(runs / "x")] if resume else new)]
        main()

    return work


def again(top: Path, runs: Path) -> Ended:
    """What a user does next: resume the run, or where there is none, give the command again."""
    return forked(train(top, runs, resume=(runs / "x").exists()), runs)


def digest(runs: Path) -> str | None:
    """Of the weights of the adapter."""
    weights = runs / "x" / "adapter" / "adapter_model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None


def said(runs: Path) -> str:
    """What was said on standard error, in one line."""
    return " ".join(runs.with_suffix(".err").read_text(errors="replace").split())


def places(operations: Sequence[str], wanted: Sequence[str], sampled: int) -> list[int]:
    """Numbers of operations: one of each kind wanted, and a seeded sample of the others."""
    found = []
    for pattern in wanted:
        at = [n for n, name in enumerate(operations, 1) if re.search(pattern, name)]
        assert at, f"{pattern} is no operation: {operations}"
        found.append(at[-1])
    others = [n for n in range(1, len(operations) + 1) if n not in found]
    return sorted({*found, *random.Random(0).sample(others, sampled)})


def faults(
    top: Path, wanted: Sequence[str], makes: Sequence[Callable[[int], Fault]], sampled: int
) -> list[dict[str, Any]]:
    """Trains once without a fault, then with each at each place; each of these goes on after it."""
    build(top)
    reference = top / "reference"
    whole = forked(train(top, reference), reference)
    assert whole.error == "SystemExit: 0", said(reference)
    results = []
    chosen = places(whole.operations, wanted, sampled)
    for make, number in itertools.product(makes, chosen):
        runs = top / f"at-{number}"
        ended = forked(train(top, runs), runs, make(number))
        first = said(runs)
        status = Run(runs / "x").summary.status if (runs / "x").exists() else None
        went_on = again(top, runs)
        run = runs / "x"
        results.append(
            {
                "operation": whole.operations[number - 1],
                "code": ended.code,
                "exit": ended.error,
                "said": first,
                "status": status,
                "then": went_on.error,
                "then_said": said(runs),
                "equal": digest(runs) == digest(reference),
                "report": (run / "report.html").is_file(),
                "leftover": sorted(p.name for p in runs.rglob(".tmp-*")),
            }
        )
        shutil.rmtree(runs, ignore_errors=True)
    return results


LAST = (r"rename .*README", r"rename .*config-final\.yaml$", r"open .*report", r"rename .*report")

SCENARIOS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    "killed": lambda top: faults(top, (r"rename \.tmp-x-\w+$", *LAST), [kill], SAMPLED),
    "full": lambda top: faults(
        top,
        (r"open .*state\.safetensors", r"open .*tokenizer", r"open .*status", r"open .*report"),
        [full_disk],
        SAMPLED,
    ),
    "signals": lambda top: faults(
        top,
        (r"open .*data\.json", r"mkdir .*step", LAST[0]),
        [
            functools.partial(send, numbers=numbers)
            for numbers in ([signal.SIGINT], [signal.SIGTERM, signal.SIGTERM])
        ],
        0,
    ),
}


if __name__ == "__main__":
    print(json.dumps(SCENARIOS[sys.argv[1]](Path(sys.argv[2]))))  # noqa: T201 what the test reads
