"""How files are read, and what is found in them."""

from __future__ import annotations

from dataclasses import dataclass

from lorafit.config import DataConfig
from lorafit.data.findings import UNKEPT, Findings
from lorafit.unpacked import usual_limit


@dataclass(frozen=True)
class Reading:
    """One reading of one file or more.

    Attributes:
        skip_bad_rows: Lines that cannot be read are left out and counted.
        encoding: How text is stored, such as ``cp1252``; ``None``: UTF-8.
        findings: Takes what is found.
        max_unpacked: Most bytes that a file may unpack to; ``None``: see `limit`.
    """

    skip_bad_rows: bool = False
    encoding: str | None = None
    findings: Findings = UNKEPT
    max_unpacked: int | None = None

    @classmethod
    def by(cls, config: DataConfig, findings: Findings) -> Reading:
        """As the settings ask for."""
        gigabytes = config.max_unpacked_gb
        most = None if gigabytes is None else max(1, int(gigabytes * 1e9))
        return cls(config.skip_bad_rows, config.encoding, findings, most)

    def limit(self, size: int) -> int:
        """Most bytes that a file of this many may unpack to."""
        return self.max_unpacked or usual_limit(size)


PLAIN = Reading()
"""UTF-8, and every line has to be right."""
