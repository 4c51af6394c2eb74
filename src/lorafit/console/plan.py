"""What `plan` shows: first what the run costs, then what it would do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from lorafit.config import Config
from lorafit.console.output import show
from lorafit.console.tables import show_table
from lorafit.settings import Settings
from lorafit.units import count, duration, size

if TYPE_CHECKING:
    from lorafit.pipeline.planning import Plan

MEASURED = "to be measured; starting value"
"""Origin of what training would choose."""
DEFAULT = ("", "default")
"""Origins of settings that nobody set or chose."""


def show_plan(plan: Plan, every: bool = False) -> None:
    """Shows a plan.

    Args:
        plan: What `lorafit.plan` returned.
        every: Also the settings that are left at their defaults.
    """
    show_table(_costs(plan))
    show()
    _show_layers(plan)
    show()
    _show_settings(plan, every)


def _costs(plan: Plan) -> list[tuple[str, str]]:
    share = 100 * plan.trainable_parameters / max(plan.total_parameters, 1)
    trained = f"{count(plan.trainable_parameters)} of {count(plan.total_parameters)}"
    once = f"about {duration(plan.time_s)}"
    rows = [("time", once)]
    if plan.budget is not None:
        longest = f"up to {duration(plan.most_time_s)}"
        rows = [("time", f"{longest} (one training run: {once})")]
        on_top = plan.budget - 1
        if on_top > 0:  # with an open end all together may cost less than the longest run
            said = f"up to {on_top:.3g} training runs on top of the one"
            rows.append(("cost of choosing", said))
    rows += [
        ("peak memory", f"about {size(plan.peak_memory_bytes)}"),
        ("device", plan.device),
        ("trainable parameters", f"{trained} ({share:.2f}%)"),
        ("steps", _steps(plan)),
    ]
    if plan.measured:
        names = ", ".join(sorted(key.rpartition(".")[2] for key in plan.measured))
        rows.append(("measured while training", f"{names} (strategy {plan.config.tune.strategy})"))
    return rows


def _show_layers(plan: Plan) -> None:
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


def _show_settings(plan: Plan, every: bool) -> None:
    origins = plan.origins | dict.fromkeys(plan.measured, MEASURED)
    rows, left = [], 0
    for section, settings in _by_section(Settings(plan.config, origins)):
        for name, value, origin in settings:
            key = f"{section}.{name}" if section else name
            guess = plan.guessed.get(key)
            if guess is not None:
                rows.append((key, setting(guess.value), f"guessed: {guess.reason}"))
            elif every or origin not in DEFAULT:
                rows.append((key, value, origin))
            else:
                left += 1
    show("Settings", style="bold")
    show_table(rows, indent=2)
    if left:
        show(f"({left} more have their defaults; --all shows them)")


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
