"""The process of one arm: ``python -m lorafit.comparison.process FOLDER METHOD [TRUST]``.

It ends with the process that started it, and holds the lock of the arm's folder: two arms never
write the same files, even where a parent was killed and the comparison goes on at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from lorafit.errors import RunError
from lorafit.machine.parent import end_with_parent
from lorafit.run import locks

BUSY = 75
"""Exit code: another process works in the arm's folder (``EX_TEMPFAIL`` of ``sysexits.h``)."""

PATIENCE = 10.0
"""Seconds that an arm whose parent was killed may take to end."""


def main(folder: str, method: str, trust: str = "{}") -> int:
    """Runs one arm; lines go to standard output, everything else to standard error.

    Args:
        folder: The comparison's folder.
        method: The arm's name.
        trust: What the caller allows, `lorafit.trust.Trust` as JSON.
    """
    # Standard input is the pipe; a duplicate, so that nothing else reads from it.
    pipe = os.dup(0)
    end_with_parent(pipe)
    # Only now what takes seconds to load: a parent may be killed in them.
    from lorafit.comparison import arm
    from lorafit.comparison.request import arm_folder

    with contextlib.ExitStack() as stack:
        try:
            own = arm_folder(Path(folder), method)
            stack.enter_context(locks.held(own, "training", patience=PATIENCE))
        except RunError as error:
            sys.stderr.write(f"{error}\n")
            return BUSY
        return arm.main(folder, method, trust)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
