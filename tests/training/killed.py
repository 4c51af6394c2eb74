"""Trains, is killed, resumes; run as a program by test_resume.py.

``python killed.py FOLDER`` prints one JSON object: for each scenario the digest of the final
weights and the metrics. Every training is a process of its own, forked before torch has
started any thread, so that the imports are paid for once.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
from pathlib import Path

from lorafit.run import Run, RunWriter, atomic
from lorafit.training.learner import Learner
from lorafit.training.loop import fit
from lorafit.training.progress import QuietProgress
from lorafit.training.seed import seed_everything
from tests.training import toy

SETTINGS = {"eval_steps": 3, "num_train_epochs": 3, "gradient_accumulation_steps": 2}
"""64 examples in batches of 8, two a step: 12 steps, checkpoints after 3, 6, 9 and 12."""


class Killer(QuietProgress):
    """Kills its own process when a step is done."""

    def __init__(self, at: int | None) -> None:
        self.at = at

    def step(self, update) -> None:
        if update.step == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_at_flush(number: int) -> None:
    """Kills this process the ``number``-th time tensors of a checkpoint are flushed."""
    flush, calls = atomic.sync_file, 0

    def flush_or_die(path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            path.write_bytes(path.read_bytes()[:100])
            os.kill(os.getpid(), signal.SIGKILL)
        flush(path)

    atomic.sync_file = flush_or_die


def train(folder: Path, kill_step: int | None, kill_flush: int | None, resume: bool) -> None:
    config = toy.config(**SETTINGS)
    run = RunWriter(folder) if resume else RunWriter.create(config, folder.parent, folder.name)
    if kill_flush is not None:
        kill_at_flush(kill_flush)
    seed_everything(config.seed)
    random.random()  # Python's and NumPy's generators are part of the state too
    model = toy.bert(dropout=0.2)
    trainable = toy.train_some(model)
    learner = Learner(
        toy.engine(model),
        model,
        toy.ToyTask(),
        trainable,
        toy.examples(64),
        toy.examples(32, seed=1),
    )
    fit(learner, config, run, resume=resume, progress=Killer(kill_step))
    digest = hashlib.sha256()
    for name in sorted(trainable):
        digest.update(trainable[name].detach().numpy().tobytes())
    run.write_json("final.json", {"digest": digest.hexdigest(), "random": random.random()})


def in_process(*args) -> int:
    """Runs `train` in a process of its own and returns how that ended."""
    child = os.fork()
    if child == 0:
        try:
            train(*args)
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 the child ends here
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    steps = random.SystemRandom().sample(range(1, 12), 3)
    scenarios: dict[str, list[tuple[int | None, int | None]]] = {
        "whole": [],
        **{f"killed after step {step}": [(step, None)] for step in steps},
        "killed twice": [(4, None), (8, None)],
        "killed in its second checkpoint": [(None, 2)],
        "killed before the first checkpoint": [(2, None)],
        "killed in its first checkpoint": [(None, 1)],
    }
    report = {}
    for number, (scenario, kills) in enumerate(scenarios.items()):
        path = folder / f"run-{number}"
        exits = [in_process(path, *kill, i > 0) for i, kill in enumerate(kills)]
        exits.append(in_process(path, None, None, bool(kills)))
        run = Run.open(path)
        report[scenario] = {
            "exits": exits,
            "final": run.read_json("final.json"),
            "metrics": run.metrics,
            "checkpoints": sorted(path.name for path in run.checkpoints.iterdir()),
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
