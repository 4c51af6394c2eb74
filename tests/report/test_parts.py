from __future__ import annotations

import json
import re
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafit.report import curves, numbers, predicted
from lorafit.report.chart import Axis
from lorafit.report.facts import adapter_parts


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (numbers.percent, 0.8031, "80.3 %"),
        (numbers.percent, 0.00327, "0.33 %"),
        (numbers.percent, 0.0, "0.0 %"),
        (numbers.level, 0.95, "95 %"),
        (numbers.signed(numbers.points), 0.2911, "+29.1 points"),
        (numbers.signed(numbers.points), -0.012, "\u22121.2 points"),
        (numbers.decimals, 0.43602, "0.436"),
        (numbers.general, 73728, "73,728"),
        (numbers.general, 1.2e-05, "1.2e-05"),
        (numbers.general, 3.0, "3"),
        (numbers.scientific, 1.9e-06, "1.9e-06"),
        (numbers.scientific, 0.0, "0"),
        (numbers.size, 1536, "1.5 KiB"),
        (numbers.size, 12, "12 B"),
        (numbers.duration, 95, "1 min 35 s"),
        (numbers.duration, 4.21, "4.2 s"),
        (numbers.duration, 7260, "2 h 1 min"),
        (numbers.rate, 5120.4, "5,120 tokens/s"),
        (numbers.flops, 3.2e15, "3.2 PFLOP"),
        (numbers.format_for("peak_memory_bytes"), 1024**2, "1.0 MiB"),
        (numbers.format_for("seed"), 12345, "12345"),
        (numbers.format_for("validation_fraction"), 0.1, "10.0 %"),
        (numbers.format_for("tokens_per_s"), 10.0, "10 tokens/s"),
    ],
)
def test_numbers_read_well(form: numbers.Format, value: float, text: str) -> None:
    assert form(value).replace("\u202f", " ") == text


def test_what_is_no_number_is_shown_escaped() -> None:
    assert numbers.element("<b>", numbers.percent) == "<span>&lt;b&gt;</span>"
    assert numbers.element(None, numbers.percent) == "<span>unknown</span>"
    assert numbers.element(float("nan"), numbers.percent) == "<span>nan</span>"


def test_ticks_are_round_and_on_the_axis() -> None:
    assert Axis(0.27, 0.71).ticks(4) == [0.3, 0.4, 0.5, 0.6, 0.7]
    assert Axis(0, 800).ticks(4) == [0, 200, 400, 600, 800]
    for low, high in ((-3.0, 1e-9), (0.0, 1e12), (5.0, 5.0), (1e-7, 2e-7)):
        ticks = Axis(low, high).ticks(4)
        assert 1 <= len(ticks) <= 11
        assert len(ticks) > 1 or low == high
        span = high - low
        assert all(low - 1e-6 * span <= tick <= high + 1e-6 * span for tick in ticks)


@given(
    st.floats(-1e6, 1e6), st.floats(1e-4, 1e6), st.integers(1, 6)
)  # fmt: skip
def test_an_axis_has_two_ticks_or_it_is_no_scale(low: float, width: float, about: int) -> None:
    axis = Axis(low, low + width)
    ticks = axis.ticks(about)
    assert 2 <= len(ticks) <= 11 + 2 * about
    assert ticks == sorted(set(ticks))
    assert all(-1e-3 <= axis.percent(tick) <= 100 + 1e-3 for tick in ticks)


def test_sentences_of_the_terminal_are_typeset() -> None:
    said = 'Always answering "O" would be right on 62.5% of the words.'
    assert numbers.typeset(said) == said.replace('"O"', "“O”").replace("62.5%", "62.5\u202f%")


def test_smoothing_keeps_constants_and_does_not_lag() -> None:
    assert np.allclose(curves.smooth(np.full(50, 0.7)), 0.7)
    line = np.linspace(0, 1, 200)
    assert np.allclose(curves.smooth(line)[40:-40], line[40:-40])


def test_thinning_keeps_the_ends_of_the_range() -> None:
    points = [(float(i), float((i * 7919) % 5003)) for i in range(5000)]
    kept = curves.thin(points)
    assert len(kept) <= curves.MOST_POINTS
    assert kept == sorted(kept)
    assert {min(y for _, y in points), max(y for _, y in points)} <= {y for _, y in kept}


def test_tensors_are_grouped_by_layer() -> None:
    parts = adapter_parts(
        {
            "base_model.model.h.0.q.lora_A.weight": (4, 16),
            "base_model.model.h.0.q.lora_B.weight": (8, 4),
            "base_model.model.h.1.q.lora_A.weight": (2, 16),
            "base_model.model.h.1.q.lora_B.weight": (8, 2),
            "base_model.model.wte.lora_embedding_A": (4, 100),
            "base_model.model.wte.lora_embedding_B": (16, 4),
            "base_model.model.score.weight": (2, 16),
        }
    )
    assert [(p.name, p.layers, p.parameters, p.ranks) for p in parts] == [
        ("q", 2, 96 + 48, [2, 4]),
        ("wte", 1, 464, [4]),
        ("score", None, 32, []),
    ]


# Contrast --------------------------------------------------------------------------------

_STYLE = (files("lorafit.report") / "templates" / "style.css").read_text(encoding="utf-8")


def _schemes() -> list[dict[str, str]]:
    blocks = re.findall(r":root \{(.*?)\}", _STYLE, re.DOTALL)
    return [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6});", block)) for block in blocks]


def _luminance(color: str) -> float:
    digits = color[1:] if len(color) == 7 else "".join(2 * c for c in color[1:])
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", _schemes(), ids=["light", "dark", "print"])
def test_text_has_good_contrast(scheme: dict[str, str]) -> None:
    """WCAG 2.2 AA: 4.5 for text."""
    pairs = [
        *(("card", name) for name in ("ink", "quiet", "accent", "base", "tuned", "good", "bad")),
        *(("page", name) for name in ("ink", "quiet", "accent")),
        *(("code", name) for name in ("ink", "quiet")),
        ("good-soft", "good"), ("good-soft", "ink"), ("bad-soft", "ink"),
        ("warn-soft", "ink"), ("soft", "ink"), ("card", "eval"), ("card", "plain"),
    ]  # fmt: skip
    for ground, ink in pairs:
        assert _contrast(scheme[ground], scheme[ink]) >= 4.5, (ground, ink)


def test_a_conversation_is_read_as_one_and_without_its_answer() -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 4 plus 1?"},
        {"role": "assistant", "content": "It is 5."},
    ]
    text = predicted.readable(json.dumps(turns))
    assert text == "system: Be brief.\nuser: What is 4 plus 1?"
    for other in ("[{", '[{"a": 1}]', "[{}]", "a text", '[{"role": "user", "content": '):
        assert predicted.readable(other) == other
