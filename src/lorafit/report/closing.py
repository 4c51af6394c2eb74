"""The last of a run: its page, and nothing left of what it took to get there.

A run is done once its result is. Killed in the moment after that, or out of disk, it lacks its page
or keeps its search; whoever touches it next finishes that.
"""

from __future__ import annotations

from contextlib import suppress

from lorafit.errors import RunError
from lorafit.report.html import NAME, write_report
from lorafit.run import RunWriter
from lorafit.run.folder import STATUS


def finish(run: RunWriter) -> list[str]:
    """Removes what a finished run needs no more, then writes its page if that is missing or old.

    Args:
        run: A run that is done.

    Returns:
        What was done, each in a few words.

    Raises:
        RunError: The page cannot be written, or another process works on the run.
    """
    with run.lock():
        done = [f"removed {name}" for name in run.tidy()]
        if not _has_page(run):
            write_report(run.path)
            done.append(f"wrote {NAME}")
    return done


def tidy(run: RunWriter) -> list[str]:
    """Removes what a run needs no more, unless a process works on it or nobody may write there.

    Returns:
        The names of what is gone.
    """
    if run.status != "done" or not run.leftovers or run.locked:
        return []
    with suppress(RunError), run.lock():
        return run.tidy()
    return []


def _has_page(run: RunWriter) -> bool:
    """Whether there is a page that was written when the run was done, not in an earlier session."""
    if not run.report.is_file():
        return False
    return run.report.stat().st_mtime_ns >= (run.path / STATUS).stat().st_mtime_ns
