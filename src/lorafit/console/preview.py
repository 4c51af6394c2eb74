"""What `preview` shows (see `lorafit.data.preview`)."""

from __future__ import annotations

from typing import Any


def show_preview(preview: Any) -> None:
    """Shows a preview."""
