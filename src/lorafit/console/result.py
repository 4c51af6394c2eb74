"""What a finished run shows: the metrics, the hand-off, the choices, what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lorafit.console.evidence import show_cost, show_evidence
from lorafit.console.output import fits, show, show_table
from lorafit.hints import predict_command
from lorafit.units import count, interval

if TYPE_CHECKING:
    from lorafit.run import Run


WIDEST = 13
"""Columns of a table that still fit a terminal."""
SAMPLES = 2
"""Answers shown; all that were kept are in eval.json and report.html."""


def show_result(run: Run) -> None:
    """Shows the final screen of `train`."""
    show()
    show_evaluation(run.eval)
    show_choices(run.choices)
    show_evidence(run.choices)
    show_cost(run.choosing_cost)
    show()
    show(f"Adapter: {run.adapter}")
    show("Next:")
    folder, texts = shlex.quote(str(run.path)), run.choices.get("text")
    rows = [
        (predict_command(str(run.path), texts.value if texts else None), "use it"),
        (f"lorafit evaluate {folder} DATA", "measure it on other data"),
        (f"lorafit merge {folder} OUT", "a plain model, for any server"),
    ]
    show_table(rows, indent=2)


def show_evaluation(result: Mapping[str, Any]) -> None:
    """Shows base and tuned metrics side by side, in the shape of ``eval.json``."""
    tuned: Mapping[str, Any] = result.get("tuned", {})
    base: Mapping[str, Any] = result.get("base", {})
    paired: Mapping[str, Any] = result.get("paired", {})
    sides = [(name, side) for name, side in (("base", base), ("tuned", tuned)) if side]
    header = ["", *(name for name, _ in sides), *(["difference"] if paired else [])]
    rows: list[list[str]] = []
    for metric in tuned or base:
        row = [metric.replace("_", " ")]
        row += [interval(side[metric]) if metric in side else "" for _, side in sides]
        if paired:
            row.append(interval(paired[metric], signed=True) if metric in paired else "")
        rows.append(row)
    if fits(rows, header):
        show_table(rows, header)
    else:  # below one another
        lines = [
            ("" if at else metric, name, cell)
            for metric, *cells in rows
            for at, (name, cell) in enumerate(zip(header[1:], cells, strict=True))
        ]
        show_table(lines)
    level = result.get("confidence")
    brackets = f" in brackets: {100 * level:g} % intervals" if level else ""
    split = result.get("split", "test")
    about = f"{split}{'' if split == 'all rows' else ' split'}, {count(result['n'])} examples"
    show(f"({about}{';' if brackets else ''}{brackets})")
    for table in result.get("tables", []):
        show_class_table(table)
    show_samples(result.get("generation", {}))
    handoff = result.get("handoff")
    if handoff:
        show()
        on = f"{handoff['n']} test examples" if "n" in handoff else "real inputs"
        show(f"Hand-off checked on {on}; largest difference of a logit from the live model:")
        rows = [
            [name.removesuffix("_max_abs_diff"), f"{value:.1e}"]
            for name, value in handoff.items()
            if name.endswith("_max_abs_diff")
        ]
        show_table(rows, indent=2)


def show_samples(generation: Mapping[str, Any]) -> None:
    """Shows what base and tuned model wrote, and how."""
    if not generation:
        return
    beams = generation["num_beams"]
    how = "greedy" if beams == 1 else f"{beams} beams"
    metrics = ", ".join(name.replace("_", " ") for name in generation["metrics"])
    show(
        f"({f'{metrics}: ' if metrics else ''}answers to {count(generation['n'])} prompts, {how}, "
        f"at most {count(generation['max_new_tokens'])} new tokens)"
    )
    for sample in generation["samples"][:SAMPLES]:
        show()
        rows = [
            (name, " ".join(sample[name].split()) or "(nothing)")
            for name in ("prompt", "reference", "base", "tuned")
            if sample[name] is not None
        ]
        show_table(rows, indent=2)


def show_class_table(table: Mapping[str, Any]) -> None:
    """Shows one of the tables beside the metrics; one too wide for a terminal is named only."""
    columns: list[str] = table["columns"]
    show()
    if len(columns) > WIDEST:
        show(f"{table['title']}: {len(columns) - 1} classes, in eval.json and report.html")
        return
    show(f"{table['title']}:")
    rows = [[cell(value) for value in row] for row in table["rows"]]
    show_table(rows, columns, indent=2)


def cell(value: Any) -> str:
    """Fractions to three places, counts with separators."""
    if isinstance(value, float):
        return f"{value:.3f}"
    return count(value) if isinstance(value, int) else str(value)


def show_choices(choices: Mapping[str, Any]) -> None:
    """Shows what was chosen automatically, and why."""
    if not choices:
        return
    show()
    show("Chosen:")
    rows = [(name, _value(choice.value), choice.reason) for name, choice in choices.items()]
    show_table(rows, indent=2)


def prediction_line(text: str, prediction: Mapping[str, Any]) -> str:
    """One line for one prediction: the answer, its probability, the text, separated by tabs.

    The answer is the first value of what the task says. A text that was written follows its
    prompt. Tabs and line breaks become spaces, so that the columns hold.
    """
    answer = next(iter(prediction.values()))
    if "generated" in prediction:
        return "\t".join(" ".join(part.split()) for part in (text, answer or "(nothing)"))
    cells = [" ".join((_value(answer) or "(none)").split())]
    probability = prediction.get("probability")
    if probability is not None:
        cells.append(f"{probability:.3f}")
    return "\t".join([*cells, " ".join(text.split())])


def _value(value: Any) -> str:
    if isinstance(value, list | tuple | set):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
