"""A comparison as one table, the best method first, and what its columns say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from lorafit.evidence import Arm, ComparisonRecord
from lorafit.evidence.comparison import LEARNED_NOTHING
from lorafit.evidence.comparison_rows import by_quality, has_noise, metric_name
from lorafit.report import numbers
from lorafit.report.numbers import element

FAMILIES = {
    "yardstick": "yardstick",
    "selective": "trains some of the base's own weights",
    "reparametrization": "adds low-rank updates",
    "additive": "adds small new parts",
}
"""What the families of methods are, in words; others have their names."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: Words at its head.
        meaning: What it says, in a sentence.
        cell: Its content for a method.
    """

    title: str
    meaning: str
    cell: Callable[[str, Arm], Markup | str]


@dataclass(frozen=True)
class Row:
    """One method."""

    name: str
    about: str
    chosen: bool
    cells: list[Markup | str]


@dataclass(frozen=True)
class Board:
    """A table of methods with the meaning of each column."""

    columns: list[Column]
    rows: list[Row]


def leaderboard(found: ComparisonRecord) -> Board:
    """Quality, and what it costs."""
    reference, sure = found.reference, numbers.level(found.confidence)
    columns = [
        Column(
            f"test {found.info.title}",
            f"{_first(found.info.note) or metric_name(found)}. The small numbers are the {sure} "
            "interval; the table is sorted by this.",
            lambda _, arm: _with_interval(arm),
        ),
        Column(
            f"beside {reference}",
            f"The difference to {reference}, the method all are set beside, and what its interval "
            f"says: better, worse, not worse (by less than {numbers.general(found.margin)}), or "
            f"cannot tell (more test examples would).{_useless(found)}",
            _beside,
        ),
        Column(
            "trained parameters",
            "Numbers that were trained, and their share of the whole model.",
            lambda _, arm: Markup('{} <span class="range">{}</span>').format(
                element(arm.trainable_parameters, numbers.short),
                element(arm.share, numbers.percent),
            ),
        ),
        Column(
            "training time",
            "Processor seconds of one training, of all cores together.",
            lambda _, arm: element(arm.cpu_s, numbers.duration),
        ),
        Column(
            "memory",
            "The most memory the process took.",
            lambda _, arm: element(arm.peak_memory_bytes, numbers.size),
        ),
        Column(
            "file",
            "Size of the adapter on the disk.",
            lambda _, arm: element(arm.saved_bytes, numbers.size),
        ),
        Column(
            "learning rate",
            "The best of those that were tried for this method.",
            lambda _, arm: element(arm.learning_rate, numbers.rounded),
        ),
    ]
    return _board(found, columns)


def details(found: ComparisonRecord) -> dict[str, tuple[str, Board]]:
    """Further tables: title to what it is about, and the table."""
    tables = {
        "Over-fitting": (
            "How well the training examples are known beside others. Losses are in nats per "
            "example, of models that write text per token.",
            _board(found, _fit_columns()),
        ),
        "Forgetting": (
            "How far the model's reading of general text moved away from the base model's.",
            _board(found, _forgetting_columns(found)),
        ),
    }
    if found.redundancy:
        columns = _redundancy_columns(found)
        about = (
            "How many directions of its weight matrices an update really uses: medians over the "
            "matrices. A small number means that a smaller rank would do."
        )
        tables["Redundancy of the updates"] = (about, _board(found, columns, found.redundancy))
    return tables


def _board(found: ComparisonRecord, columns: list[Column], only: object | None = None) -> Board:
    listed = [
        (name, arm)
        for name, arm in by_quality(found)
        if only is None or (isinstance(only, dict) and name in only)
    ]
    rows = [
        Row(
            name,
            FAMILIES.get(arm.family, arm.family),
            name == found.recommendation.method,
            [column.cell(name, arm) for column in columns],
        )
        for name, arm in listed
    ]
    return Board(columns, rows)


def _useless(found: ComparisonRecord) -> str:
    """What it means that a method learned nothing, where one did."""
    ways = {arm.yardstick for arm in found.arms.values() if not arm.learned}
    if not ways:
        return ""
    said = " or ".join(sorted(ways - {""})) or "always the most frequent answer"
    return f" A method that {LEARNED_NOTHING} is no better than {said}."


def _first(note: str) -> str:
    return note[:1].upper() + note[1:]


def _with_interval(arm: Arm) -> Markup:
    shown = Markup("<strong>{}</strong>").format(element(arm.metric.value, numbers.decimals))
    if arm.metric.complete:
        shown += Markup(' <span class="range">{} to {}</span>').format(
            element(arm.metric.low, numbers.decimals), element(arm.metric.high, numbers.decimals)
        )
    return shown


def _beside(_: str, arm: Arm) -> Markup:
    if arm.difference is None:
        said = "the reference" if arm.learned else f"the reference; {LEARNED_NOTHING}"
        return Markup('<span class="quiet">{}</span>').format(said)
    style = arm.verdict if arm.verdict in ("better", "worse") else ""
    said = (arm.verdict or "") if arm.learned else LEARNED_NOTHING
    return Markup('{} <span class="verdict {}">{}</span>').format(
        element(arm.difference.value, numbers.signed(numbers.decimals)), style, said
    )


def _fit_columns() -> list[Column]:
    return [
        Column(
            "training loss",
            "At the end, on examples that were trained on.",
            lambda _, arm: element(arm.train_loss, numbers.decimals),
        ),
        Column(
            "validation loss",
            "On examples that were not.",
            lambda _, arm: _optional(arm.validation_loss),
        ),
        Column(
            "gap",
            "Validation loss less training loss: what was learned by heart.",
            lambda _, arm: element(arm.gap, numbers.signed(numbers.decimals)),
        ),
    ]


def _forgetting_columns(found: ComparisonRecord) -> list[Column]:
    language = any(arm.forgetting_kind == "language" for arm in found.arms.values())
    key = "loss_change" if language else "neighbours_lost"
    moved = (
        "How differently it goes on with a text: KL divergence, in nats per token; 0 is as before."
        if language
        else "How differently it sees texts beside one another: 1 - CKA, from 0 (as before) to 1."
    )
    other = (
        Column(
            "change of loss",
            "By how much more general text surprises it, in nats per token.",
            lambda _, arm: _optional(arm.forgetting_details.get(key)),
        )
        if language
        else Column(
            "neighbours lost",
            "Share of a text's nearest neighbours among the others that are new.",
            lambda _, arm: _optional(arm.forgetting_details.get(key)),
        )
    )
    return [
        Column("moved by", moved, lambda _, arm: _optional(arm.forgetting)),
        other,
        Column(
            "moved at equal quality",
            "The same with the update scaled back to a validation loss that half of the methods "
            "reach: so methods that learned less do not look better.",
            lambda _, arm: _optional(arm.forgetting_at_equal_quality, "not reached"),
        ),
    ]


def _redundancy_columns(found: ComparisonRecord) -> list[Column]:
    def rank(key: str) -> Callable[[str, Arm], Markup | str]:
        return lambda name, _: _optional(found.redundancy[name].get(key), "")

    columns = [
        Column("possible", "Directions there are.", rank("full_rank")),
        Column(
            "for 90 %", "The fewest directions that hold 90 % of the update's energy.", rank("r90")
        ),
        Column("for 99 %", "The same for 99 %.", rank("r99")),
        Column(
            "by the strongest",
            "Stable rank: all of the energy in units of the strongest direction's.",
            rank("stable_rank"),
        ),
        Column(
            "by evenness",
            "Entropy rank: how many equally strong directions would be as evenly spread.",
            rank("entropy_rank"),
        ),
    ]
    if has_noise(found):
        columns.append(
            Column(
                "above noise",
                "Directions stronger than the strongest of a run on shuffled labels, where there "
                "was nothing to learn.",
                rank("above_noise"),
            )
        )
    return columns


def _optional(value: object, missing: str = "not measured") -> Markup:
    if not numbers.is_number(value):
        return Markup('<span class="quiet">{}</span>').format(missing)
    return element(value, lambda x: numbers.general(x) if x == int(x) else numbers.decimals(x))
