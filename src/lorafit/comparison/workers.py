"""Runs the arms, one after the other, each in a process of its own."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from lorafit.comparison.measured import Failure
from lorafit.comparison.process import BUSY
from lorafit.comparison.request import Request, arm_folder
from lorafit.errors import RunError
from lorafit.run import atomic, locks
from lorafit.trust import NO_TRUST, Trust
from lorafit.units import duration

log = logging.getLogger(__name__)

GO_ON = "then the same command goes on after the last finished run"


def is_done(folder: Path, request: Request, method: str) -> bool:
    """Whether an arm has everything it was asked for."""
    own = arm_folder(folder, method)
    wanted = [f"seed-{seed}.json" for seed in range(request.seeds)]
    wanted += ["noise.json"] if method in request.noise else []
    return all((own / name).is_file() for name in wanted)


def run_arms(folder: Path, request: Request, trust: Trust = NO_TRUST) -> dict[str, str]:
    """Runs every arm that is not done.

    Args:
        folder: The comparison's folder.
        request: What is compared.
        trust: What the caller allows of code that comes with the model.

    Returns:
        Why arms failed, by method; they do not end the others.

    Raises:
        RunError: Another process works in this folder, or in that of an arm, or there are links
            in it.
        KeyboardInterrupt: After Ctrl-C; the arm has ended.
    """
    failed: dict[str, str] = {}
    atomic.refuse_links(folder)
    left = [method for method in request.arms if not is_done(folder, request, method)]
    begun, known = time.monotonic(), len(left)
    with locks.held(folder, "comparing"):
        atomic.remove(atomic.unfinished(folder))
        for number, method in enumerate(request.arms, start=1):
            if is_done(folder, request, method):
                log.info("[%d/%d] %s: done before", number, len(request.arms), method)
                continue
            rest = _left(begun, known, left)
            log.info("[%d/%d] %s%s", number, len(request.arms), method, rest)
            left.remove(method)
            problem = _run(folder, method, trust)
            if problem is not None:
                failed[method] = problem
                log.warning("%s failed: %s", method, problem)
    return failed


def _left(begun: float, known: int, left: list[str]) -> str:
    """How much longer it takes if the other arms take as long as those before; not for the first.

    Args:
        begun: When the first of them began.
        known: How many there were to run.
        left: Those to run still.
    """
    done = known - len(left)
    if not done:
        return ""
    return f" (about {duration((time.monotonic() - begun) / done * len(left))} left)"


def _run(folder: Path, method: str, trust: Trust) -> str | None:
    """Runs one arm; returns why it failed.

    Raises:
        RunError: Another process works in its folder.
    """
    own = arm_folder(folder, method)
    with atomic.writing(own, "the comparison", GO_ON):
        own.mkdir(parents=True, exist_ok=True)
        errors = (own / "log.txt").open("a", encoding="utf-8")
    source = str(Path(atomic.__file__).parents[2])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    # -P: modules in the folder that the command was typed in are not the arm's.
    command = [sys.executable, "-P", "-m", "lorafit.comparison.process", str(folder), method]
    command.append(json.dumps(asdict(trust)))
    environment = os.environ | {"PYTHONPATH": path}
    with (
        errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # that it closes tells the arm that this process has ended
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                log.info("  %s: %s", method, line.rstrip())
            code = process.wait()
        except BaseException:
            process.kill()  # what it had finished is in files, each of them whole
            process.wait()
            raise
    if code == BUSY:
        raise RunError(f'another process is training in "{own}". Wait for it or stop it.')
    if code == 0:
        return None
    if (own / "failed.json").is_file():
        failed: Failure = atomic.read_json(own / "failed.json")
        return f"{failed['error']}: {failed['message']}"
    if code < 0:
        name = signal.Signals(-code).name
        why = " (out of memory?)" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{why}"
    return f"its process ended with {code}; see {own / 'log.txt'}"
