"""``report.html``: everything about a run on one page that needs nothing but itself.

The page loads nothing (no script, font, image or style sheet from anywhere; its own content
security policy forbids it), so that it can be mailed, archived and opened years later. It is
a function of the run's files alone: written twice, it is the same.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from lorafit.evidence.confusion import class_scores, confusion_of, other_tables
from lorafit.evidence.json import Json
from lorafit.report import choosing, curves, facts, predicted, result, words
from lorafit.report.folder import RunFolder, read_folder
from lorafit.report.heat import heat_map
from lorafit.report.pages import templates
from lorafit.report.verdict import verdict_card
from lorafit.run import atomic
from lorafit.run.folder import REPORT

NAME = REPORT
WORDS = "<!-- words -->"
"""Where the glossary goes: it is made of what the rest of the page says."""

_BANNERS = {
    "created": ("This run has not started training.", "note"),
    "training": ("This run is still training: the page shows how far it has got.", "note"),
    "interrupted": ("This run was interrupted: the page shows how far it got.", "warn"),
    "trained": ("Training is over, and the result has not been evaluated yet.", "note"),
    "failed": ("This run failed: the page shows how far it got.", "bad"),
}


def write_report(run_folder: Path) -> Path:
    """Writes ``report.html`` into a run folder, whatever state the run is in.

    Args:
        run_folder: The run.

    Returns:
        The page.

    Raises:
        RunError: There is no such folder, or the page cannot be written.
    """
    page = run_folder / NAME
    again = f"lorafit report {shlex.quote(str(run_folder))} writes it anew"
    atomic.write_text(page, render(read_folder(run_folder)), "the report", again)
    return page


def render(run: RunFolder) -> str:
    """The page as text."""
    page = templates().get_template("report.html.j2").render(_content(run))
    known = templates().get_template("words.html.j2").render(words=words.used(page))
    return page.replace(WORDS, known, 1)


def _content(run: RunFolder) -> Json:
    parts = facts.adapter_parts(run.tensors)
    settings = facts.settings(run)
    tables = [] if run.evaluation is None else run.evaluation.tables
    read = predicted.shown(run.predictions)
    matrix = confusion_of(tables)
    # Without a matrix nothing leads to its cells.
    anchors = {} if read is None or matrix is None else read.anchors
    return {
        "run": run,
        "banner": _banner(run),
        "resumable": run.status in ("interrupted", "failed") and run.metrics,
        "model": run.setting("model", "name_or_path"),
        "data": run.setting("data", "path"),
        "method": run.setting("adapter", "method"),
        "verdict": verdict_card(run.evaluation),
        "predicted": read,
        "rows": result.metric_rows(run.evaluation),
        "confidence": result.level(run.evaluation),
        "heat": heat_map(matrix, anchors),
        "anchors": anchors,
        "scores": class_scores(tables),
        "tables": other_tables(tables),
        "generation": None if run.evaluation is None else run.evaluation.generation,
        "written": _written(run),
        "samples": result.samples(run.evaluation),
        "handoffs": result.handoffs(run.evaluation),
        "choices": run.choices.choices,
        "choice_charts": choosing.charts(run.choices.choices),
        "curves": curves.make_curves(run.metrics, run.infos),
        "loss_unit": _loss_unit(run),
        "trials": facts.trials_table(run.trials),
        "data_facts": facts.data_facts(run),
        "data_notes": facts.data_notes(run),
        "parts": parts,
        "parts_total": sum(part.parameters for part in parts),
        "trained": facts.trained_facts(run),
        "adapter_facts": _adapter_facts(run),
        "cost": facts.training_cost(run),
        "keeps_best": run.adapter and run.setting("train", "load_best_model_at_end") is True,
        "speed_is_median": "tokens_per_s" not in facts.measured(run),
        "choosing_cost": facts.choosing_cost(run),
        "machine": facts.machine_facts(run),
        "versions": facts.versions(run),
        "command": run.environment.get("command"),
        "snippets": facts.snippets(run),
        "settings": settings,
        "changed": [
            (section, setting)
            for section, listed in settings.items()
            for setting in listed
            if setting.origin not in ("default", "")
        ],
    }


def _written(run: RunFolder) -> list[str]:
    """The metrics that are made of written texts, by their titles."""
    found = run.evaluation
    if found is None or found.generation is None:
        return []
    return [found.info(name).title for name in found.generation.metrics]


def _loss_unit(run: RunFolder) -> str:
    """What the losses are counted in; empty: not in nats."""
    if not run.infos:
        return "nats per example"
    return next((info.unit for info in run.infos.values() if info.unit[:4] == "nats"), "")


def _banner(run: RunFolder) -> tuple[str, str] | None:
    if run.status == "trained" and run.evaluation:
        return None
    if run.status == "unknown" and not run.evaluation:
        return "This run is not finished: the page shows what there is.", "note"
    return _BANNERS.get(run.status)


_ADAPTER = (
    "peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules",
    "modules_to_save", "target_parameters", "trainable_token_indices", "bias", "use_rslora",
    "use_dora", "rank_pattern", "alpha_pattern",
)  # fmt: skip


def _adapter_facts(run: RunFolder) -> Json:
    """The fields of ``adapter_config.json`` that say something."""
    return {
        name: run.adapter[name]
        for name in _ADAPTER
        if run.adapter.get(name) not in (None, False, {}, [])
    }
