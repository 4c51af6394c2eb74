"""``python -m lorafit``: the command line."""

from __future__ import annotations

from lorafit.cli import main

if __name__ == "__main__":
    main()
