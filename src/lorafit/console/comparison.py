"""What a comparison shows: quality, costs, forgetting, redundancy, the recommendation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorafit.console.output import show, show_table
from lorafit.report.comparison import costs, front_lines, kept, quality, redundancy, remarks


def show_comparison(content: Mapping[str, Any], path: Path) -> None:
    """Shows a comparison, in the shape of ``compare.json``."""
    show()
    for table in (quality, costs, kept, redundancy):
        header, cells = table(content)
        if cells:
            show_table(cells, header)
            show()
    for remark in [*remarks(content), *front_lines(content)]:
        show(remark)
    show()
    show(content["recommendation"]["sentence"])
    show(f"All numbers: {path / 'compare.json'}")
    show(f"The page: {path / 'compare.html'}")
