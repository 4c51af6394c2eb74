"""A smaller rank for a trained adapter: what each rank loses on data, and which is enough.

Directions are weighted by the inputs of training examples, ranks are judged on the
validation examples, and the test examples are read once, for the adapter that is written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from lorafit import files, pipeline, quiet
from lorafit.adapt import Adapters
from lorafit.config import Config, ModelConfig
from lorafit.data.carve import carve
from lorafit.data.source import load_splits
from lorafit.engine.eager import EagerEngine
from lorafit.errors import AdapterError, ConfigError, DataError
from lorafit.evaluation.compare import as_difference, paired
from lorafit.evaluation.intervals import mean_interval
from lorafit.evaluation.score import Scores, score
from lorafit.evidence import Difference
from lorafit.export import peft as peft_format
from lorafit.export import shrunk
from lorafit.export.shrunk import RankQuality, Shrunk, Source
from lorafit.methods.lora import LoraEmbedding, LoraLayer
from lorafit.methods.truncate import Directions, kept_energy
from lorafit.model.load import max_length
from lorafit.settings import LIVE
from lorafit.tasks import tasks
from lorafit.tasks.base import Task
from lorafit.training.learner import Learner
from lorafit.training.loop import fit
from lorafit.tuned import FACTS

log = logging.getLogger(__name__)

MOMENT_EXAMPLES = 512
"""Training examples whose inputs weight the directions; ranks are 64 at most, as a rule."""

MARGIN = 0.02
"""``auto`` may lose this share of what the adapter gains over the base (validation loss)."""

CONFIDENCE = 0.95
"""One-sided, of ``auto``: the loss of quality is below the margin with this confidence."""

OLD, NEW = "default", "shrunk"


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
    found = shrunk.all_directions(source)
    curve = [RankQuality(n, _energy(found, n)) for n in ranks_to_try(source.r, k)]
    result = Shrunk(out, k, source.r, "plain", "as asked; not measured", curve)
    shrunk.write(source, shrunk.tensors_at(source, found, k), k, out, _facts(result))
    return result


class Shrinking:
    """A live adapter with data to measure its smaller versions on.

    Args:
        source: The adapter's files.
        data: What `lorafit.train` takes.
        config: ``data``, ``train`` and ``seed`` are used; ``model`` where the adapter's
            folder does not name its base.
        model: The base, live or its name; ``None``: as the folder says.
        tokenizer: The tokenizer of a live model.

    Raises:
        AdapterError: The adapter does not fit the model.
        ConfigError: Nothing names the base model.
        DataError: The data does not fit the task, or a split is empty.
    """

    def __init__(
        self, source: Source, data: Any, config: Config, model: Any = None, tokenizer: Any = None
    ) -> None:
        self.source, self.config = source, config
        live = pipeline.live_model(model, tokenizer)
        facts = source.folder / FACTS
        if facts.is_file():
            known = files.read_json(facts)
            self.task: Task = tasks[known["task"]["name"]].from_dict(known["task"])
            base, limit, seed = ModelConfig(**known["model"]), known["max_length"], known["seed"]
            splits = load_splits(data, config.data)
            splits = carve(
                splits,
                self.task.label,
                config.data,
                seed,
                text=self.task.text,
                stratify=self.task.stratified,
            )
        else:
            kinds = [n for n in tasks if tasks[n].task_type == source.config.task_type]
            kind = kinds[0] if len(kinds) == 1 else None
            whole = config.model_copy(update={"task": config.task or kind})
            problem = pipeline.pose(data, whole, live)
            self.task, splits = problem.task, problem.splits
            base, limit, seed = config.model, None, config.seed
        if isinstance(model, str | Path):
            base = base.model_copy(update={"name_or_path": str(model)})
        if base.name_or_path == LIVE and live is None:
            raise ConfigError(
                f'"{source.folder}" does not name its base model; pass it with model.'
            )
        with quiet.saying_less():
            self.loaded = pipeline.load_base(base, self.task, seed, live=live)
        limit = limit or max_length(config.data.max_length, self.loaded.tokenizer, self.model)
        self.encoded = {
            n: self.task.encode(s, self.loaded.tokenizer, limit) for n, s in splits.items()
        }
        if any(len(rows) == 0 for rows in self.encoded.values()):
            raise DataError("shrink needs training, validation and test examples; a split is empty")
        self.adapters = Adapters(self.model)
        peft_format.attach(
            self.adapters, source.config, source.tensors, OLD, source=str(source.folder)
        )

    @property
    def model(self) -> Any:
        """The live model."""
        return self.loaded.model

    def scores(self, split: str) -> Scores:
        """The live adapter's answers, in the format of the weights."""
        engine = EagerEngine(self.model, self.task, self.loaded.tokenizer)
        batch = self.config.train.per_device_eval_batch_size
        return score(engine, self.task, self.encoded[split], batch)

    def base_scores(self, split: str) -> Scores:
        """The base model's answers."""
        with self.adapters.disabled():
            return self.scores(split)

    def put(self, tensors: dict[str, Tensor]) -> None:
        """Makes the live adapter compute with other tensors of the same shapes."""
        peft_format.update(self.adapters, tensors, OLD)

    def moments(self) -> dict[str, Tensor]:
        """``E[(A x)(A x)^T]`` ``(r, r)`` of each layer over tokens of training examples."""
        train = self.encoded["train"]
        count = min(MOMENT_EXAMPLES, len(train))
        # Spread out, not the first ones: files are often sorted by label.
        chosen = np.linspace(0, len(train) - 1, count).astype(int).tolist()
        engine = EagerEngine(self.model, self.task, self.loaded.tokenizer)
        size = self.config.train.per_device_eval_batch_size
        with _collecting(self.adapters, list(self.source.factors)) as found:
            for start in range(0, count, size):
                batch = engine.collate([train[i] for i in chosen[start : start + size]])
                found.mask = batch.get("attention_mask")
                engine.logits(batch)
        return {p: s / found.counts[p] for p, s in found.sums.items() if found.counts[p]}

    @contextmanager
    def retrained(self, tensors: dict[str, Tensor], k: int, steps: int) -> Iterator[None]:
        """While open, the adapter of rank ``k``, trained on from these tensors, is the live one."""
        config = shrunk.config_at(self.source, k)
        config.inference_mode = False
        peft_format.attach(self.adapters, config, tensors, NEW, source="the smaller adapter")
        self.adapters.set(NEW)
        settings = self.config.train.model_copy(
            update={"max_steps": steps, "eval_steps": steps, "early_stopping_patience": None}
        )
        whole = self.config.model_copy(update={"train": settings})
        learner = Learner(
            pipeline.make_engine(self.model, self.loaded.tokenizer, self.task, whole),
            self.model,
            self.task,
            self.adapters.trainable(),
            self.encoded["train"],
            self.encoded["validation"],
        )
        torch.manual_seed(self.config.seed)
        try:
            fit(learner, whole)
            yield
        finally:
            self.adapters.set(OLD)
            self.adapters.delete(NEW)


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
    plain = shrunk.all_directions(source)
    weighted = shrunk.all_directions(source, shrinking.moments())
    curve: list[RankQuality] = []
    candidates: dict[tuple[int, str], dict[str, Tensor]] = {}
    for k in ranks_to_try(source.r, asked):
        candidates[k, "weighted"] = shrunk.tensors_at(source, weighted, k)
        lost: dict[str, Difference] = {}
        for way, found in (("plain", plain), ("weighted", weighted)):
            shrinking.put(shrunk.projected(source, found, k))
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
    shrunk.write(source, candidates[r, way], r, out, _facts(result))
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
    smaller = shrunk.config_at(shrinking.source, k)
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


def _facts(result: Shrunk) -> dict[str, Any]:
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


class _Moments:
    """Sums of ``(A x)(A x)^T`` over tokens, and how many there were."""

    def __init__(self, paths: list[str]) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts = dict.fromkeys(paths, 0)
        self.mask: Tensor | None = None

    def add(self, path: str, layer: LoraLayer, x: Tensor) -> None:
        A = layer.factors(OLD)[0]
        if self.mask is not None and x.shape[:2] == self.mask.shape:
            x = x[self.mask.bool()]  # padding is no input
        if isinstance(layer, LoraEmbedding):
            z = A[:, x.reshape(-1)].T
        else:
            z = x.reshape(-1, x.shape[-1]).to(A.dtype) @ A.T
        moment = (z.T.double() @ z.double()).cpu()
        self.sums[path] = self.sums[path] + moment if path in self.sums else moment
        self.counts[path] += len(z)


@contextmanager
def _collecting(adapters: Adapters, paths: list[str]) -> Iterator[_Moments]:
    """While open, what the adapted layers are given is added up."""
    found, handles = _Moments(paths), []
    for path in paths:
        layer = adapters.model.get_submodule(path)
        assert isinstance(layer, LoraLayer)

        def note(module: nn.Module, args: Any, path: str = path) -> None:
            found.add(path, cast(LoraLayer, module), args[0])

        handles.append(layer.register_forward_pre_hook(note))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
