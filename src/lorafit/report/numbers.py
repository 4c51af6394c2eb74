"""Numbers as a reader wants them, each carrying its exact value.

A number on the page is ``<data value="0.8030018">80.3 %</data>``: the text is rounded,
the element keeps what the file says. Formatters accept any JSON value, because a run
folder may come from another version or an editor; what is not a number is shown as it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from markupsafe import Markup

from lorafit.evidence import MetricInfo

THIN = "\u202f"
"""Narrow no-break space, between a number and its unit."""
MINUS = "\u2212"

Format = Callable[[float], str]


def typeset(text: str) -> str:
    """A sentence of the terminal as the page writes it: ``“O” ... 62.5 %``."""
    text = re.sub(r'"([^"]*)"', r"“\1”", text)
    return re.sub(r"(?<=\d)%", f"{THIN}%", text)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether this is a finite number; booleans are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(record: Mapping[str, object], name: str) -> float:
    """A number of a record that was found to have it (`is_number`)."""
    value = record[name]
    assert is_number(value)
    return value


def element(value: Any, form: Format) -> Markup:
    """The number as HTML; a value that is none is escaped and shown as it is."""
    if not is_number(value):
        return Markup("<span>{}</span>").format("unknown" if value is None else value)
    return Markup('<data value="{}">{}</data>').format(repr(value), form(value))


def _minus(text: str) -> str:
    return text.replace("-", MINUS, 1) if text.startswith("-") else text


def signed(form: Format) -> Format:
    """The same format with a sign in front of positive numbers, too."""
    return lambda value: ("+" if value > 0 else "") + form(value)


def percent(value: float) -> str:
    """``0.8031`` to ``80.3 %``; below one percent a digit more, ``0.32 %``."""
    digits = 2 if 0 < abs(value) < 0.00995 else 1
    return _minus(f"{100 * value:.{digits}f}") + THIN + "%"


def level(value: float) -> str:
    """A confidence level, ``0.95`` to ``95 %``."""
    return f"{100 * value:g}" + THIN + "%"


def points(value: float) -> str:
    """A difference of shares, ``0.2911`` to ``29.1 points``."""
    return _minus(f"{100 * value:.1f}") + THIN + "points"


def decimals(value: float) -> str:
    """``0.80312`` to ``0.803``; larger numbers keep four digits."""
    return _minus(f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}")


def general(value: float) -> str:
    """Short and never wrong by more than rounding: ``0.002``, ``1.2e-05``, ``73,728``."""
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e15):
        return _minus(f"{int(value):,}")
    if abs(value) >= 10_000:
        return _minus(f"{value:,.0f}")
    return _minus(f"{value:.4g}")


def short(value: float) -> str:
    """A number with few digits: ``22713216`` to ``22.7 M``."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{THIN}{unit}"
    return f"{value:.3g}"


def rounded(value: float) -> str:
    """Two digits of a value that was chosen on a coarse scale: ``0.00063``."""
    return f"{value:.2g}"


def plain(value: float) -> str:
    """A number as it is typed: no separators, nothing rounded."""
    return str(value)


def scientific(value: float) -> str:
    """``2.1e-06``; zero is ``0``."""
    return "0" if value == 0 else f"{value:.1e}"


def size(value: float) -> str:
    """Bytes: ``1536`` to ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return (f"{value:.0f}" if unit == "B" else f"{value:.1f}") + THIN + unit
        value /= 1024
    return f"{value:.1f}{THIN}TiB"


def duration(value: float) -> str:
    """Seconds: ``95`` to ``1 min 35 s``."""
    if value < 60:
        return (f"{value:.1f}" if value < 10 else f"{value:.0f}") + THIN + "s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {rest}{THIN}s"
    return f"{minutes // 60}{THIN}h {minutes % 60}{THIN}min"


def rate(value: float) -> str:
    """Tokens a second."""
    return f"{value:,.0f}{THIN}tokens/s"


def flops(value: float) -> str:
    """Floating-point operations: ``3.2e15`` to ``3.2 PFLOP``."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 1000:
            return f"{value:.3g}{THIN}{unit}FLOP"
        value /= 1000
    return f"{value:,.3g}{THIN}EFLOP"


_BY_NAME = {
    "seed": plain,
    "port": plain,
    "learning_rate": lambda value: f"{value:.4g}",
    "tokens_per_s": rate,
    "flops": flops,
    "confidence": level,
}


def value_format(info: MetricInfo) -> Format:
    """How a metric's values are written."""
    return percent if info.is_share else decimals


def tick_format(info: MetricInfo) -> Format:
    """How round values of a metric are written on an axis."""
    return level if info.is_share else general


def difference_format(info: MetricInfo) -> Format:
    """How differences of a metric are written."""
    return signed(points if info.is_share else decimals)


def format_for(name: str) -> Format:
    """The format that a name asks for: our names carry their units."""
    name = name.rpartition(".")[2]
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name.endswith("_bytes"):
        return size
    if name.endswith(("_share", "_fraction")):
        return percent
    if name.endswith("_per_s"):
        return general
    return duration if name.endswith("_s") else general


_TITLES = {
    "tokens_per_s": "speed (real tokens)",
    "se": "standard error",
    "eval_loss": "validation loss",
    "train_loss": "training loss",
    "grad_norm": "gradient norm",
}
"""What short names stand for."""


def title_for(name: str) -> str:
    """A name without the unit that its value shows: ``peak_memory_bytes`` to ``peak memory``."""
    if name.isupper():  # an environment variable
        return name
    if name in _TITLES:
        return _TITLES[name]
    for unit, words in (("_bytes", ""), ("_per_s", " per second"), ("_s", "")):
        if name.endswith(unit):
            name = name.removesuffix(unit) + words
            break
    return name.replace("_", " ")
