"""What settings come to: a checked configuration and where each of its values came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorafit.config import AdapterConfig, Config
from lorafit.evidence.json import Json
from lorafit.run.config_file import MEASURED

DEFAULT = "default"
"""Origin of what nobody set."""
AUTO = "auto"
"""The value that asks for a measurement, and the origin of what is to be measured."""


@dataclass(frozen=True)
class Settings:
    """A checked configuration and where each of its values came from.

    Attributes:
        config: The configuration; the adapter's settings are complete.
        origins: Key to origin, for every key: ``default``, ``flag --r``, ...
    """

    config: Config
    origins: dict[str, str]

    def origin(self, key: str) -> str:
        """Where the value of a key came from; `DEFAULT` where that is not known."""
        return self.origins.get(key, DEFAULT)

    def is_set(self, key: str) -> bool:
        """Whether somebody chose the value of a key, or asked for it to be measured."""
        return self.origin(key) != DEFAULT

    def is_open(self, key: str) -> bool:
        """Whether the value of a key is left to be measured."""
        return self.origin(key).startswith((DEFAULT, AUTO))

    def with_measured(self, values: Mapping[str, Any]) -> Settings:
        """The same with values that were measured.

        Args:
            values: By key, of ``train`` and ``adapter``.
        """
        train: Json = {}
        adapter = dict(self.config.adapter.settings)
        for key, value in values.items():
            section, _, name = key.partition(".")
            plain = sorted(value) if isinstance(value, set) else value
            (train if section == "train" else adapter)[name] = plain
        config = self.config.model_copy(
            update={
                "train": self.config.train.model_copy(update=train),
                "adapter": AdapterConfig(method=self.config.adapter.method, **adapter),
            }
        )
        return Settings(config, self.origins | dict.fromkeys(values, MEASURED))
