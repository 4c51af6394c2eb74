"""How files are read, and what is found in them."""

from __future__ import annotations

from dataclasses import dataclass

from lorafit.config import DataConfig
from lorafit.data.findings import UNKEPT, Findings


@dataclass(frozen=True)
class Reading:
    """One reading of one file or more.

    Attributes:
        skip_bad_rows: Lines that cannot be read are left out and counted.
        encoding: How text is stored, such as ``cp1252``; ``None``: UTF-8.
        findings: Takes what is found.
    """

    skip_bad_rows: bool = False
    encoding: str | None = None
    findings: Findings = UNKEPT

    @classmethod
    def by(cls, config: DataConfig, findings: Findings) -> Reading:
        """As the settings ask for."""
        return cls(config.skip_bad_rows, config.encoding, findings)


PLAIN = Reading()
"""UTF-8, and every line has to be right."""
