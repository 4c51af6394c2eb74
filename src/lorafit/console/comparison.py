"""What a comparison shows: quality, costs, forgetting, redundancy, the recommendation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorafit.console.output import show, show_split_table
from lorafit.report.comparison import costs, front_lines, kept, quality, redundancy, remarks


def show_comparison(content: Mapping[str, Any], path: Path) -> None:
    """Shows a comparison, in the shape of ``compare.json``."""
    show()
    header, families = quality(content)
    rows = []
    for family, members in families.items():
        rows.append([family, *[""] * (len(header) - 1)])
        rows += [[f"  {name}", *cells] for name, *cells in members]
    for columns, cells in ((header, rows), costs(content), kept(content), redundancy(content)):
        if cells:
            show_split_table(cells, columns)
            show()
    for remark in [*remarks(content), *front_lines(content)]:
        show(remark)
    show()
    show(content["recommendation"]["sentence"])
    show(f"All numbers: {path / 'compare.json'}")
    show(f"The page: {path / 'compare.html'}")
