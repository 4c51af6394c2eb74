"""Files and texts that are damaged a little, and what the calls make of them.

Right is an answer or one of lorafit's own errors, soon. Wrong is any other error (raw), a process
that dies, or one that takes longer than `CPU_S` seconds.
"""

from __future__ import annotations

import copy
import json
import os
import resource
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import lorafit
from benchmarks.soak import mutate
from benchmarks.soak.cases import DAMAGED, Case, Part
from benchmarks.soak.ready import quiet
from benchmarks.soak.works import PLAIN, Compare, ShortSearch, emptied
from lorafit.comparison.request import Request, begun
from lorafit.config import Config, DataConfig, ModelConfig
from lorafit.console import show_result
from lorafit.errors import LorafitError
from lorafit.pipeline import problem as problems
from lorafit.pipeline.problem import Live
from lorafit.report.html import write_report
from lorafit.report.refresh import find_folder, refresh
from lorafit.run import Run
from lorafit.run.folder import SEARCH
from lorafit.run.listing import COMPARISON, REQUEST, list_comparisons, list_runs
from lorafit.settings import from_file, resolve
from lorafit.training import checkpoint
from lorafit.tune.bench.journal import Entry, Journal, noted_budget
from tests import tiny_text
from tests.faults.operations import forked

TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' and not loop.first %}"
    "{{ raise_exception('the system role comes first') }}{% endif %}"
    "{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
CPU_S = 10
"""Processor time of one case; more is a hang. Most take a hundredth of a second."""
WALL_S = 180
MEMORY = 4 << 30
"""Bytes that a case may take more than there were."""
TOGETHER = 400
"""Cases in one process."""


@dataclass(frozen=True)
class Target:
    """One kind of input.

    Attributes:
        name: What is damaged, and what reads it.
        make: Returns a good one; is called once, in the folder of the inputs.
        damage: Makes a bad one of it.
        use: Is given the bad one in a scratch folder.
        share: How many of a round's cases it gets, against one of the others.
    """

    name: str
    make: Callable[[], Any]
    damage: Callable[[Any, Random], Any]
    use: Callable[[Any, Path], object]
    share: int = 1


class Inputs:
    """Good inputs, and what reads them.

    Args:
        folder: With what `make_inputs` wrote, and a finished run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.run = self.folder / "finished" / "runs" / "it"

    def make(self) -> None:
        """Trains the run whose files are damaged. In a process of its own."""
        os.chdir(emptied(self.folder / "finished"))
        lorafit.train(self.folder / "base", self.folder / "small", **PLAIN)

    @cached_property
    def searched(self) -> Path:
        """A run that was stopped in its search."""
        return self._made("searched", lambda: ShortSearch(self.folder).stopped(self.PIECES))

    @cached_property
    def compared(self) -> Path:
        """A finished comparison."""
        return self._made("compared", Compare(self.folder).start)

    PIECES = 12
    """Of the search that is stopped; so many trials and trainings have states to go on from."""

    def _made(self, name: str, work: Callable[[], object]) -> Path:
        """A run or comparison, made in a process of its own the first time."""
        folder = self.folder / name
        if not (folder / "ready").is_file():

            def inside() -> None:
                quiet()
                os.chdir(emptied(folder))
                work()
                (folder / "ready").touch()

            ended = forked(inside, folder / "none")
            if ended.code:
                raise RuntimeError(f"{name}: fails without a fault: {ended.error or ended.code}")
        return folder / "runs" / "it"

    # What reads -------------------------------------------------------------------------

    @cached_property
    def live(self) -> Live:
        """The classifier, so that it is not loaded for each file."""
        loaded = lorafit.load(self.run)
        assert isinstance(loaded.model, PreTrainedModel)
        return Live(loaded.model, loaded.tokenizer)

    @cached_property
    def tuned(self) -> lorafit.Tuned:
        return lorafit.load(self.run)

    @cached_property
    def chatting(self) -> PreTrainedTokenizerBase:
        """The tokenizer with a template for conversations, which is strict, as many are."""
        tokenizer = copy.deepcopy(self.live.tokenizer)
        tokenizer.chat_template = TEMPLATE
        return tokenizer

    def read(self, name: str, content: bytes, folder: Path, task: str | None = None) -> object:
        """Reads a data file as `train` and `preview` do, up to the tokens of its rows."""
        file = folder / name
        file.write_bytes(content)
        config = Config(
            model=ModelConfig(name_or_path=str(self.folder / "base")),
            data=DataConfig(path=str(file)),
            task=task,
        )
        found = problems.pose(str(file), config, None if task else self.live)
        tokenizer = self.chatting if task == "causal_lm" else self.live.tokenizer
        return [found.task.encode(rows, tokenizer, 40) for rows in found.splits.values()]

    def settings(self, content: bytes, folder: Path) -> object:
        """Reads settings as ``--config`` does."""
        file = folder / "settings.yaml"
        file.write_bytes(content)
        return resolve(from_file(file))

    def load(self, name: str, content: bytes, folder: Path) -> object:
        """Loads an adapter of which one file is damaged, and predicts with it."""
        self._copy(self.run / "adapter", folder / "adapter", name, content)
        return lorafit.predict(lorafit.load(folder / "adapter"), ["a great film"])

    def look(self, name: str, content: bytes, folder: Path) -> object:
        """Lists, opens, reports and shows a run of which one file is damaged."""
        runs = folder / "runs"
        self._copy(self.run, runs / "it", name, content)
        list_runs(runs), list_comparisons(runs)
        run, refused = Run(runs / "it"), []
        reads = [partial(getattr, run, name) for name in READ]
        for call in (*reads, partial(write_report, run.path), partial(show_result, run)):
            try:
                call()
            except LorafitError as error:  # the rest has to be readable all the same
                refused.append(error)
        if refused:
            raise refused[0]
        return run

    def check(self, name: str, content: bytes, folder: Path) -> object:
        """Reads a checkpoint of which one file is damaged."""
        step = checkpoint.latest_step(self.run / "checkpoints")
        assert step is not None
        good = checkpoint.path_of(self.run / "checkpoints", step)
        self._copy(good, folder / "checkpoints" / good.name, name, content)
        return checkpoint.latest(folder / "checkpoints")

    def journal(self, name: str, content: bytes, folder: Path) -> object:
        """Reads a search's journal of which one file is damaged, as a resumed search does."""
        self._copy(self.searched, folder / "run", name, content)
        run = Run(folder / "run")
        noted_budget(run)
        journal = Journal(run)
        journal.begin(1.0)
        for file in sorted((self.searched / SEARCH).glob("*.json")):
            entry, good = journal.once(file.stem, _computed_again), json.loads(file.read_bytes())
            kept = entry.kept and {"step": entry.kept.step, "settings": entry.kept.shape.settings}
            if entry.facts != good["facts"] or bool(kept) != bool(good["state"]):
                raise AssertionError(f"the search would go on with another {file.stem}")
            if kept and kept != {key: good["state"][key] for key in kept}:
                raise AssertionError(f"the search would go on from another {file.stem}")
        return journal

    def comparison(self, name: str, content: bytes, folder: Path) -> object:
        """Lists and reports a comparison of which one file is damaged, and goes on with it."""
        runs = folder / "runs"
        self._copy(self.compared, runs / "it", name, content)
        list_runs(runs), list_comparisons(runs)
        good = Request.read(self.compared)
        found = begun(runs, None, good)
        if found is not None and Request.read(found).key != good.key:
            raise AssertionError("it would go on with another comparison")
        return refresh(find_folder("it", runs))

    def predict(self, texts: Any, folder: Path) -> object:  # noqa: ARG002 as all others
        """Predicts texts that may be none."""
        return lorafit.predict(self.tuned, texts)

    @staticmethod
    def _copy(good: Path, folder: Path, name: str, content: bytes) -> None:
        """Links to the files of a folder, but for one."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(good, folder, copy_function=os.link)
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(content)

    # What is damaged --------------------------------------------------------------------

    def targets(self) -> list[Target]:
        """All kinds of inputs."""
        jsonl, lines = mutate.json_lines_damaged, mutate.lines_damaged
        chats = partial(self.read, "chats.jsonl", task="causal_lm")
        found = [
            Target("data: csv", lambda: _table(",").encode(), lines, partial(self.read, "d.csv")),
            Target("data: tsv", lambda: _table("\t").encode(), lines, partial(self.read, "d.tsv")),
            Target("data: jsonl", _json_lines, jsonl, partial(self.read, "d.jsonl")),
            Target("data: json", _json, mutate.json_damaged, partial(self.read, "d.json")),
            Target("data: conll", _conll, lines, partial(self.read, "d.conll")),
            Target("data: chat jsonl", _chats, jsonl, chats),
            Target("data: parquet", _parquet, mutate.damaged, partial(self.read, "d.parquet")),
            Target("data: arrow", _arrow, mutate.damaged, partial(self.read, "d.arrow")),
            Target("data: feather", _feather, mutate.damaged, partial(self.read, "d.feather")),
            Target("settings: yaml", self._yaml, lines, self.settings),
            Target("texts -> predict", _texts, mutate.changed, self.predict, share=4),
        ]
        for name in ("adapter_config.json", "lorafit.json"):
            good = self.run / "adapter" / name
            found.append(self._file(f"adapter: {name}", good, partial(self.load, name)))
        weights = self.run / "adapter" / "adapter_model.safetensors"
        found.append(self._file("adapter: weights", weights, partial(self.load, weights.name)))
        for name in RUN_FILES:
            good = self.run / name
            found.append(self._file(f"run: {name}", good, partial(self.look, name)))
        found += [
            self._later(f"comparison: {name}", "compared", name, self.comparison)
            for name in (COMPARISON, REQUEST)
        ]
        found += [
            self._later(f"search: {name}", "searched", f"{SEARCH}/{pattern}", self.journal)
            for name, pattern in JOURNAL.items()
        ]
        step = checkpoint.latest_step(self.run / "checkpoints")
        if step is not None:
            folder = checkpoint.path_of(self.run / "checkpoints", step)
            for name in ("state.json", "state.safetensors"):
                use = partial(self.check, name)
                found.append(self._file(f"checkpoint: {name}", folder / name, use))
        return found

    def _yaml(self) -> bytes:
        return (self.run / "config.yaml").read_bytes()

    def _later(
        self, name: str, made: str, pattern: str, use: Callable[[str, bytes, Path], object]
    ) -> Target:
        """A file of what is made only when it is damaged: that takes some seconds."""

        def file() -> Path:
            folder: Path = getattr(self, made)
            return min(folder.glob(pattern)).relative_to(folder)

        def used(content: bytes, folder: Path) -> object:
            return use(str(file()), content, folder)

        def good() -> bytes:
            return bytes((getattr(self, made) / file()).read_bytes())

        return Target(name, good, _damage_of(Path(pattern)), used)

    @staticmethod
    def _file(name: str, good: Path, use: Callable[[Any, Path], object]) -> Target:
        return Target(name, good.read_bytes, _damage_of(good), use)


def _damage_of(file: Path) -> mutate.Mutator:
    kinds = {".json": mutate.json_damaged, ".jsonl": mutate.json_lines_damaged}
    kinds |= {".yaml": mutate.lines_damaged, ".safetensors": safetensors_damaged}
    return kinds.get(file.suffix, mutate.damaged)


def _computed_again() -> Entry:
    raise AssertionError("the search would compute again what is there")


JOURNAL = {
    "budget": "budget.json",
    "scores": "*-score.json",
    "numbers": "*-score.arrays.safetensors",
    "state": "*-start.json",
    "weights": "*-start.state.safetensors",
}
"""Files of a search's journal, by what they hold."""
READ = ("summary", "config", "evaluation", "choices", "environment", "metrics", "predictions")
"""Of a run, by its attributes."""
RUN_FILES = (
    *("status.json", "config.yaml", "eval.json", "choices.json", "data.json", "environment.json"),
    *("metrics.jsonl", "predictions.parquet"),
)


def safetensors_damaged(content: bytes, draw: Random) -> bytes:
    """Weights whose header has other values, or whose bytes are others."""
    size = int.from_bytes(content[:8], "little")
    header, tensors = content[8 : 8 + size], content[8 + size :]
    match draw.randrange(4):
        case 0:
            return mutate.damaged(content, draw)
        case 1:
            return content[: 8 + size] + mutate.damaged(tensors, draw)
        case 2:
            number = draw.choice((0, 1, size - 1, size + 1, 2**31, 2**63 - 1, 2**64 - 1))
            return number.to_bytes(8, "little") + header + tensors
        case _:
            other = mutate.json_damaged(header, draw)
            return len(other).to_bytes(8, "little") + other + tensors


def _rows() -> Dataset:
    return tiny_text.rows(20)


def _table(separator: str) -> str:
    rows = [("text", "label"), *((row["text"], row["label"]) for row in _rows())]
    quoted = [(f'"{text}"' if n % 3 else text, label) for n, (text, label) in enumerate(rows)]
    return "".join(f"{text}{separator}{label}\n" for text, label in quoted)


def _json() -> bytes:
    return mutate.as_json(_rows().to_list())


def _json_lines() -> bytes:
    return b"".join(mutate.as_json(row) + b"\n" for row in _rows())


def _conll() -> bytes:
    tags = ("O", "B-PER", "I-PER")
    words = [row["text"].split() for row in _rows()]
    sentences = ["\n".join(f"{w} NN {tags[i % 3]}" for i, w in enumerate(one)) for one in words]
    return "\n\n".join(sentences).encode() + b"\n"


def _chats() -> bytes:
    chats = [{"messages": [{"role": r, "content": f"{c} {n}"} for r, c in SAID]} for n in range(20)]
    return b"".join(mutate.as_json(chat) + b"\n" for chat in chats)


SAID = (("system", "be kind"), ("user", "a film"), ("assistant", "great"))


def _parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(_rows().data.table, sink)
    return bytes(sink.getvalue())


def _arrow() -> bytes:
    sink, table = pa.BufferOutputStream(), _rows().data.table
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _feather() -> bytes:
    sink = pa.BufferOutputStream()
    feather.write_feather(_rows().data.table, sink, compression="uncompressed")
    return bytes(sink.getvalue())


def _texts() -> list[Any]:
    return ["a great film", "dull", "x " * 100, "caf\u00e9 \U0001f600", " a\tb\n"]


class Fuzz(Part):
    """One kind of damaged input.

    Args:
        target: Which.
        folder: Scratch.
        seed: Of the damage.
        most: Cases.
    """

    def __init__(self, target: Target, folder: Path, seed: int, most: int) -> None:
        self.target, self.folder, self.seed, self.most = target, folder, seed, most
        self.name = f"{DAMAGED}{target.name}"
        self._good: Any = None

    def prepare(self) -> None:
        self._good = self.target.make()

    @property
    def numbers(self) -> Sequence[int]:
        return range(self.most)

    def try_one(self, number: int) -> Case:
        return next(iter(self.try_some([number])))

    def bad(self, number: int) -> Any:
        """The damaged input of a case."""
        draw = Random(f"{self.seed}:{self.target.name}:{number}")
        return self.target.damage(self._good, draw)

    def try_some(self, numbers: Sequence[int]) -> Iterator[Case]:
        """Up to `TOGETHER` cases in one forked process; one that dies ends it, and is a case."""
        some, said = list(numbers[:TOGETHER]), self.folder.with_suffix(".jsonl")

        def inside() -> None:
            quiet()
            _limit()
            with said.open("w", encoding="utf-8") as file:
                for number in some:
                    file.write(json.dumps(self._case(number)) + "\n")
                    file.flush()

        while some:
            emptied(self.folder)
            said.write_text("")
            ended = forked(inside, self.folder / "none")
            for line in said.read_text(encoding="utf-8").splitlines():
                yield Case(self.name, *json.loads(line))
                del some[0]
            if some:
                how = "hung" if -ended.code in (signal.SIGPROF, signal.SIGALRM) else "died"
                yield Case(self.name, some.pop(0), how, {"code": ended.code, "error": ended.error})

    def _case(self, number: int) -> tuple[int, str, dict[str, object], float]:
        began = time.perf_counter()
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        signal.alarm(WALL_S)
        result: str = "accepted"
        facts: dict[str, object] = {}
        try:
            self.target.use(self.bad(number), self.folder)
        except LorafitError:
            result = "refused"
        except Exception as error:  # noqa: BLE001 these are what is looked for
            result = "raw error"
            facts = {"error": f"{type(error).__name__}: {str(error)[:200]!r}", "at": _place(error)}
        return number, result, facts, round(time.perf_counter() - began, 4)


def _limit() -> None:
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def _place(error: BaseException) -> str:
    """The last line of lorafit's that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f"{os.sep}lorafit{os.sep}" in f.filename]
    last = (own or frames)[-1]
    return f"{Path(last.filename).name}:{last.lineno} {last.name}"
