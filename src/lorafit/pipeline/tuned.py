"""A base model with a trained adapter on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorafit import pipeline, quiet
from lorafit.adapt import Adapters
from lorafit.config import Config, GenerateConfig
from lorafit.engine.inference import Inference
from lorafit.errors import AdapterError, ConfigError
from lorafit.evidence.json import Json
from lorafit.export import peft as peft_format
from lorafit.machine.placement import find_device
from lorafit.model.identity import Identity
from lorafit.pipeline import predicting, unchanged
from lorafit.pipeline.facts import FACTS, read
from lorafit.pipeline.problem import identified, live_model
from lorafit.pipeline.subject import Subject
from lorafit.run import Run
from lorafit.settings import LIVE
from lorafit.tasks.base import Task
from lorafit.training import guest
from lorafit.trust import NO_TRUST, Trust, granted
from lorafit.units import shortened

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""What predictions can be computed in."""


@dataclass
class Tuned:
    """A model with a trained adapter on it, ready to use: see `load`."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    adapters: Adapters
    task: Task
    max_length: int
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    """How a model that writes text writes."""
    device: str = "auto"
    """Where it predicts."""
    dtype: torch.dtype | None = None
    """What it predicts in; ``None``: as the weights are stored."""
    inference: Inference = field(default_factory=Inference, repr=False, compare=False)
    """Its engine."""

    @guest.visiting()
    def predict(self, texts: Any) -> list[Json]:
        """What `lorafit.predict` says of texts, without loading the model again.

        Args:
            texts: As for `lorafit.predict`.

        Raises:
            DataError: Something is not a text, or is empty; the message names which.
        """
        return predicting.predict(self, texts)

    def __repr__(self) -> str:
        base = shortened(str(self.model.config.name_or_path or type(self.model).__name__), 80)
        return f"Tuned({base!r}, {self.task.name.replace('_', ' ')})"


@guest.as_found()
def load(
    source: str | Path | Run,
    model: PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    trust: Trust = NO_TRUST,
    device: str = "auto",
    dtype: str | None = None,
) -> Tuned:
    """Puts a trained adapter on its base model.

    Args:
        source: The run, its folder, its name below ``runs/``, or a folder with an adapter
            that lorafit made (the run is not needed then).
        model: The base model, for a run that was made from a live one.
        tokenizer: Its tokenizer.
        trust: What the caller allows of code that comes with the base.
        device: Where it predicts: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        dtype: What it predicts in: ``float32`` or ``bfloat16``; ``None``: as the weights are
            stored.

    Raises:
        RunError: There is no such run, or it has no adapter yet.
        AdapterError: The adapter does not fit the model, or its files are damaged.
        ModelError: The base cannot be loaded, or needs code that was not allowed.
        ConfigError: There is no such device, or no such type of numbers.
    """
    numbers = _numbers(dtype)
    adapter = _adapter_folder(source)
    find_device(device)
    facts, task = read(adapter)
    base = facts.model
    if model is None:
        base = granted(base, trust)
    if model is None and base.name_or_path == LIVE:
        raise ConfigError(f'"{adapter}" was made for a live model; pass it: load(source, model).')
    with quiet.saying_less():
        live = live_model(model, tokenizer)
        now = None if live is None else identified(base, live)  # before there are adapters on it
        loaded = pipeline.load_base(base, task, facts.seed, live=live)
    adapters = peft_format.load(loaded.model, adapter)
    unchanged.say_base(adapter, facts.base, base.name_or_path, now or identified(base, None))
    loaded.model.train(False)
    return Tuned(
        loaded.model,
        loaded.tokenizer,
        adapters,
        task,
        facts.max_length,
        facts.generate,
        device,
        numbers,
    )


def _numbers(name: str | None) -> torch.dtype | None:
    """The type that predictions are computed in.

    Raises:
        ConfigError: It is another one.
    """
    if name is None:
        return None
    if name not in DTYPES:
        raise ConfigError(
            f'predictions are computed in {" or ".join(DTYPES)}, not in "{name}" (dtype).'
        )
    return DTYPES[name]


class AdapterFacts(TypedDict):
    """``lorafit.json`` beside an adapter.

    Attributes:
        task: As `Task.to_dict` has it.
        max_length: Tokens of the longest input.
        model: Settings of the base model.
        seed: Of a new head.
        generate: Settings of written answers; a file of the version before has none.
        base: What the base model was (`lorafit.model.identity`); ``None``, or not there: not known.
    """

    task: Json
    max_length: int
    model: Json
    seed: int
    generate: NotRequired[Json]
    base: NotRequired[Identity | None]


def adapter_facts(
    subject: Subject, task: Task, config: Config, identity: Identity | None
) -> AdapterFacts:
    """What `load` needs beyond PEFT's files, so that the folder stands alone.

    Args:
        subject: What was trained.
        task: What it learned.
        config: By which settings.
        identity: What the base model was then.
    """
    model = config.model.model_dump()
    base = subject.loaded.base_name
    if config.model.name_or_path != LIVE and base is not None:
        model["name_or_path"] = base  # absolute: the adapter is used from other folders too
        if base.endswith(f"/{config.model.gguf_file}"):
            model["gguf_file"] = None
    return {
        "task": task.to_dict(),
        "max_length": subject.max_length,
        "model": model,
        "seed": config.seed,
        "generate": config.generate.model_dump(),
        "base": identity,
    }


def opened(run: str | Path | Run) -> Run:
    """A run, its folder, or its name below ``runs/``.

    Raises:
        RunError: There is no such run.
    """
    return run if isinstance(run, Run) else Run.open(run)


def _adapter_folder(source: str | Path | Run) -> Path:
    """The folder with the adapter's files.

    Raises:
        AdapterError: It is a PEFT adapter that lorafit did not make.
        RunError: It is neither an adapter nor a finished run.
    """
    if not isinstance(source, Run) and (Path(source) / "adapter_config.json").is_file():
        adapter = Path(source)
        if not (adapter / FACTS).is_file():
            raise AdapterError(
                f'"{adapter}" is an adapter without {FACTS}, which names its task and '
                "labels. Load it with lorafit.peft.PeftModel.from_pretrained(model, folder)."
            )
        return adapter
    return opened(source).adapter
