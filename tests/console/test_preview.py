from __future__ import annotations

from dataclasses import replace

import pytest

from lorafit.console import show_preview
from lorafit.inspection.rows import Example, Lengths, Preview

LENGTHS = Lengths(
    measured=4,
    mean=12.5,
    percentiles={5: 7, 25: 8, 50: 11, 75: 15, 90: 20, 95: 21, 99: 30, 100: 30},
    histogram=[(7, 12, 3), (13, 30, 1)],
    max_length=16,
    truncated=1,
    truncated_share=0.25,
    tokens_lost_share=0.28,
)
PREVIEW = Preview(
    columns={"review": "text", "score": "label, 2 classes"},
    text=("review",),
    text_reason="the only text column",
    label="score",
    label_reason="as asked",
    rows={"train": 3, "test": 1},
    labels={"train": {"good": 2, "bad": 1}, "test": {"good": 1, "bad": 0}},
    unlabelled={"train": 0, "test": 0},
    empty={"train": 0, "test": 0},
    duplicates={"train": 1, "test": 0},
    shared={"train": 0, "test": 0},
    lengths={"train": LENGTHS, "test": replace(LENGTHS, truncated=0)},
    examples=[
        Example("train", 2, "good", ("a [b]fine[/b]\nfilm",), ("that ends",), "right", ["a"] * 16),
        Example("train", 1, None, ("x" * 1000,), ("",), "right", ["x"]),
    ],
)


def test_a_preview_shows_columns_balance_lengths_and_examples(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_preview(PREVIEW)
    out = capsys.readouterr().out
    for part in (
        "text (the only text column)",
        "label (as asked)",
        "2 (66.7%)",
        "1 examples (25.0%) at 16, 28.0% of the tokens",
        "nothing at 16",
        "7 to 12",
        "train row 2: good, 16 tokens",
        "a [b]fine[/b] film [cut: that ends]",
        "train row 1: no label, 1 tokens",
        "... (1,000 characters)",
    ):
        assert part in out
    assert "\x1b" not in out


def test_columns_of_zeros_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    show_preview(PREVIEW)
    out = capsys.readouterr().out
    assert "repeated" in out
    assert "without text" not in out


def test_the_longest_bar_belongs_to_the_fullest_bin(capsys: pytest.CaptureFixture[str]) -> None:
    show_preview(PREVIEW)
    bars = [line.count("█") for line in capsys.readouterr().out.splitlines() if "█" in line]
    assert bars == [40, 13]


def test_data_without_labels_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show_preview(replace(PREVIEW, label=None, labels={"train": {}, "test": {}}))
    assert "66.7" not in capsys.readouterr().out
