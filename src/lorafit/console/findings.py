"""What `doctor` shows: the facts, the versions, and whether there is something to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorafit.console.output import out, show, write
from lorafit.console.tables import show_table

if TYPE_CHECKING:
    from lorafit.machine.doctor import Finding


def show_findings(findings: Sequence[Finding]) -> None:
    """Shows what the machine is, what is installed, each problem with its fix, and a verdict."""
    facts = [finding for finding in findings if not finding.is_version]
    versions = [finding for finding in findings if finding.is_version]
    for listed in (facts, versions):
        show_table([(finding.what, finding.found) for finding in listed])
        show()
    problems = [finding for finding in findings if finding.warning]
    for finding in problems:
        write(out(), f"warning: {finding.warning}", "yellow", indent=2)
        if finding.fix:
            write(out(), f"  {finding.fix}", indent=2)
    if problems:
        show()
        many = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        show(f"{many}: {', '.join(finding.what for finding in problems)}.", style="yellow")
    else:
        show("No problems found.", style="green")
