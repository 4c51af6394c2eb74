"""Kills, fills disks, sends signals and damages inputs; writes what happened as a table.

    python -m benchmarks.soak [--part kill disk signal inputs memory] [--minutes 120] [--seed 0]
    python -m benchmarks.soak --part kill --every 1 --copies    # every operation of everything

Goes on where it stopped, in ``build/soak``; every case is its seed and number, and can be tried
again alone: ``--part "kill: train" --case 17``. The results are written to results.json and
results.md beside this file, and into docs/explanation/reliability.md; with ``--out FOLDER``, to
that folder only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.soak.cases import Part

# Before torch is imported: forked processes need one that has started no threads.
os.environ |= {
    **{"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"},
    **{"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
}

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "explanation" / "reliability.md"
BEGIN = "<!-- Written by `python -m benchmarks.soak`. -->\n"
END = "<!-- end of the table -->\n"
OUT = Path("build/soak")
KINDS = ("kill", "disk", "signal", "inputs", "memory")
SLICE_S = 12
"""Seconds that a part has before it is another's turn."""


def parts_of(folder: Path, seed: int, cases: int, every: int | None, copies: bool) -> list[Part]:
    """All parts, the slow ones spread among the others: a short soak has some of each.

    Args:
        folder: Scratch, with the inputs.
        seed: Of the faults.
        cases: Damaged inputs in all.
        every: Kills and fills disks before every so-manieth operation, 1: each; ``None``: before
            each where that is quick, else as often as the part says.
        copies: Goes on from copies of what kills would leave, instead of killing.
    """
    from benchmarks.soak.inputs import Fuzz, Inputs
    from benchmarks.soak.interrupt import Interrupted
    from benchmarks.soak.works import Compare, Merge, Search, ShortSearch, Shrink, Train

    inputs = folder / "inputs"
    train, search, compare = Train(inputs), Search(inputs), Compare(inputs)
    short, merge, shrink = ShortSearch(inputs), Merge(inputs), Shrink(inputs)
    place = folder / "interrupted"
    interrupted = [
        Interrupted("kill: train", train, "kill", place / "a", seed),
        Interrupted("kill: resume", train, "kill", place / "b", seed, resuming=True),
        Interrupted("kill: search", search, "kill", place / "c", seed, every=11),
        Interrupted("kill: short search", short, "kill", place / "j", seed, every=31),
        Interrupted("kill: compare", compare, "kill", place / "d", seed),
        Interrupted("kill: merge", merge, "kill", place / "k", seed),
        Interrupted("kill: shrink", shrink, "kill", place / "l", seed),
        Interrupted("disk: train", train, "disk", place / "e", seed),
        Interrupted("disk: search", search, "disk", place / "f", seed, every=17),
        Interrupted("disk: compare", compare, "disk", place / "g", seed, every=3),
        Interrupted("signal: train", train, "signal", place / "h", seed, most=60),
        Interrupted("signal: search", search, "signal", place / "i", seed, most=20),
        Interrupted("disk: merge", merge, "disk", place / "m", seed),
        Interrupted("disk: shrink", shrink, "disk", place / "n", seed),
    ]
    if every is not None:
        interrupted = [replace(one, every=1 if one.most else every) for one in interrupted]
    if copies:
        interrupted = [replace(one, copies=one.fault == "kill") for one in interrupted]
    slow: list[Part] = list(interrupted)
    targets = Inputs(inputs).targets()
    whole = sum(target.share for target in targets)
    found: list[Part] = []
    between = -(-len(targets) // len(slow))
    for number, target in enumerate(targets):
        most = -(-cases * target.share // whole)
        if number % between == 0 and slow:
            found.append(slow.pop(0))
        found.append(Fuzz(target, folder / "damaged" / str(number), seed, most))
    return found + slow


def prepared(folder: Path) -> None:
    """Makes the inputs, and imports in this process what the work needs."""
    from benchmarks.soak.inputs import Inputs
    from benchmarks.soak.ready import import_for
    from benchmarks.soak.works import Merge, Shrink, emptied, make_inputs
    from tests.faults.operations import forked

    inputs = folder / "inputs"
    if not (inputs / "ready").is_file():
        shutil.rmtree(inputs, ignore_errors=True)
        inputs.mkdir(parents=True)
        made = forked(lambda: make_inputs(inputs), folder / "none")
        if made.code:
            raise SystemExit(made.error)

    def all_of_it() -> None:
        tried = emptied((folder / "tried").resolve())
        Inputs(inputs).make()
        os.chdir(tried)
        for work in (Merge(inputs), Shrink(inputs)):
            work.start()
            emptied(Path("runs"))

    import_for(all_of_it, folder / "none")
    (inputs / "ready").touch()


def write(out: Path) -> None:
    """Writes the results so far, the table, and the page."""
    from benchmarks.soak.cases import Journal, summary, table

    journal = Journal(out, json.loads((out / "cases.jsonl").read_text().splitlines()[0])["seed"])
    found = summary(journal.cases)
    content = {
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "parts": found,
    }
    place = HERE if out == OUT else out
    (place / "results.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (place / "results.md").write_text(table(found), encoding="utf-8")
    if out == OUT:
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), table(found)), "utf-8")
    print(table(found))


def with_table(page: str, rows: str) -> str:
    """A page with another table."""
    head, _, rest = page.partition(BEGIN)
    return head + BEGIN + "\n" + rows + "\n" + END + rest.partition(END)[2]


def wanted(name: str, chosen: Sequence[str]) -> bool:
    """Whether a part is among those that were asked for."""
    from benchmarks.soak.cases import DAMAGED

    kind = "inputs" if name.startswith(DAMAGED) else name.partition(":")[0]
    return kind in chosen or name in chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--part", nargs="+", default=list(KINDS), help=f"{', '.join(KINDS)}, a name"
    )
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=100_000, help="damaged inputs in all")
    parser.add_argument("--every", type=int, help="only every so-manieth file operation; 1: each")
    parser.add_argument(
        "--copies", action="store_true", help="go on from copies of what kills would leave"
    )
    parser.add_argument("--most", type=int, help="cases of each part, for a short try")
    parser.add_argument("--case", type=int, help="only this one of the part, and what it says")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--fresh", action="store_true", help="forget what was tried before")
    options = parser.parse_args()
    from benchmarks.soak.cases import Journal
    from benchmarks.soak.memory import looped

    if options.fresh:
        shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * options.minutes
    journal = Journal(options.out, options.seed)
    prepared(options.out)
    parts = parts_of(options.out, options.seed, options.cases, options.every, options.copies)
    left = [part for part in parts if wanted(part.name, options.part)]
    if options.case is not None:
        for part in left:
            part.prepare()
            print(json.dumps(asdict(part.try_one(options.case)), indent=1))
        return
    if "memory" in options.part:
        seconds, most = 60 * options.minutes / len(options.part), options.most or 10**6
        case = looped(options.out / "inputs", options.out / "loop", seconds, most)
        number = 1 + len(journal.done(case.part))
        journal.add(replace(case, number=number))
        print(case.part, case.result, case.facts, flush=True)
    todo: dict[str, list[int]] = {}
    while left and time.monotonic() < end:
        part = left.pop(0)
        if part.name not in todo:
            part.prepare()
            before = journal.done(part.name)
            numbers = list(part.numbers)[: options.most]
            todo[part.name] = [number for number in numbers if number not in before]
        numbers, until = todo[part.name], min(end, time.monotonic() + SLICE_S)
        while numbers and time.monotonic() < until:
            began = time.monotonic()
            for case in part.try_some(numbers):
                numbers.remove(case.number)
                journal.add(replace(case, seconds=case.seconds or time.monotonic() - began))
        done = journal.done(part.name)
        print(f"{part.name}: {len(done)} tried, {len(numbers)} left", flush=True)
        if numbers:
            left.append(part)
    write(options.out)


if __name__ == "__main__":
    main()
