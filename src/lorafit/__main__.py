"""The program ``lorafit``, which is ``python -m lorafit``, too."""

from __future__ import annotations

from lorafit.machine import signals


def main() -> None:
    """Entry point: a Ctrl-C while it loads is a line, not a traceback."""
    signals.leave_at_once()
    from lorafit.cli import main as program

    program()


if __name__ == "__main__":
    main()
