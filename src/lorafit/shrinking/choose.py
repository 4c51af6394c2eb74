"""Which of the measured ranks is enough, and the adapter of that rank."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path
from typing import cast

import numpy as np
from torch import Tensor

from lorafit.errors import AdapterError, ConfigError
from lorafit.evaluation.compare import as_difference, paired
from lorafit.evaluation.intervals import mean_interval
from lorafit.evaluation.score import Scores
from lorafit.evidence import Difference
from lorafit.evidence.json import Json
from lorafit.export import peft as peft_format
from lorafit.methods.lora.truncate import Directions, kept_energy
from lorafit.shrinking import files
from lorafit.shrinking.files import RankQuality, Shrunk, Source
from lorafit.shrinking.measure import NEW, OLD, Shrinking

log = logging.getLogger(__name__)


MARGIN = 0.02
"""``auto`` may lose this share of what the adapter gains over the base (validation loss)."""

CONFIDENCE = 0.95
"""One-sided, of ``auto``: the loss of quality is below the margin with this confidence."""


def ranks_to_try(r: int, asked: int | None) -> list[int]:
    """``r``, its half, ... down to 1, and the rank that was asked for; largest first.

    >>> ranks_to_try(16, 6)
    [16, 8, 6, 4, 2, 1]
    """
    halves = {max(1, r >> shift) for shift in range(r.bit_length())}
    return sorted(halves | ({asked} if asked else set()), reverse=True)


def check_rank(r: int | str, source: Source, has_data: bool) -> int | None:
    """The rank that was asked for, ``None`` for ``"auto"``.

    Raises:
        ConfigError: It is not a rank from 1 to the adapter's own, or ``auto`` without data.
    """
    if r == "auto":
        if not has_data:
            raise ConfigError(
                "choosing a rank needs data to measure on. Pass data, or name a rank: "
                f"{', '.join(map(str, ranks_to_try(source.r, None)))}."
            )
        return None
    if isinstance(r, bool) or not isinstance(r, int) or not 1 <= r <= source.r:
        raise ConfigError(f'r is {r}, but it should be "auto" or 1 to {source.r}, the present r.')
    return r


def without_data(source: Source, k: int, out: Path) -> Shrunk:
    """Plain SVD; only the energies can be told."""
    log.warning(
        "without data, directions that the inputs never take count as much as others, so plain "
        "SVD loses more than it has to; nothing says how much. Pass data to measure it."
    )
    found = files.all_directions(source)
    curve = [RankQuality(n, _energy(found, n)) for n in ranks_to_try(source.r, k)]
    result = Shrunk(out, k, source.r, "plain", "as asked; not measured", curve)
    files.write(source, files.tensors_at(source, found, k), k, out, _facts(result))
    return result


def with_data(shrinking: Shrinking, asked: int | None, steps: int, out: Path) -> Shrunk:
    """Measures every rank on the validation examples, chooses, writes, reads the test once.

    Args:
        shrinking: The adapter and the data.
        asked: The rank to write; ``None``: the smallest that loses at most `MARGIN` of the gain.
        steps: Of retraining at each rank; 0: none.
        out: Folder to write.

    Raises:
        AdapterError: ``auto`` was asked for and the adapter is not better than the base.
    """
    source = shrinking.source
    before = shrinking.scores("validation")
    gain = float(shrinking.base_scores("validation").losses.mean() - before.losses.mean())
    if asked is None and gain <= 0:
        raise AdapterError(
            f"on the validation examples the adapter is not better than the base (its loss is "
            f"{-gain:.4f} nats higher), so no rank can be judged by it. Name one with r."
        )
    plain = files.all_directions(source)
    weighted = files.all_directions(source, shrinking.moments())
    curve: list[RankQuality] = []
    candidates: dict[tuple[int, str], dict[str, Tensor]] = {}
    for k in ranks_to_try(source.r, asked):
        candidates[k, "weighted"] = files.tensors_at(source, weighted, k)
        lost: dict[str, Difference] = {}
        for way, found in (("plain", plain), ("weighted", weighted)):
            shrinking.put(files.projected(source, found, k))
            lost[way] = _lost(before, shrinking.scores("validation"))
        if steps and k < source.r:
            with shrinking.retrained(candidates[k, "weighted"], k, steps):
                lost["retrained"] = _lost(before, shrinking.scores("validation"))
                live = peft_format.tensors_of(shrinking.adapters, NEW)
                candidates[k, "retrained"] = {n: t.detach().clone() for n, t in live.items()}
        curve.append(RankQuality(k, _energy(weighted, k), **lost))
        log.info("r = %d: %s", k, ", ".join(f"{w} {x.difference:+.4f}" for w, x in lost.items()))
    shrinking.put(source.tensors)
    r, way, reason = choose_rank(curve, asked, gain)
    test = _test(shrinking, candidates[r, way], r)
    result = Shrunk(out, r, source.r, way, reason, curve, gain, test)
    files.write(source, candidates[r, way], r, out, _facts(result))
    return result


def choose_rank(curve: list[RankQuality], asked: int | None, gain: float) -> tuple[int, str, str]:
    """Rank, way and reason; of a rank's two ways the one with the lower validation loss.

    Args:
        curve: What each rank loses, the largest first.
        asked: The rank to take; ``None``: the smallest that loses at most `MARGIN` of the gain.
        gain: How much lower the adapter's validation loss is than the base's, nats.
    """

    def best(row: RankQuality) -> tuple[str, Difference]:
        weighted, retrained = cast(Difference, row.weighted), row.retrained
        if retrained is not None and retrained.difference < weighted.difference:
            return "retrained", retrained
        return "weighted", weighted

    if asked is not None:
        way, lost = best(next(row for row in curve if row.r == asked))
        return asked, way, f"as asked; {_said(lost, gain)}"
    allowed = MARGIN * gain
    fits = [row for row in curve if best(row)[1].high <= allowed]
    if not fits:
        return curve[0].r, "weighted", "no smaller rank is known to lose little enough"
    row = min(fits, key=lambda row: row.r)
    way, lost = best(row)
    limit = f"at most {100 * MARGIN:g} % of the gain over the base is lost"
    return row.r, way, f"the smallest rank for which {limit}; {_said(lost, gain)}"


def _said(lost: Difference, gain: float) -> str:
    if lost.high <= 0:
        return "with 95 % confidence its validation loss is no higher than before"
    share = f" ({100 * lost.high / gain:.1f} % of the gain)" if gain > 0 else ""
    return f"with 95 % confidence its validation loss is at most {lost.high:.4f} higher{share}"


def _lost(before: Scores, after: Scores) -> Difference:
    """The paired difference of the losses, with Student's interval."""
    difference = after.losses.astype(np.float64) - before.losses.astype(np.float64)
    return as_difference(mean_interval(difference, 2 * CONFIDENCE - 1))


def _test(shrinking: Shrinking, tensors: dict[str, Tensor], k: int) -> dict[str, Difference]:
    """The adapter as it was and the smaller one on the test split, which is read here only."""
    before = shrinking.scores("test")
    smaller = files.config_at(shrinking.source, k)
    peft_format.attach(shrinking.adapters, smaller, tensors, NEW, source="the smaller adapter")
    shrinking.adapters.set(NEW)
    after = shrinking.scores("test")
    shrinking.adapters.set(OLD)
    shrinking.adapters.delete(NEW)
    return paired(
        before, after, shrinking.task, shrinking.config.run.confidence, shrinking.config.seed
    )


def _energy(found: dict[str, Directions], k: int) -> float:
    return min(kept_energy(one.values, k) for one in found.values())


def _facts(result: Shrunk) -> Json:
    """The content of ``shrink.json``: all of the result but where it is."""
    facts = {field.name: getattr(result, field.name) for field in fields(result)}
    del facts["path"]
    ways = ("plain", "weighted", "retrained")
    curve = [
        {"r": row.r, "energy": row.energy}
        | {way: None if (lost := getattr(row, way)) is None else lost.to_dict() for way in ways}
        for row in result.curve
    ]
    test = {name: found.to_dict() for name, found in (result.test or {}).items()}
    return facts | {"curve": curve, "test": test or None}
