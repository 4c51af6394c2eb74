"""Trains with two processes on the CPU; run as a program by test_parallel.py.

``python two_processes.py FOLDER`` prints the final weights' digests and values as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from lorafit.run import Run, RunWriter
from lorafit.training.progress import QuietProgress
from tests.training import toy

SETTINGS = {"per_device_train_batch_size": 4, "num_train_epochs": 1, "eval_steps": 2}
EXAMPLES = 45
"""12 batches of 4 and less: the last step has one example in one of the processes."""


class Killer(QuietProgress):
    """Kills its own process when a step is done."""

    def __init__(self, at: int | None) -> None:
        self.at = at

    def step(self, update) -> None:
        if update.step == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def train(path: Path, size: int, dropout: float, kill: int | None, resume: bool) -> None:
    settings = toy.config(**SETTINGS, gradient_accumulation_steps=2 // size)
    if os.environ.get("RANK", "0") == "0":
        run = RunWriter(path) if resume else RunWriter.create(settings, path.parent, path.name)
    else:
        while not (path / "config.yaml").is_file():  # until the first process has made it
            time.sleep(0.05)
        run = RunWriter(path)
    model = toy.bert(dropout=dropout)
    _, trainable = toy.run_fit(
        settings, run, n=EXAMPLES, model=model, resume=resume, progress=Killer(kill)
    )
    values = {name: parameter.tolist() for name, parameter in trainable.items()}
    run.write_json(f"final-{os.environ.get('RANK', '0')}.json", values)


def start(size: int, *args) -> None:
    """Runs `train` in ``size`` processes and waits for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            if size > 1:
                os.environ |= {
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(size),
                    "LOCAL_WORLD_SIZE": str(size),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    "ACCELERATE_USE_CPU": "true",
                }
            try:
                train(args[0], size, *args[1:])
                os._exit(0)
            except BaseException as error:  # noqa: BLE001 the child ends here
                print(f"{rank}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def main(folder: Path) -> None:
    start(1, folder / "one", 0.0, None, False)
    start(2, folder / "two", 0.0, None, False)
    start(2, folder / "whole", 0.3, None, False)
    start(2, folder / "killed", 0.3, 3, False)
    start(2, folder / "killed", 0.3, None, True)
    report = {
        path.name: {
            "weights": [json.loads(file.read_text()) for file in sorted(path.glob("final-*.json"))],
            "metrics": Run.open(path).metrics,
        }
        for path in folder.iterdir()
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
