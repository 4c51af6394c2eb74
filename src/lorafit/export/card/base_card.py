"""What the base model's own card says of its license and languages; nothing is invented.

The card is the ``README.md`` in the base's folder, or in the Hub's cache. Nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import try_to_load_from_cache

from lorafit.errors import LorafitError
from lorafit.paths import resolve
from lorafit.run import config_file

LONGEST = 200_000
"""Bytes of a card that are read."""


@dataclass(frozen=True)
class BaseCard:
    """The header of a card, as far as it is known.

    Attributes:
        license: As the Hub spells it.
        license_name: Of a license that the Hub has no word for.
        license_link: Where that stands.
        language: One or several, as the card has them.
    """

    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    language: str | list[str] | None = None


def read(base_name: str | None) -> BaseCard:
    """Reads the base's card; an empty one where there is none.

    Args:
        base_name: Folder, file, ``package:NAME/path`` or Hub id.
    """
    header = _header(_file(base_name)) if base_name else {}
    found = {
        name: header[name]
        for name in ("license", "license_name", "license_link")
        if isinstance(header.get(name), str) and header[name].strip()
    }
    language: Any = header.get("language")
    if isinstance(language, list):
        language = [one for one in language if isinstance(one, str)] or None
    return BaseCard(**found, language=language if isinstance(language, str | list) else None)


def _file(base_name: str) -> Path | None:
    try:
        path = resolve(base_name)
    except LorafitError:
        return None
    if path is None:
        try:
            found = try_to_load_from_cache(base_name, "README.md")
        except ValueError:  # no Hub id: huggingface_hub's own error is one
            return None
        return Path(found) if isinstance(found, str) else None
    folder = path if path.is_dir() else path.parent
    return folder / "README.md"


def _header(file: Path | None) -> dict[str, Any]:
    """The YAML between the first two lines of dashes."""
    if file is None or not file.is_file():
        return {}
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            lines = opened.read(LONGEST).splitlines()
        if not lines or lines[0].strip() != "---":
            return {}
        end = next(at for at, line in enumerate(lines[1:], start=1) if line.strip() == "---")
        found = config_file.parse("\n".join(lines[1:end]))
    except (OSError, StopIteration, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}
