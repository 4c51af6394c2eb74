"""What a search has done so far, on disk, so that it can be killed at any moment.

A search is a sequence of named pieces of work, each a function of states made before. Its
facts are written when it ends; when the search runs again, finished pieces are read instead
of computed, so it comes to the same decisions in the same order, and goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lorafit import files
from lorafit.errors import RunError
from lorafit.run import Run
from lorafit.tune.state import Shape, State

FOLDER = "tune"
"""In the run folder; removed when the run is done."""


@dataclass
class Entry:
    """A finished piece of work.

    Attributes:
        name: Unique in the search.
        facts: JSON values: what came out, what it cost.
        arrays: Numbers per example or step.
        kept: The state it ended in, if any; its tensors are gone once nothing starts from it.
    """

    name: str
    facts: dict[str, Any]
    arrays: dict[str, Tensor] = field(default_factory=dict)
    kept: State | None = None


class Journal:
    """The finished pieces of work of one search.

    Args:
        run: Its folder; ``None``: nothing is written, and nothing survives a kill.
    """

    def __init__(self, run: Run | None) -> None:
        self._run = run
        self._entries: dict[str, Entry] = {}
        if run is not None:
            with files.writing(self._folder, "the search's journal"):
                self._folder.mkdir(exist_ok=True)

    @property
    def _folder(self) -> Path:
        assert self._run is not None
        return self._run.path / FOLDER

    def once(self, name: str, work: Callable[[], Entry]) -> Entry:
        """The piece of work of this name: read, or else done and written.

        Raises:
            RunError: It cannot be written, or what was written is damaged.
        """
        if name in self._entries:
            return self._entries[name]
        entry = self._read(name)
        if entry is None:
            entry = work()
            entry.name = name
            self._write(entry)
        self._entries[name] = entry
        return entry

    def forget(self, entry: Entry) -> None:
        """Lets go of a state that nothing starts from any more; the facts stay."""
        if entry.kept is not None:
            entry.kept = replace(entry.kept, tensors={})
        if self._run is not None:
            self._path(entry.name, "state.safetensors").unlink(missing_ok=True)

    def _path(self, name: str, ending: str) -> Path:
        return self._folder / f"{name}.{ending}"

    def _write(self, entry: Entry) -> None:
        if self._run is None:
            return
        state = entry.kept
        values: dict[str, Any] = {"facts": entry.facts, "state": None}
        with files.writing(self._folder, "the search's journal"):
            if state is not None:
                self._save(entry.name, "state.safetensors", state.tensors)
                values["state"] = {
                    "step": state.step,
                    "settings": dict(state.shape.settings),
                    "generators": state.generators,
                }
            self._save(entry.name, "arrays.safetensors", entry.arrays)
            # Last: a piece of work counts once this file is there.
            files.write_json(self._path(entry.name, "json"), values)

    def _save(self, name: str, ending: str, tensors: Mapping[str, Tensor]) -> None:
        path = self._path(name, ending)
        temporary = path.with_name(f"{files.TEMPORARY}{path.name}")
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary)
        files.sync_file(temporary)
        temporary.rename(path)

    def _read(self, name: str) -> Entry | None:
        if self._run is None or not self._path(name, "json").is_file():
            return None
        values = files.read_json(self._path(name, "json"))
        try:
            entry = Entry(name, values["facts"], load_file(self._path(name, "arrays.safetensors")))
            state, path = values["state"], self._path(name, "state.safetensors")
            if state is not None:
                shape = Shape(state["settings"])
                tensors = load_file(path) if path.is_file() else {}
                entry.kept = State(state["step"], shape, tensors, state["generators"])
        except (OSError, KeyError, TypeError, SafetensorError) as error:
            raise RunError(
                f'"{self._path(name, "json")}" is damaged: {error}. Delete the folder '
                f'"{self._folder}" to search again from the beginning'
            ) from error
        return entry
