"""``report.html``: everything about a run on one page that needs nothing but itself.

The page loads nothing (no script, font, image or style sheet from anywhere; its own content
security policy forbids it), so that it can be mailed, archived and opened years later. It is
a function of the run's files alone: written twice, it is the same.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lorafit.report import choosing, curves, facts, numbers, result
from lorafit.report.folder import RunFolder, read_folder
from lorafit.run import atomic
from lorafit.run.folder import REPORT

NAME = REPORT

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
    atomic.write_text(page, render(read_folder(run_folder)), "the report")
    return page


def render(run: RunFolder) -> str:
    """The page as text."""
    return templates().get_template("report.html.j2").render(_content(run))


def _content(run: RunFolder) -> dict[str, Any]:
    parts = facts.adapter_parts(run.tensors)
    settings = facts.settings(run)
    return {
        "run": run,
        "banner": _banner(run),
        "resumable": run.status in ("interrupted", "failed") and run.metrics,
        "model": run.setting("model", "name_or_path"),
        "data": run.setting("data", "path"),
        "method": run.setting("adapter", "method"),
        "headline": result.headline(run.evaluation),
        "rows": result.metric_rows(run.evaluation),
        "confidence": result.level(run.evaluation),
        "tables": [] if run.evaluation is None else run.evaluation.tables,
        "generation": None if run.evaluation is None else run.evaluation.generation,
        "samples": result.samples(run.evaluation),
        "handoffs": result.handoffs(run.evaluation),
        "choices": run.choices.choices,
        "choice_charts": choosing.charts(run.choices.choices),
        "curves": curves.make_curves(run.metrics, run.infos),
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


def _banner(run: RunFolder) -> tuple[str, str] | None:
    if run.status == "trained" and run.evaluation:
        return None
    if run.status == "unknown" and not run.evaluation:
        return "This run is not finished: the page shows what there is.", "note"
    return _BANNERS.get(run.status)


_ADAPTER = (
    "peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules",
    "modules_to_save", "bias", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern",
)  # fmt: skip


def _adapter_facts(run: RunFolder) -> dict[str, Any]:
    """The fields of ``adapter_config.json`` that say something."""
    return {
        name: run.adapter[name]
        for name in _ADAPTER
        if run.adapter.get(name) not in (None, False, {}, [])
    }


@cache
def templates() -> Environment:
    """The pages' templates, with what all of them use."""
    loader = PackageLoader("lorafit.report", "templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    source, _, _ = loader.get_source(environment, "style.css")
    environment.globals |= {
        "style": Markup(source),
        "is_number": numbers.is_number,
        "number": numbers.element,
        "named": lambda name, value: numbers.element(value, numbers.format_for(name)),
        "title": numbers.title_for,
        "units": numbers,
        "table_of": _table_of,
    }
    return environment


def _table_of(value: Any) -> list[str]:
    """Columns of a list of plain records, ``[]`` if the value is something else."""
    if not isinstance(value, list) or not value or not all(isinstance(v, dict) for v in value):
        return []
    if any(isinstance(cell, dict | list) for record in value for cell in record.values()):
        return []
    return list(dict.fromkeys(key for record in value for key in record))
