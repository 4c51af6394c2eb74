"""What happened in each case, kept so that a soak goes on where it stopped, and its table."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import lorafit

SOURCE = Path(lorafit.__file__).parent


@dataclass(frozen=True)
class Case:
    """One fault and what came of it.

    Attributes:
        part: What was tried.
        number: Which one of it: the same number and seed is the same fault.
        result: What happened, in few words.
        facts: What tells it from others, as JSON.
        seconds: How long it took.
    """

    part: str
    number: int
    result: str
    facts: Mapping[str, object] = field(default_factory=dict)
    seconds: float = 0.0


class Part(ABC):
    """A kind of fault at a kind of work."""

    name: str

    @abstractmethod
    def prepare(self) -> None:
        """Makes what the cases need."""

    @property
    @abstractmethod
    def numbers(self) -> Sequence[int]:
        """The cases there are, after `prepare`, in the order in which they are tried."""

    @abstractmethod
    def try_one(self, number: int) -> Case:
        """Tries one case."""

    def try_some(self, numbers: Sequence[int]) -> Iterable[Case]:
        """Tries the first few of these cases, as many as are quickest together."""
        yield self.try_one(numbers[0])


def fingerprint() -> str:
    """Of the program's source, so that results of different ones are not added up."""
    digest = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*.py")):
        digest.update(path.relative_to(SOURCE).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Journal:
    """The cases that were tried, one JSON object a line, beside what they were tried with.

    Args:
        folder: Where it is kept.
        seed: Of the faults.

    Raises:
        SystemExit: What is there was tried with another program or seed.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._file = folder / "cases.jsonl"
        self.cases: list[Case] = []
        head = {"source": fingerprint(), "seed": seed}
        if self._file.is_file():
            first, *lines = self._file.read_text(encoding="utf-8").splitlines()
            if json.loads(first) != head:
                raise SystemExit(
                    f"{self._file} is of another lorafit or another seed: name another folder "
                    "with --out, or begin anew with --fresh."
                )
            self.cases = [Case(**json.loads(line)) for line in lines]
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps(head) + "\n", encoding="utf-8")

    def add(self, case: Case) -> None:
        """Notes one case."""
        self.cases.append(case)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(case)) + "\n")

    def done(self, part: str) -> set[int]:
        """The numbers of a part that were tried."""
        return {case.number for case in self.cases if case.part == part}


def summary(cases: Iterable[Case]) -> dict[str, dict[str, object]]:
    """What happened, by part: how often each result came, what was seen besides, examples."""
    parts: dict[str, list[Case]] = {}
    for case in cases:
        parts.setdefault(case.part, []).append(case)
    return {name: _part(found) for name, found in sorted(parts.items())}


DAMAGED = "damaged "
"""What the names of parts with damaged inputs begin with."""
NOTED = ("missing", "left behind", "different")
HARMLESS = {
    *("equal", "accepted", "refused", "unaffected", "nothing begun, begun anew", "flat"),
    "too short to tell",
}


def _part(cases: Sequence[Case]) -> dict[str, object]:
    notes: Counter[str] = Counter()
    for case in cases:
        for kind in NOTED:
            names = case.facts.get(kind)
            assert names is None or isinstance(names, list)
            notes.update({f"{kind}: {_kind(name)}" for name in names or ()})
        if "mb_a_round" in case.facts:
            slope = case.facts["mb_a_round"]
            assert isinstance(slope, list)
            said = "{rounds:,} rounds, {mb_settled} MB then {mb_last} MB".format(**case.facts)
            said += f", {1000 * slope[0]:+.0f} kB a round"
            notes[said] += 1
        if "message" in case.facts:
            notes[f"message {case.facts['message']}"] += 1
        if case.facts.get("begun") and case.facts.get("says how to go on") is False:
            notes["does not say how to go on"] += 1
    bad = [case for case in cases if case.result not in HARMLESS]
    return {
        "n": len(cases),
        "results": dict(Counter(case.result for case in cases).most_common()),
        "notes": dict(sorted(notes.items())),
        "seconds": round(sum(case.seconds for case in cases), 1),
        "examples": [asdict(case) for case in sorted(bad, key=_seen_as)[:: max(1, len(bad) // 8)]],
    }


def _seen_as(case: Case) -> tuple[str, str]:
    return case.result, str(case.facts.get("error", case.facts.get("second", "")))


def _kind(name: str) -> str:
    """What kind of file a name is: without run, numbers and random endings."""
    parts = [part for part in name.split("/") if part]
    hidden = next((part for part in parts if part.startswith(".tmp-")), None)
    if hidden is not None:
        return ".tmp-*"
    return parts[1] + "/" if len(parts) > 2 else parts[-1]


def table(parts: Mapping[str, Mapping[str, object]]) -> str:
    """Markdown: fault, how often, what happened; and how many in all."""
    lines = ["| fault | cases | what happened |", "|---|---|---|"]
    for name, part in parts.items():
        results, notes, n = part["results"], part["notes"], part["n"]
        assert isinstance(results, Mapping)
        assert isinstance(notes, Mapping)
        assert isinstance(n, int)
        said = ", ".join(f"{count:,} {result}" for result, count in results.items())
        also = "; ".join(f"{count:,} {note}" for note, count in notes.items())
        lines.append(f"| {name} | {n:,} | {said}{f' ({also})' if also else ''} |")
    damaged = [part for name, part in parts.items() if name.startswith(DAMAGED)]
    n, seconds = (sum(float(str(part[key])) for part in damaged) for key in ("n", "seconds"))
    other = sum(int(str(part["n"])) for part in parts.values()) - n
    lines += [
        "",
        f"Together {n:,.0f} damaged inputs ({n / max(seconds, 1):,.0f} a second) and {other:,.0f} "
        "other faults.",
    ]
    return "\n".join(lines) + "\n"
