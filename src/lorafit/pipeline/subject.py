"""The stages of a run up to its training, each one function: problem, subject, engine.

`lorafit.api` strings them together; the commands and the tuner reuse them one by one.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lorafit.adapt import Adapters
from lorafit.config import Config, ModelConfig
from lorafit.data.batches import BatchOrder, lengths
from lorafit.engine.base import Engine
from lorafit.engine.eager import EagerEngine
from lorafit.errors import ConfigError
from lorafit.evidence.json import Json
from lorafit.export import peft as peft_format
from lorafit.inspection.truth import Lesson, Truth, inspect
from lorafit.machine.placement import find_device
from lorafit.methods import method_of, methods
from lorafit.methods.base import MethodConfig
from lorafit.model import load
from lorafit.model.load import LoadedModel
from lorafit.model.sites import Site, loose_weights
from lorafit.pipeline.compute import make_engine
from lorafit.pipeline.new_rows import with_new_rows
from lorafit.pipeline.problem import Live, Problem
from lorafit.run import Run
from lorafit.tasks.base import Task
from lorafit.training.learner import Learner
from lorafit.training.seed import seed_everything

log = logging.getLogger(__name__)


START = "start"
"""Folder of the run with the adapter as it was before training, if it looked at gradients."""

CHECKED_EPOCHS = 3
"""Epochs whose batches are looked at for one without anything to learn."""


LOOSE = 0.01
"""Share of all parameters from which on weights that no adapter can go on are worth a line."""


@dataclass
class Subject:
    """What learns it: a model with one adapter on it, the encoded splits, and the engine."""

    loaded: LoadedModel
    adapters: Adapters
    engine: Engine
    encoded: dict[str, Dataset]
    max_length: int
    truth: Truth | None = None
    """What the examples teach; ``None``: they were encoded, and looked at, before."""
    live: bool = False
    """Whether the model was passed as an object: it is given back as it came."""
    parts: int = 1
    """How many a micro batch is computed in, so that a step has room in the memory."""

    @property
    def model(self) -> PreTrainedModel:
        """The adapted model."""
        return self.loaded.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        return self.loaded.tokenizer

    def learner(self, task: Task) -> Learner:
        """What `lorafit.training.loop.fit` trains: all that is trainable now."""
        return Learner(
            self.engine,
            self.model,
            task,
            self.adapters.trainable(),
            self.encoded["train"],
            self.encoded["validation"],
            self.parts,
        )


def load_base(
    config: ModelConfig,
    task: Task,
    seed: int,
    deterministic: bool = False,
    live: Live | None = None,
) -> LoadedModel:
    """Loads the base model, or takes a live one; a new head is initialised under the seed.

    Raises:
        ConfigError: New tokens are wanted of a live model.
    """
    seed_everything(seed, deterministic)
    if live is None:
        loaded = load.load_model(config, task)
    else:
        if config.add_tokens:
            raise ConfigError(
                "add_tokens is for a model that is named; one that is passed is left as it is. Add "
                "them yourself: tokenizer.add_tokens([...]), "
                "model.resize_token_embeddings(len(tokenizer)), and name their ids in "
                "--trainable-token-indices."
            )
        loaded = load.from_live(live.model, live.tokenizer, task)
    task.meet(loaded.model)
    return loaded


def adapter_config(config: Config, loaded: LoadedModel, task: Task) -> MethodConfig:
    """The method's own settings, with the head and the names that go on disk filled in.

    Raises:
        ConfigError: A setting is unknown or wrong.
    """
    settings = dict(config.adapter.settings)
    whole = [*(settings.pop("modules_to_save", None) or []), *loaded.new_modules]
    settings["modules_to_save"] = list(dict.fromkeys(whole)) or None
    settings = with_new_rows(config.adapter.method, settings, loaded)
    settings["task_type"] = settings.get("task_type") or task.task_type
    settings["base_model_name_or_path"] = loaded.base_name
    settings["revision"] = config.model.revision
    adapter: MethodConfig = methods[config.adapter.method].config_class(**settings)
    return adapter


def try_adapter(config: Config, loaded: LoadedModel, task: Task) -> MethodConfig:
    """Tries the adapter on the model, which is left as it is.

    Returns:
        The method's complete settings.

    Raises:
        ConfigError: A setting is unknown or wrong, or the method does not fit the model.
    """
    own = adapter_config(config, loaded, task)
    adapters = Adapters(loaded.model)
    adapters.add(own)
    adapters.unload()
    return own


def longest_input(config: Config, loaded: LoadedModel, own: MethodConfig) -> int:
    """Tokens that an example may have beside those that the method takes itself."""
    reserved = methods[config.adapter.method]().reserved_tokens(own)
    return load.max_length(
        config.data.max_length, loaded.tokenizer, loaded.model, reserved=reserved
    )


def prepare(
    problem: Problem,
    config: Config,
    live: Live | None = None,
    *,
    start: Path | None = None,
    encoded: dict[str, Dataset] | None = None,
) -> Subject:
    """Loads the model, encodes the splits (or takes ``encoded`` ones), adds a fresh adapter.

    A method that asks for it sees gradients of the first training batches before it is
    trained; ``start`` is the folder where `keep_start` put what it then chose.

    The seed is set before the head and before the adapter are initialised: the same seed
    gives the same adapter, bit for bit, whatever was drawn before.
    """
    loaded = load_base(config.model, problem.task, config.seed, config.deterministic, live)
    own = adapter_config(config, loaded, problem.task)
    method = methods[config.adapter.method]()
    limit = longest_input(config, loaded, own)
    truth = None
    if encoded is None:
        encoded = encode(problem, loaded.tokenizer, limit)
        truth = data_truth(encoded, loaded, problem.task, config)
        truth.enforce(problem.task.findings)
    seed_everything(config.seed, config.deterministic)
    adapters = Adapters(loaded.model)
    if start is not None and start.is_dir():
        own = peft_format.read_config(start)
    loose = loose_weights(loaded.model, getattr(own, "target_parameters", None) or ())
    sites = adapters.add(own)
    if start is not None and start.is_dir():
        peft_format.update(adapters, peft_format.read_tensors(start))
    elif method.calibration_batches(own):
        calibrate(adapters, loaded, problem.task, encoded["train"], config)
    trainable = sum(p.numel() for p in adapters.trainable().values())
    total = sum(p.numel() for p in loaded.model.parameters())
    log.info(
        "adapter: %s%s, %s of %s parameters train (%.2f %%)",
        config.adapter.method,
        f" on {_counted(sites)}" if sites else "",
        f"{trainable:,}",
        f"{total:,}",
        100 * trainable / total,
    )
    if sites and sum(loose.values()) >= LOOSE * total:
        log.info(
            "not adapted: %s (%.0f %% of all parameters); they are no layers of their own%s",
            ", ".join(loose),
            100 * sum(loose.values()) / total,
            _remedy(own, loose),
        )
    engine = make_engine(loaded.model, loaded.tokenizer, problem.task, config)
    return Subject(loaded, adapters, engine, encoded, limit, truth, live is not None)


def _counted(sites: Sequence[Site]) -> str:
    """``12 layers, 2 groups of experts and 3 rows of embeddings``, as far as there are any."""
    kinds = Counter({"parameter": "parameter", "tokens": "tokens"}.get(s.kind, "") for s in sites)
    beside = kinds["parameter"]
    words = [f"{kinds['']} layers"] if kinds[""] else []
    if beside:
        words.append(
            f"{beside} {'module' if beside == 1 else 'modules'} with weights that are no layers"
        )
    if kinds["tokens"]:
        words.append("rows of the embeddings")
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _remedy(own: MethodConfig, loose: Mapping[str, int]) -> str:
    """How to adapt weights that are no layers, where the method can."""
    if "target_parameters" not in type(own).model_fields:
        return ""
    names = [*(getattr(own, "target_parameters", None) or ()), *loose]
    return f". To adapt them: --target-parameters {','.join(names)}"


def encode(
    problem: Problem, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> dict[str, Dataset]:
    """The encoded examples of each split."""
    return {
        name: problem.task.encode(rows, tokenizer, max_length)
        for name, rows in problem.splits.items()
    }


def data_truth(
    encoded: dict[str, Dataset], loaded: LoadedModel, task: Task, config: Config
) -> Truth:
    """What the encoded examples teach, and what of it cannot be learned."""
    size = config.train.per_device_train_batch_size
    batches: list[list[int]] = []
    if len(encoded["train"]):
        order = BatchOrder(lengths(encoded["train"]), size, config.seed)
        wanted = config.train.num_train_epochs
        epochs = CHECKED_EPOCHS if wanted == "auto" else min(CHECKED_EPOCHS, math.ceil(wanted))
        batches = [batch for epoch in range(epochs) for batch in order.epoch(epoch)]
    lesson = Lesson(
        task.supervision,
        label_names=getattr(task, "label_names", ()),
        unknown_token=loaded.tokenizer.unk_token_id,
        ends=_end_tokens(loaded),
        max_truncated=config.data.max_truncated,
    )
    return inspect(encoded, lesson, batches)


def _end_tokens(loaded: LoadedModel) -> set[int]:
    """The tokens that end a text: the tokenizer's, and those at which generation stops."""
    found = {loaded.tokenizer.eos_token_id}
    settings = getattr(loaded.model, "generation_config", None)
    stops = getattr(settings, "eos_token_id", None)
    found |= set(stops) if isinstance(stops, list) else {stops}
    return {token for token in found if token is not None}


def calibrate(
    adapters: Adapters, loaded: LoadedModel, task: Task, train: Dataset, config: Config
) -> None:
    """Shows a fresh adapter the gradients of the batches that training will begin with."""
    method = methods[config.adapter.method]()
    size = config.train.per_device_train_batch_size
    order = BatchOrder(lengths(train), size, config.seed).epoch(0)
    batches = order[: method.calibration_batches(adapters.configs["default"])]
    device = find_device(config.train.device)
    engine = EagerEngine(loaded.model, task, loaded.tokenizer, device)

    def backward() -> None:
        for indices in batches:
            rows = [train[i] for i in indices]
            engine.forward_backward(engine.collate(rows), 1 / len(rows))

    adapters.calibrate(backward)
    log.info("%s: chosen by the gradients of %d batches", config.adapter.method, len(batches))


def keep_start(run: Run, subject: Subject) -> None:
    """Keeps what a method chose before training, so that a resumed run trains the same."""
    own = subject.adapters.configs["default"]
    if methods[method_of(own.peft_type) or ""]().calibration_batches(own):
        peft_format.save(subject.adapters, run.path / START)


def data_record(subject: Subject, task: Task) -> Json:
    """The content of ``data.json``: task, what was found in the data, what its examples teach."""
    splits = {} if subject.truth is None else subject.truth.to_dict()["splits"]
    return asdict(task.findings) | {
        "task": task.to_dict(),
        "metrics": {name: info.to_dict() for name, info in task.infos.items()},
        "splits": splits,
    }
