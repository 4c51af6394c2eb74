"""The tables of a comparison, made once, for the terminal and for ``compare.html``.

Each function returns the names of the columns and the rows, all text.
"""

from __future__ import annotations

from lorafit.evidence.comparison import LEARNED_NOTHING, Arm, ComparisonRecord
from lorafit.units import count, size

Table = tuple[list[str], list[list[str]]]

FAMILIES = ("yardstick", "selective", "reparametrization", "additive")
"""Their order in the tables; others follow."""


def remarks(found: ComparisonRecord) -> list[str]:
    """What else there is to say, a sentence each."""
    level, seeds = 100 * found.confidence, found.seeds
    said = [
        f"Test split, {count(found.n)} examples, {seeds} seed{'s' * (seeds != 1)}; in "
        f"brackets {level:g} % intervals; not worse: by less than {found.margin:.2g}."
    ]
    if seeds == 1:
        said.append("With one seed the intervals do not know how much runs differ by their seed.")
    if not found.greater_is_better:
        name = metric_name(found)
        said.append(f"{name[:1].upper()}{name[1:]}.")
    said += [f"Left out: {method}: {why}" for method, why in found.left_out.items()]
    said += [f"Failed: {method}: {why}" for method, why in found.failed.items()]
    edge = [name for name, arm in found.arms.items() if arm.rate_at_edge]
    if edge:
        said.append(
            f"Best rate at the edge of the search, a better one may lie beyond: {', '.join(edge)}."
        )
    return said


def front_lines(found: ComparisonRecord) -> list[str]:
    """The fronts in words, a sentence each."""
    return [
        f"Best for their {cost}: {', '.join(names)}."
        for cost, names in found.fronts.items()
        if names
    ]


def quality(found: ComparisonRecord) -> tuple[list[str], dict[str, list[list[str]]]]:
    """Metric, difference to the reference and verdict of each method; the rows by family."""
    reference = found.reference
    families: dict[str, list[list[str]]] = {}
    for name, arm in ordered(found):
        beside, said = "", "reference"
        if arm.difference is not None:
            beside, said = f"{arm.difference:+.3f}", str(arm.verdict)
        said = said if arm.learned else LEARNED_NOTHING
        parameters = f"{arm.trainable_parameters:,}"
        share = f"{100 * arm.share:.3g} %"
        metric = f"{arm.metric:.3f}"
        cells = [name, parameters, share, metric, beside, said]
        families.setdefault(arm.family, []).append(cells)
    on = f"on {count(found.n)} examples"
    metric = found.info.title
    header = ["method", "trained", "share", f"test {metric}", f"beside {reference}", on]
    return header, families


def costs(found: ComparisonRecord) -> tuple[list[str], list[list[str]]]:
    """Learning rate, time, memory, size and over-fitting."""
    cells = [
        [
            name,
            f"{arm.learning_rate:.2g}",
            f"{arm.time_s:.0f}",
            f"{arm.cpu_s:.0f}",
            f"{arm.peak_memory_bytes / 1e9:.2f}",
            size(arm.saved_bytes),
            f"{arm.train_loss:.3f}",
            f"{arm.gap:+.3f}",
        ]
        for name, arm in ordered(found)
    ]
    return (
        ["method", "rate", "train s", "cpu s", "peak GB", "saved", "train loss", "gap"],
        cells,
    )


def kept(found: ComparisonRecord) -> tuple[list[str], list[list[str]]]:
    """Forgetting: as trained, and where all are equally good."""
    in_order = ordered(found)
    language = any(arm.forgetting_kind == "language" for _, arm in in_order)
    main, other = (
        ("KL, nats a token", "loss change") if language else ("1 - CKA", "neighbours lost")
    )
    key = "loss_change" if language else "neighbours_lost"
    cells = []
    for name, arm in in_order:
        equal = arm.forgetting_at_equal_quality
        cells.append(
            [
                name,
                f"{arm.forgetting:.4f}",
                f"{arm.forgetting_details.get(key, float('nan')):.3f}",
                "not reached" if equal is None else f"{equal:.4f}",
            ]
        )
    return ["forgetting", main, other, f"{main} at equal quality"], cells


def redundancy(found: ComparisonRecord) -> tuple[list[str], list[list[str]]]:
    """Ranks of the updates, medians over weights."""
    noise, cells = has_noise(found), []
    for name, of_update in found.redundancy.items():
        ranks = [f"{of_update[key]:.1f}" for key in ("stable_rank", "entropy_rank")]
        energy = [f"{of_update[key]:.0f}" for key in ("r90", "r99")]
        cells.append([name, f"{of_update['full_rank']:.0f}", *ranks, *energy])
        if noise:
            above = of_update.get("above_noise")
            cells[-1].append("" if above is None else f"{above:.0f}")
    header = ["update", "of", "stable rank", "entropy rank", "r 90 %", "r 99 %"]
    return [*header, "above noise"] if noise else header, cells


def has_noise(found: ComparisonRecord) -> bool:
    """Whether a method was trained on shuffled labels, which only one label a text allows."""
    return any("above_noise" in ranks for ranks in found.redundancy.values())


def metric_name(found: ComparisonRecord) -> str:
    """The metric's name, with the direction where it is not the usual one."""
    name = found.info.title
    return name if found.greater_is_better else f"{name} (lower is better)"


def by_quality(found: ComparisonRecord) -> list[tuple[str, Arm]]:
    """The best method first."""
    sign = -1.0 if found.greater_is_better else 1.0
    return sorted(found.arms.items(), key=lambda item: sign * item[1].metric.value)


def ordered(found: ComparisonRecord) -> list[tuple[str, Arm]]:
    """Families together, the best method first."""
    sign = -1.0 if found.greater_is_better else 1.0

    def place(item: tuple[str, Arm]) -> tuple[int, float]:
        family = item[1].family
        known = FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)
        return known, sign * item[1].metric.value

    return sorted(found.arms.items(), key=place)
