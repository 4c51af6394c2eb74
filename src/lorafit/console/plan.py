"""What `plan` shows: the settings with their origins, the adapted layers, the cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from lorafit.config import Config
from lorafit.console.output import show, show_table
from lorafit.settings import Settings
from lorafit.units import count, duration, size

if TYPE_CHECKING:
    from lorafit.pipeline.planning import Plan

MEASURED = "to be measured; starting value"
"""Origin of what training would choose."""


def show_plan(plan: Plan) -> None:
    """Shows a plan."""
    origins = plan.origins | dict.fromkeys(plan.measured, MEASURED)
    for section, rows in _by_section(Settings(plan.config, origins)):
        show(section or "general", style="bold")
        show_table(rows, indent=2)
        show()
    show(f"Adapted layers: {len(plan.sites)}", style="bold")
    layers = Counter((site.name, site.kind, site.d_in, site.d_out) for site in plan.sites)
    show_table(
        [
            (name, kind, f"{d_in} to {d_out}", str(n))
            for (name, kind, d_in, d_out), n in layers.items()
        ],
        ["layer", "kind", "width", "number"],
        indent=2,
    )
    show()
    share = 100 * plan.trainable_parameters / max(plan.total_parameters, 1)
    trained = f"{count(plan.trainable_parameters)} of {count(plan.total_parameters)}"
    costs = [
        ("trainable parameters", f"{trained} ({share:.2f} %)"),
        ("steps", _steps(plan)),
        ("time of one plain run", f"about {duration(plan.time_s)}"),
    ]
    if plan.measured:
        names = ", ".join(sorted(key.rpartition(".")[2] for key in plan.measured))
        costs.append(("measured while training", names))
        costs.append(("by", f"strategy {plan.config.tune.strategy}"))
    if plan.budget is not None:
        most = f"at most {plan.budget:.2f} plain runs, about {duration(plan.most_time_s)}"
        costs.append(("choosing and training", most))
    costs.append(("peak memory", f"about {size(plan.peak_memory_bytes)}"))
    show_table(costs)


def _steps(plan: Plan) -> str:
    if plan.open_end:
        return f"up to {count(plan.steps)}, until the validation loss stops falling"
    return count(plan.steps)


def _by_section(settings: Settings) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    config, origins = settings.config, settings.origins
    general = [
        (name, setting(getattr(config, name)), origins.get(name, ""))
        for name in Config.model_fields
        if not isinstance(getattr(config, name), BaseModel)
    ]
    for name in Config.model_fields:
        stage = getattr(config, name)
        if isinstance(stage, BaseModel):
            values = {field: getattr(stage, field) for field in type(stage).model_fields}
            values |= stage.model_extra or {}
            yield (
                name,
                [
                    (field, setting(value), origins.get(f"{name}.{field}", ""))
                    for field, value in values.items()
                ],
            )
    yield "", general


def setting(value: Any) -> str:
    """A value as it is written in a configuration file, on one line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != {} else "none"
