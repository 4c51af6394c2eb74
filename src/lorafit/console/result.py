"""What a finished run shows: the metrics, the choices; last the result in a sentence or two."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lorafit.console.evidence import show_cost, show_evidence
from lorafit.console.matrix import show_class_tables
from lorafit.console.output import show
from lorafit.console.tables import fits, show_table
from lorafit.evidence import Choice, Evaluation, Generation, HandOff
from lorafit.evidence.headline import sentences
from lorafit.evidence.rows import metric_rows
from lorafit.run.commands import predict_command
from lorafit.units import count

if TYPE_CHECKING:
    from lorafit.run import Run


REPORT = "report.html"
LOSS = (
    "(validation loss: how surprised the model is by examples it does not learn from; minus is "
    "better, a difference of 0.01 is small, one of 0.1 large; in brackets: where it likely lies)"
)
SAMPLES = 2
"""Answers shown; all that were kept are in eval.json and report.html."""


def show_result(run: Run) -> None:
    """Shows the final screen of `train`.

    It ends with what most people want to know, for the rest may scroll away.
    """
    evaluation = run.evaluation
    show()
    _show_measured(evaluation)
    show_choices(run.choices)
    show_evidence(run.choices)
    show_cost(run.choosing_cost)
    _show_sentences(evaluation)
    _show_advice(evaluation)
    show()
    show(f"Adapter: {run.adapter}")
    show(f"Report: {run.path / REPORT}")
    show("Next:")
    folder, texts = shlex.quote(str(run.path)), run.choices.get("text")
    rows = [
        (f"lorafit evaluate {folder} DATA", "measure it on other data"),
        (f"lorafit merge {folder} OUT", "write a plain model, for any server"),
        (predict_command(str(run.path), texts.value if texts else None), "use it"),
    ]
    show_table(rows, indent=2)


def show_evaluation(result: Evaluation | Mapping[str, Any]) -> None:
    """Shows base and tuned metrics side by side, and at the end in a sentence or two.

    Args:
        result: An evaluation, or what ``eval.json`` holds of one.
    """
    if not isinstance(result, Evaluation):
        result = Evaluation.from_json(result)
    _show_measured(result, in_report=False)
    _show_sentences(result)


def _show_sentences(result: Evaluation) -> None:
    found = sentences(result)
    if found:
        show()
    for sentence in found:
        show(sentence, style="bold")


def _show_advice(result: Evaluation) -> None:
    course = result.course
    if course is not None and course.advice is not None:
        show(f"{course.advice[0].upper()}{course.advice[1:]}.")


def _show_measured(result: Evaluation, in_report: bool = True) -> None:
    _show_metrics(result)
    level = result.confidence
    brackets = f" in brackets: {100 * level:g}% confidence intervals" if level else ""
    split = result.split
    where = split if split == "all rows" else f"{split} split"
    about = f"{where}, {count(int(result.n or 0))} examples"
    show(f"({about}{';' if brackets else ''}{brackets})")
    for row in metric_rows(result):
        if "nats" in row.info.unit:
            show(f"({row.label}: {row.info.note})")
    show_class_tables(result.tables, in_report)
    if result.generation is not None:
        show_samples(result.generation)
    if result.handoff is not None:
        _show_handoff(result.handoff)


def _show_metrics(result: Evaluation) -> None:
    rows = metric_rows(result)
    sides = [name for name in ("base", "tuned") if getattr(result, name)]
    header = ["", *sides, *(["difference"] if result.paired else [])]
    cells = [
        [
            row.label,
            *(format(found, ".3f") if (found := getattr(row, side)) else "" for side in sides),
            *([f"{row.difference:+.3f}" if row.difference else ""] if result.paired else []),
        ]
        for row in rows
    ]
    if fits(cells, header):
        show_table(cells, header)
        return
    # below one another
    show_table(
        [
            ("" if at else metric, name, cell)
            for metric, *others in cells
            for at, (name, cell) in enumerate(zip(header[1:], others, strict=True))
        ]
    )


def _show_handoff(handoff: HandOff) -> None:
    show()
    on = "real inputs" if handoff.n is None else f"{handoff.n} test examples"
    show(
        f"What was saved answers as the trained model does, on {on}; largest difference in a "
        "model output (logit):"
    )
    names = {"reloaded": "adapter, loaded again", "merged": "merged into the base model"}
    rows = [[names[name], f"{value:.1e}"] for name, value in handoff.differences.items()]
    show_table(rows, indent=2)


def show_samples(generation: Generation) -> None:
    """Shows what base and tuned model wrote, and how."""
    beams = generation.num_beams
    how = "greedy" if beams == 1 else f"{beams} beams"
    metrics = ", ".join(name.replace("_", " ") for name in generation.metrics)
    show(
        f"({f'{metrics}: ' if metrics else ''}answers to {count(int(generation.n or 0))} prompts, "
        f"{how}, at most {count(int(generation.max_new_tokens or 0))} new tokens)"
    )
    for sample in generation.samples[:SAMPLES]:
        show()
        texts = {
            "prompt": sample["prompt"],
            "reference": sample["reference"],
            "base": sample["base"],
            "tuned": sample["tuned"],
        }
        rows = [
            (name, " ".join(text.split()) or "(nothing)")
            for name, text in texts.items()
            if text is not None
        ]
        show_table(rows, indent=2)


def show_choices(choices: Mapping[str, Choice]) -> None:
    """Shows what was chosen automatically, and why."""
    if not choices:
        return
    show()
    show("Chosen:")
    rows = [(name, _value(choice.value), choice.reason) for name, choice in choices.items()]
    show_table(rows, indent=2)
    if any("validation loss" in choice.reason for choice in choices.values()):
        show(LOSS)


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
