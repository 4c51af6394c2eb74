"""What `doctor` shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from lorafit.console.output import out, show, show_table

if TYPE_CHECKING:
    from lorafit.machine.doctor import Finding


def show_findings(findings: Sequence[Finding]) -> None:
    """Shows all facts, then each warning with what to do."""
    show_table([(finding.what, finding.found) for finding in findings])
    warnings = [finding for finding in findings if finding.warning]
    show()
    if not warnings:
        show("Nothing to mend.", style="green")
    for finding in warnings:
        line = Text("warning: ", style="yellow") + Text(f"{finding.warning}", style="default")
        out().print(line)
        if finding.fix:
            show(f"  {finding.fix}")
