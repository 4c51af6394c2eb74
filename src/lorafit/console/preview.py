"""What `preview` shows: columns, label balance, lengths, truncation, examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from lorafit.console.output import out, show, styled, write
from lorafit.console.tables import show_table
from lorafit.units import count

if TYPE_CHECKING:
    from lorafit.inspection.rows import Example, Lengths, Preview, TokenExample

BAR = 40
"""Longest bar of the histogram, in characters."""
BESIDE = 28
"""Characters of what comes before a bar."""
MOST_LABELS = 30
"""Labels that are listed, the most frequent first."""
SHOWN = 300
"""Longest part of an example that is shown, in characters."""


def show_preview(preview: Preview) -> None:
    """Shows a preview."""
    _columns(preview)
    _rows(preview)
    _labels(preview)
    _lengths(preview)
    show()
    show("examples, as the model will read them", style="bold")
    for example in preview.examples:
        _example(example)
    if preview.token_examples:
        legend = [styled((f"[{state}]", style)) for state, style in STATES.items()]
        out().print(Text("  ") + Text("    ").join(legend))
    for tokens in preview.token_examples:
        _token_example(tokens)
    _verdict(preview)


STATES = {"trained": "green", "masked": "dim", "cut": "yellow", "padding": "blue"}
"""What becomes of tokens, and their colours."""


def _token_example(example: TokenExample) -> None:
    """One example; without colours the state stands before each piece."""
    plain = not out().is_terminal
    show(
        f"  {example.split} row {example.row}: {count(example.tokens)} tokens, "
        f"{count(example.trained)} trained"
    )
    parts = [("    ", "")]
    for text, state in example.pieces:
        parts += [(f"[{state}] " if plain else "", ""), (_short(text), STATES[state]), (" ", "")]
    if example.padding:
        parts.append((f"[{count(example.padding)} padding]", STATES["padding"]))
    out().print(styled(*parts))


def _verdict(preview: Preview) -> None:
    """What stops training, or is worth knowing."""
    truth = preview.truth
    if truth is None:
        return
    show()
    for warning in truth.warnings:
        write(out(), f"warning: {warning}", "yellow", indent=2)
    for problem in truth.problems:
        write(out(), f"training would stop: {problem}", "red", indent=2)
    if not truth.problems:
        show("Nothing stops training on this data.", style="green")


def _columns(preview: Preview) -> None:
    roles = dict.fromkeys(preview.text, f"text ({preview.text_reason})")
    labels = preview.label if isinstance(preview.label, list) else [preview.label]
    for label in labels:
        if label is not None:
            roles[label] = f"label ({preview.label_reason})"
    if preview.task:
        show(f"task: {preview.task.replace('_', ' ')}")
        show()
    show("columns", style="bold")
    show_table(
        [(name, kind, roles.get(name, "")) for name, kind in preview.columns.items()],
        indent=2,
    )


def _rows(preview: Preview) -> None:
    show()
    show("rows", style="bold")
    facts = {
        "rows": preview.rows,
        "without label": preview.unlabelled,
        "without text": preview.empty,
        "repeated": preview.duplicates,
        "also in an earlier split": preview.shared,
    }
    # A column of zeros says nothing, except for the rows themselves.
    facts = {name: n for name, n in facts.items() if name == "rows" or any(n.values())}
    show_table(
        [(split, *(count(n[split]) for n in facts.values())) for split in preview.rows],
        ["split", *facts],
        indent=2,
    )


def _labels(preview: Preview) -> None:
    splits = [split for split, balance in preview.labels.items() if balance]
    if not splits:
        return
    show()
    show("labels", style="bold")
    totals = {split: max(1, sum(preview.labels[split].values())) for split in splits}
    rows = []
    for name in list(preview.labels[splits[0]])[:MOST_LABELS]:
        cells = [name]
        for split in splits:
            n = preview.labels[split].get(name, 0)
            cells.append(f"{count(n)} ({100 * n / totals[split]:.1f}%)")
        rows.append(cells)
    show_table(rows, ["label", *splits], indent=2)
    more = len(preview.labels[splits[0]]) - MOST_LABELS
    if more > 0:
        show(f"  and {count(more)} more")


def _lengths(preview: Preview) -> None:
    show()
    show("length in tokens", style="bold")
    rows = []
    for split, lengths in preview.lengths.items():
        at = lengths.percentiles
        rows.append(
            (
                split,
                f"{lengths.mean:.1f}",
                *(count(at[p]) for p in (50, 90, 99, 100)),
                _truncation(lengths),
            )
        )
    show_table(rows, ["split", "mean", "median", "90%", "99%", "max", "cut off"], indent=2)
    split, lengths = next(iter(preview.lengths.items()))
    show()
    show(f"lengths of {split}", style="bold")
    most = max((n for _, _, n in lengths.histogram), default=1)
    bar = max(1, min(BAR, out().width - BESIDE))
    block = "█" if out().encoding.lower().startswith("utf") else "#"
    show_table(
        [
            (
                f"{low}" if low == high else f"{low} to {high}",
                count(n),
                block * round(bar * n / max(most, 1)),
            )
            for low, high, n in lengths.histogram
        ],
        indent=2,
    )


def _truncation(lengths: Lengths) -> str:
    if lengths.max_length is None:
        return "nothing"
    if not lengths.truncated:
        return f"nothing at {lengths.max_length}"
    return (
        f"{count(lengths.truncated)} examples ({100 * lengths.truncated_share:.1f}%) at "
        f"{lengths.max_length}, {100 * lengths.tokens_lost_share:.1f}% of the tokens"
    )


def _example(example: Example) -> None:
    label = "no label" if example.label is None else example.label
    show(f"  {example.split} row {example.row}: {label}, {len(example.tokens)} tokens")
    for kept, cut in zip(example.kept, example.cut, strict=True):
        shown, gone = styled((_short(kept), "")), styled((f"[cut: {_short(cut)}]", "yellow"))
        parts = (
            [shown] if not cut else [gone, shown] if example.cut_from == "left" else [shown, gone]
        )
        out().print(Text("    ") + Text(" ").join(parts))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}... ({count(len(line))} characters)"
