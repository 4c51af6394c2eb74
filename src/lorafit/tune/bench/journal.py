"""What a search has done so far, on disk, so that it can be killed at any moment.

A search is a sequence of named pieces of work, each a function of states made before. Its
facts are written when it ends; when the search runs again, finished pieces are read instead
of computed, so it comes to the same decisions in the same order, and goes on where it was.

That holds because a decision sees what is written and nothing else: a piece that was just
computed is handed out as reading it would give it, and a state that was let go of is gone in
memory too.

Each entry carries its name and the digests of its files and of itself: one that was changed, or
put in another's place, is refused instead of gone on with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lorafit.errors import RunError, clause
from lorafit.evidence.json import Json, parsed
from lorafit.evidence.measurements import Evidence
from lorafit.run import Run, atomic, digest
from lorafit.run.folder import SEARCH
from lorafit.tune.bench.state import Shape, State

BUDGET = "budget"
"""Name of the entry with the budget that a search began with."""

VERSION = 3
"""Of the searches: to be raised with whatever makes one decide, name its pieces or write them
otherwise, for a journal is only worth what it was written by. Journals of before this number have
none."""

ARRAYS, STATE = "arrays.safetensors", "state.safetensors"
"""Endings of an entry's files of tensors."""

START = "start"
"""Name of the piece of work that a search begins with; its state is never let go of."""


class HeadInit(TypedDict):
    """How a new head begins: the fields of a `lorafit.evidence.Choice`."""

    value: str
    reason: str
    evidence: Evidence


class Facts(TypedDict, total=False):
    """What a piece of work came to, as JSON has it; each kind of work has its own part.

    Attributes:
        cost: The fields of a `lorafit.tune.bench.ledger.Cost`; none: it was not computed.
        diverged: Of a training: whether it did.
        lines: Of a training: of ``metrics.jsonl``.
        metrics: Of a scoring: by name.
        sharpness: Of a scoring: the best factor of the logits.
        energies: Of moments: by path, of each direction of the update.
        runs: Of the budget: plain runs.
        version: Of the budget: `VERSION`.
        head: Of the beginning of a new head.
        centre: Of the prior: the fields of a `lorafit.tune.prior.centre.Centre`.
    """

    cost: dict[str, float]
    diverged: bool
    lines: Sequence[Mapping[str, object]]
    metrics: dict[str, float]
    sharpness: float
    energies: dict[str, list[float]]
    runs: float
    version: int
    head: HeadInit
    centre: dict[str, float]


@dataclass
class Entry:
    """A finished piece of work.

    Attributes:
        name: Unique in the search.
        facts: What came out, what it cost.
        arrays: Numbers per example or step.
        kept: The state it ended in, if any; its tensors are gone once nothing starts from it.
    """

    name: str
    facts: Facts
    arrays: dict[str, Tensor] = field(default_factory=dict)
    kept: State | None = None


def noted_budget(run: Run | None) -> float | None:
    """The budget in plain runs that the search of a run began with.

    A budget in minutes is measured by the clock, which says something else on another day: it
    is measured once.

    Returns:
        ``None``: no search has begun.

    Raises:
        RunError: As `Journal.begin`.
    """
    if run is None:
        return None
    entry = _read(run.path / SEARCH, BUDGET)
    return None if entry is None else _budget(entry, run.path / SEARCH)


def is_noted(run: Run | None, name: str) -> bool:
    """Whether the search of a run has finished a piece of work."""
    return run is not None and (run.path / SEARCH / f"{name}.json").is_file()


class Journal:
    """The finished pieces of work of one search.

    Args:
        run: Its folder; ``None``: nothing is written, and nothing survives a kill.
    """

    def __init__(self, run: Run | None) -> None:
        self._run = run
        self._entries: dict[str, Entry] = {}
        if run is not None:
            with atomic.writing(self.folder, "the search's journal"):
                self.folder.mkdir(exist_ok=True)
                atomic.remove(atomic.unfinished(self.folder))

    @property
    def folder(self) -> Path:
        """Where it is written."""
        assert self._run is not None
        return self._run.path / SEARCH

    def begin(self, budget: float) -> float:
        """Notes what the search begins with, or reads what it began with.

        Args:
            budget: In plain runs. One in minutes was measured: a resumed search keeps its number.

        Returns:
            The budget that counts.

        Raises:
            RunError: The search was begun by a version of lorafit that searches otherwise, the
                journal is damaged or cannot be written.
        """
        entries = [] if self._run is None else sorted(self.folder.glob("*.json"))
        if entries and self._path(BUDGET, "json") not in entries:
            raise _damaged(self._path(BUDGET, "json"), "it is missing")
        noted = self.once(BUDGET, lambda: Entry(BUDGET, {"runs": budget, "version": VERSION}))
        return _budget(noted, self.folder if self._run is not None else Path())

    def once(self, name: str, work: Callable[[], Entry]) -> Entry:
        """The piece of work of this name: read, or else done and written.

        Raises:
            RunError: It cannot be written, or what was written is damaged.
        """
        if name in self._entries:
            return self._entries[name]
        entry = None if self._run is None else _read(self.folder, name)
        if entry is None:
            entry = work()
            entry.name = name
            # As they would be read: no tuples, keys that are strings.
            entry.facts = json.loads(json.dumps(entry.facts))
            self._write(entry)
        self._entries[name] = entry
        return entry

    def forget(self, entry: Entry) -> None:
        """Lets go of a state that nothing starts from any more; the facts stay."""
        if entry.kept is not None:
            entry.kept.forget()
        if self._run is not None:
            self._path(entry.name, STATE).unlink(missing_ok=True)

    def _path(self, name: str, ending: str) -> Path:
        return self.folder / f"{name}.{ending}"

    def _write(self, entry: Entry) -> None:
        if self._run is None:
            return
        state = entry.kept
        values: Json = {"name": entry.name, "facts": entry.facts, "state": None}
        with atomic.writing(self.folder, "the search's journal"):
            if state is not None:
                values["state"] = {
                    "step": state.step,
                    "settings": dict(state.shape.settings),
                    "generators": state.generators,
                    "factors": state.factors,
                    "sha256": self._save(entry.name, STATE, state.tensors),
                }
            values["arrays_sha256"] = self._save(entry.name, ARRAYS, entry.arrays)
            # Last: a piece of work counts once this file is there.
            atomic.write_json(self._path(entry.name, "json"), digest.sealed(values))

    def _save(self, name: str, ending: str, tensors: Mapping[str, Tensor]) -> str:
        """Writes tensors; returns the digest of the file."""
        path = self._path(name, ending)
        temporary = path.with_name(f"{atomic.TEMPORARY}{path.name}")
        atomic.save_tensors(temporary, {k: v.contiguous() for k, v in tensors.items()})
        sha256 = digest.of_file(temporary)
        temporary.replace(path)
        return sha256


def _budget(noted: Entry, folder: Path) -> float:
    """The budget of the entry `BUDGET`.

    Raises:
        RunError: It is of another version.
    """
    if noted.facts.get("version") != VERSION:
        raise RunError(
            f'the search in "{folder}" was begun by a version of lorafit that searches '
            "otherwise. Resume it with that version, or delete the folder to search again "
            "from the beginning."
        )
    return float(noted.facts["runs"])


def _read(folder: Path, name: str) -> Entry | None:
    """An entry as it was written; ``None``: there is none.

    Raises:
        RunError: It, or one of its files, is damaged.
    """
    file = folder / f"{name}.json"
    if not file.is_file():
        return None
    try:
        values = parsed(file.read_text(encoding="utf-8"))
        if digest.CONTENT not in values and name == BUDGET:  # of an earlier version, which it says
            return Entry(name, {"version": 0})
        if digest.of_values(values) != values[digest.CONTENT] or values["name"] != name:
            raise ValueError("it is not what was written")  # noqa: TRY301 a damage like others
        arrays = _tensors(folder / f"{name}.{ARRAYS}", values["arrays_sha256"])
        entry, state = Entry(name, values["facts"], arrays), values["state"]
        if state is not None:
            path = folder / f"{name}.{STATE}"
            # Gone once nothing starts from it.
            tensors = _tensors(path, state["sha256"]) if path.is_file() else {}
            shape, generators = Shape(state["settings"]), state["generators"]
            entry.kept = State(state["step"], shape, tensors, generators, state["factors"])
    except (OSError, ValueError, AttributeError, KeyError, TypeError, SafetensorError) as error:
        raise _damaged(file, clause(error)) from error
    return entry


def _tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    if digest.of_file(path) != sha256:
        raise ValueError(f"{path.name} is not what was written")
    return load_file(path)


def _damaged(file: Path, why: str) -> RunError:
    return RunError(
        f'"{file}" is damaged: {why}. Delete the folder "{file.parent}" to search again from the '
        "beginning."
    )
