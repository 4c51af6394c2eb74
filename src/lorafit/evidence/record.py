"""A JSON file of a run as a typed record: written whole, read whole, or as far as it is whole."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lorafit.errors import RunError
from lorafit.evidence.json import Json

SCHEMA = 1
"""Version of the files that are written. Files without one are of before there were versions."""


class Record(BaseModel):
    """A file of a run. Other fields than those it knows are passed over."""

    model_config = ConfigDict(populate_by_name=True, frozen=True)

    file: ClassVar[str]
    """Its name in the folder."""
    writer: ClassVar[str] = "lorafit train"
    """The command that writes it."""

    schema_version: int = Field(default=SCHEMA, alias="schema")

    @classmethod
    def from_json(cls, content: Mapping[str, object], source: str | None = None) -> Self:
        """Reads the content of a file.

        Args:
            content: JSON values.
            source: Where they are from, for the message; ``None``: the usual name.

        Raises:
            RunError: A value is not what it should be, or the file is of a later version.
        """
        if not isinstance(content, Mapping):
            raise RunError(
                f'"{source or cls.file}" is damaged: it is not what {cls.writer} writes, '
                "a JSON object."
            )
        content = cls.unpacked(content)
        check_version(content, source or cls.file)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            wrong = "is missing" if first["type"] == "missing" else f"is {first['input']!r:.60}"
            raise RunError(
                f'"{source or cls.file}" is damaged: it is not what {cls.writer} writes '
                f"({place} {wrong}). Bring the file back, or make it anew."
            ) from error

    @classmethod
    def whole_parts(cls, content: Mapping[str, object]) -> tuple[Self, list[str]]:
        """Reads what can be read of a file that may be damaged.

        Returns:
            The record without the parts that are not what they should be, and their places.
        """
        left, lost = cls.unpacked(copy.deepcopy(dict(content))), list[str]()
        while True:
            try:
                return cls.model_validate(left), lost
            except ValidationError as error:
                errors = error.errors(include_url=False, include_input=False)
                places = {_there(left, found["loc"]) for found in errors} - {()}
                if not places:
                    raise
                # The last of a list first, so that the places of the others stay.
                for place in sorted(places, key=_order, reverse=True):
                    _drop(left, place)
                    lost.append(".".join(map(str, place)))

    @classmethod
    def unpacked(cls, content: Mapping[str, object]) -> Json:
        """From the layout of the file to the fields of the record."""
        values = {str(name): value for name, value in content.items()}
        return {"schema": 0} | values

    def to_json(self) -> Json:
        """JSON values in the layout of the file; what is not known is left out."""
        content = self.model_dump(mode="json", by_alias=True)
        return {name: value for name, value in content.items() if value is not None}


def check_version(content: Mapping[str, object], source: str) -> None:
    """Refuses a file of a later version than this one.

    Raises:
        RunError: It is.
    """
    version = content.get("schema")
    if isinstance(version, int) and version > SCHEMA:
        raise RunError(
            f'"{source}" has version {version} of the format, and this lorafit reads up to '
            f"{SCHEMA}. Use the newer lorafit that wrote it."
        )


Place = tuple[int | str, ...]


def _there(content: Any, place: Place) -> Place:
    """The deepest part of a place that there is."""
    for depth, part in enumerate(place):
        inside = part in content if isinstance(content, dict) else False
        if isinstance(content, list) and isinstance(part, int):
            inside = part < len(content)
        if not inside:
            return place[:depth]
        content = content[part]
    return place


def _order(place: Place) -> list[tuple[bool, int, str]]:
    """Sorts places, numbers as numbers."""
    return [(isinstance(p, str), p if isinstance(p, int) else 0, str(p)) for p in place]


def _drop(content: Any, place: Place) -> None:
    for part in place[:-1]:
        content = content[part]
    del content[place[-1]]
