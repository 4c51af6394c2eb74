"""A smaller rank for a trained adapter: what each rank loses on data, and which is enough.

Directions are weighted by the inputs of training examples, ranks are judged on the
validation examples, and the test examples are read once, for the adapter that is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lorafit import pipeline, quiet
from lorafit.adapt import Adapters
from lorafit.adapt.moments import collecting
from lorafit.config import Config
from lorafit.data.carve import carve
from lorafit.data.read.source import load_splits
from lorafit.engine.eager import EagerEngine
from lorafit.errors import ConfigError, DataError
from lorafit.evaluation.score import Scores, score
from lorafit.export import peft as peft_format
from lorafit.machine.placement import find_device
from lorafit.model.load import max_length
from lorafit.pipeline import facts
from lorafit.settings import LIVE
from lorafit.shrinking import files
from lorafit.shrinking.files import Source
from lorafit.tasks import tasks
from lorafit.tasks.base import Task
from lorafit.training.learner import Learner
from lorafit.training.loop import fit
from lorafit.trust import Trust, granted

MOMENT_EXAMPLES = 512
"""Training examples whose inputs weight the directions; ranks are 64 at most, as a rule."""

OLD, NEW = "default", "shrunk"


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
        if (source.folder / facts.FACTS).is_file():
            known, found = facts.read(source.folder)
            self.task: Task = found
            base, limit, seed = known.model, known.max_length, known.seed
            if live is None:
                asked = Trust(config.model.trust_remote_code, config.model.attn_implementation)
                base = granted(base, asked)
            splits = load_splits(data, config.data)
            roles = pipeline.roles(self.task)
            splits = carve(splits, roles, config.data, seed)
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

    def _eager(self) -> EagerEngine:
        """Computes in the format of the weights."""
        device = find_device(self.config.train.device)
        return EagerEngine(self.model, self.task, self.loaded.tokenizer, device)

    def scores(self, split: str) -> Scores:
        """The live adapter's answers, in the format of the weights."""
        engine = self._eager()
        batch = self.config.train.per_device_eval_batch_size
        return score(engine, self.encoded[split], batch)

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
        engine = self._eager()
        size = self.config.train.per_device_eval_batch_size
        with collecting(self.adapters, list(self.source.factors), OLD) as found:
            for start in range(0, count, size):
                batch = engine.collate([train[i] for i in chosen[start : start + size]])
                found.mask = batch.get("attention_mask")
                engine.logits(batch)
        return found.means()

    @contextmanager
    def retrained(self, tensors: dict[str, Tensor], k: int, steps: int) -> Iterator[None]:
        """While open, the adapter of rank ``k``, trained on from these tensors, is the live one."""
        config = files.config_at(self.source, k)
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
