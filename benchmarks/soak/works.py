"""What is interrupted: a training, a search, a comparison, ...; how each goes on; its files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import runpy
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from datasets import disable_progress_bars

import lorafit
from lorafit.comparison import workers
from lorafit.errors import RunError
from lorafit.run import Run
from lorafit.training.progress import QuietProgress
from tests import tiny_text

TIMES = {
    *("time_s", "tokens_per_s", "peak_memory_bytes", "cpu_s", "wall_s", "seconds", "steps_per_s"),
    *("created_at", "updated_at", "cost", "training", "processor_s", "content_sha256"),
}
"""What differs between two equal runs."""
IGNORED = {".lock", ".lock.pid", "status.json", "log.txt"}
"""Files that say who worked there and when."""
BY_CONTENT = {
    *("adapter_model.safetensors", "adapter_config.json", "lorafit.json", "config.yaml"),
    *("metrics.jsonl", "trials.jsonl", "trials.json", "eval.json", "predictions.parquet"),
    *("model.safetensors", "tokenizer.json", "config.json", "shrink.json"),
}
"""Files that are the same after an interruption, times left out."""

State = Mapping[str, str]
"""File to the digest of its content; ``""`` where only its being there counts."""


def make_inputs(folder: Path) -> None:
    """Writes a tiny BERT and two sizes of data."""
    disable_progress_bars()
    tiny_text.save_base(folder / "base", "bert")
    for name, sizes in {"small": (24, 12, 16), "large": (120, 100, 40)}.items():
        (folder / name).mkdir()
        for seed, (split, size) in enumerate(zip(SPLITS, sizes, strict=True)):
            tiny_text.rows(size, seed).to_csv(folder / name / f"{split}.csv")


SPLITS = ("train", "validation", "test")
EVERY: dict[str, Any] = {"bf16": False, "progress": False, "run.dir": "runs", "run.name": "it"}
PLAIN: dict[str, Any] = {
    **EVERY,
    **{"tune.strategy": "none", "max_steps": 4, "eval_steps": 2, "batch_size": 8, "r": 2},
}


class Work(ABC):
    """Something that writes ``runs/it`` below the current folder.

    Args:
        inputs: What `make_inputs` wrote.
    """

    def __init__(self, inputs: Path) -> None:
        self.inputs = inputs.resolve()

    @abstractmethod
    def start(self) -> None:
        """Begins anew; the same call again is what a user would try first."""

    def again(self) -> None:
        """Goes on after an interruption, as the documentation says."""
        self.start()

    @staticmethod
    def begun(folder: Path) -> bool:
        """Whether an interruption left something to go on with."""
        return (folder / "runs" / "it" / "config.yaml").is_file()


class Train(Work):
    """``train`` with everything set: four steps, two checkpoints."""

    settings = PLAIN
    data = "small"

    def start(self) -> None:
        lorafit.train(self.inputs / "base", self.inputs / self.data, **self.settings)

    def again(self) -> None:
        if not self.begun(Path()):
            self.start()
            return
        try:
            lorafit.train(resume=Path("runs") / "it", progress=False)
        except RunError as error:
            if "nothing to resume" not in str(error):
                raise


class Search(Train):
    """``train`` that chooses by the default strategy: 320 steps and its branches."""

    settings = EVERY | {"max_steps": 320, "batch_size": 4}
    data = "large"


class ShortSearch(Search):
    """The same for a run that is too short to measure a rank by: rates, and how long to train."""

    settings = EVERY | {"max_steps": 36, "batch_size": 4}
    data = "small"

    def stopped(self, pieces: int) -> None:
        """Begins, and is interrupted after some pieces of work."""
        settings = self.settings | {"progress": _Stopping(pieces)}
        with contextlib.suppress(KeyboardInterrupt):
            lorafit.train(self.inputs / "base", self.inputs / self.data, **settings)


class _Stopping(QuietProgress):
    """Interrupts a search after some pieces of work."""

    def __init__(self, pieces: int) -> None:
        self.left = 2 * pieces  # each is told of when it begins and when it is paid

    def phase(self, name: str, runs: float, time_s: float) -> None:  # noqa: ARG002 as all
        self.left -= 1
        if self.left <= 0:
            raise KeyboardInterrupt


class Written(Work):
    """Something that writes one folder, which is there whole or not at all.

    Args:
        inputs: With a finished run in it.
    """

    out = Path("runs") / "it"

    @property
    def finished(self) -> Path:
        """The run that is read."""
        return self.inputs / "finished" / "runs" / "it"

    def again(self) -> None:
        """Does it anew, unless the folder is there: then it has to be whole."""
        if not self.begun(Path()):
            self.start()

    @staticmethod
    def begun(folder: Path) -> bool:
        return (folder / Written.out).exists()


class Merge(Written):
    """``merge`` of a finished run."""

    def start(self) -> None:
        lorafit.merge(self.finished, self.out, progress=False)


class Shrink(Written):
    """``shrink`` of a finished run, measured on its data."""

    def start(self) -> None:
        lorafit.shrink(
            self.finished,
            r=1,
            data=self.inputs / "small",
            out=self.out,
            retrain_steps=2,
            bf16=False,
            progress=False,
        )


class Compare(Work):
    """``compare`` of two methods, whose arms are forked instead of started anew."""

    def start(self) -> None:
        vars(workers)["subprocess"] = _Forking
        given = EVERY | {"methods": "lora,bitfit", "seeds": 1, "max_steps": 4, "batch_size": 8}
        lorafit.compare(self.inputs / "base", self.inputs / "small", **given)

    @staticmethod
    def begun(folder: Path) -> bool:
        return any((folder / "runs").glob("*/request.json"))


class _ForkedArm:
    """Stands in for `subprocess.Popen` of ``python ... -m MODULE ARGUMENT...``: forks."""

    def __init__(self, command: list[str], *, stderr: IO[str], **options: Any) -> None:
        module, *arguments = command[command.index("-m") + 1 :]
        (out, into), (given, giving) = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(giving)  # an arm may wait for its input to end, as it does with its parent
            _run_module(module, arguments, (given, into, stderr.fileno()), options)
        for end in (into, given):
            os.close(end)
        self.stdin, self.stdout = os.fdopen(giving, "w"), os.fdopen(out)
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stdin.close()
        self.stdout.close()
        self.wait()

    def poll(self) -> int | None:
        return self._waited(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:  # noqa: ARG002 as Popen
        code = self._waited(0)
        assert code is not None
        return code

    def _waited(self, flags: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, flags)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(15)

    def kill(self) -> None:
        self.send_signal(9)


class _Forking:
    """Stands in for the module `subprocess`."""

    Popen = _ForkedArm
    PIPE = -1
    STDOUT = -2
    DEVNULL = -3
    TimeoutExpired = TimeoutError


def _run_module(
    module: str, arguments: list[str], streams: Sequence[int], options: Mapping[str, Any]
) -> None:
    code = 1
    try:
        os.environ |= options.get("env") or {}
        if (prepare := options.get("preexec_fn")) is not None:
            prepare()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w", buffering=1)
        sys.argv = [module, *arguments]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        os._exit(code)


def state(folder: Path) -> State:
    """What is in the runs of a folder, times left out."""
    found = {}
    runs = folder / "runs"
    for path in sorted(runs.rglob("*")):
        if path.is_file() and path.name not in IGNORED:
            said = _digest(path) if path.name in BY_CONTENT else ""
            found[path.relative_to(runs).as_posix()] = said
    return found


def _digest(path: Path) -> str:
    content: Any = path.read_bytes()
    if path.name == "predictions.parquet":
        content = path.stat().st_size.to_bytes(8, "big")
    elif path.suffix == ".jsonl":
        lines = [_timeless(json.loads(line)) for line in content.splitlines()]
        content = json.dumps(lines, sort_keys=True).encode()
    elif path.suffix == ".json":
        content = json.dumps(_timeless(json.loads(content)), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def _timeless(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _timeless(value) for key, value in tree.items() if key not in TIMES}
    return [_timeless(one) for one in tree] if isinstance(tree, list) else tree


def status(folder: Path) -> str:
    """How far the run says it has got; ``none``: there is none."""
    try:
        return Run.open(folder / "runs" / "it").status
    except RunError:
        return "none"


def emptied(folder: Path) -> Path:
    """A folder with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
