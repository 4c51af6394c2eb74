"""The settings of a run: one strict model per stage, every default written once, here.

``None`` means "not set". PEFT's and Trainer's spellings are used for what they name.
The settings of the adapter itself belong to its method (``methods/<name>.py``);
`AdapterConfig` only names the method and carries them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
SpecialTokens = Literal["text", "control"]

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:(0|[1-9][0-9]{0,3}))?")


def known_device(name: str) -> str:
    """The name of something that a model can compute on, whether it is there or not.

    Raises:
        ValueError: It is another.
    """
    if not _DEVICE.fullmatch(name):
        raise ValueError(
            f'there is no device "{name}"; choose auto, cpu, cuda, cuda:N (cuda:0, ...) or mps'
        )
    return name


class Stage(BaseModel):
    """Base of the stages: unknown keys are errors, and values are checked on assignment."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class ModelConfig(Stage):
    """Which pretrained model to adapt."""

    name_or_path: str
    """Hub id, local folder, or ``package:NAME/path`` (files inside an installed package)."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model; ``None``: its main branch."""
    gguf_file: str | None = None
    """Name of the GGUF file in the model's folder that holds the weights; ``None``: safetensors."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Number format of the frozen weights; the adapter is always float32."""
    attn_implementation: str | None = None
    """Attention of transformers, e.g. ``sdpa`` or ``eager``; ``None``: its own choice. Kernels of
    the Hub run code: only a flag or a keyword can name one."""
    trust_remote_code: bool = False
    """Whether Python code that comes with the model may run on this machine. Only a flag or a
    keyword can say so; in a file it is a record."""
    _recorded_in: str | None = PrivateAttr(default=None)
    """The file that asks for code to be run, until the caller allows it: `lorafit.trust`."""
    add_tokens: list[str] | None = None
    """New tokens for the tokenizer, such as ``<drug>``, which texts are read with; their rows of
    the embeddings are trained (``trainable_token_indices``)."""
    head_init: Literal["probe", "random"] = "probe"
    """How a new head begins: ``probe``, as the best linear layer on what the untrained model says
    (it reads some of the training examples once), or ``random``."""

    @field_validator("add_tokens")
    @classmethod
    def _tokens(cls, tokens: list[str] | None) -> list[str] | None:
        """What no tokenizer could tell from other text is refused."""
        for token in tokens or []:
            if not token.strip():
                raise ValueError("a token is empty; write each new token out, such as <drug>")
            if token != token.strip():
                raise ValueError(f"the token {token!r} begins or ends with a space; leave it out")
            if any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in token):
                raise ValueError(
                    f"the token {token!r} has a control character in it; leave that out"
                )
            if (tokens or []).count(token) > 1:
                raise ValueError(f'the token "{token}" is there twice')
        return tokens or None


class DataConfig(Stage):
    """Which data to train on, and how its columns are read."""

    path: str
    """Hub id, local file or folder, or ``package:NAME/path``."""
    name: str | None = None
    """Configuration name of a Hub data set."""
    revision: str | None = None
    """Branch, tag or commit of a Hub data set; ``None``: its main branch."""
    test: str | None = None
    """File with the test rows, where ``path`` has none."""
    validation: str | None = None
    """File with the validation rows, likewise."""
    encoding: str | None = None
    """Encoding of csv, tsv, json and CoNLL files, such as ``cp1252``; ``None``: UTF-8."""
    text: list[str] | None = None
    """Text column, or two for text pairs; ``None``: guessed, and said."""
    label: str | list[str] | None = None
    """Label column, or several of 0 and 1 (one for each label); ``None``: guessed, and said."""

    @field_validator("label")
    @classmethod
    def _one_label(cls, label: str | list[str] | None) -> str | list[str] | None:
        """A list of one column is that column."""
        return label[0] if isinstance(label, list) and len(label) == 1 else label

    where: str | None = None
    """Keep only rows for which this is true, e.g. ``category != 'plot'``."""
    max_length: PositiveInt | None = None
    """Longest input in tokens; ``None``: the model's own limit, at most 512."""
    special_tokens: SpecialTokens = "text"
    """What ``</s>``, ``[SEP]`` or ``<|im_end|>`` inside a text is: ``text``, or the ``control``
    token of that name. What a chat template itself writes is always the token."""
    max_truncated: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Share of training examples whose answer may be cut off at ``max_length``."""
    dedupe: bool = False
    """Leave out training rows whose text stands in train before, in validation or in test."""
    clean_labels: bool = False
    """Join labels that differ in case or spaces only, under their most frequent spelling."""
    skip_bad_rows: bool = False
    """Leave out rows that cannot be read, and conversations that cannot be learned from, and
    count them, instead of stopping."""
    max_unpacked_gb: Annotated[float, Field(gt=0.0)] | None = None
    """Most that one compressed, parquet or arrow file may unpack to, in GB of 10^9 bytes; ``None``:
    1, or 50 times the file where that is more. Stops files made to fill the memory."""
    validation_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    """Share of the training rows carved off when the data has no validation split."""
    test_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    """Share of the training rows carved off when the data has no test split."""
    max_train_samples: PositiveInt | None = None
    """Most training rows; drawn at random, in the proportions of the labels; ``None``: all."""
    max_eval_samples: PositiveInt | None = None
    """Most validation rows and most test rows, drawn likewise; ``None``: all."""


class AdapterConfig(BaseModel):
    """The method and its own settings (checked by the method's ``Config``)."""

    model_config = ConfigDict(extra="allow", validate_assignment=True)

    method: str = "lora"
    """A method of ``methods/``, or ``peft:NAME``."""

    @property
    def settings(self) -> dict[str, Any]:
        """The method's own settings, without its name."""
        return dict(self.model_extra or {})


class TrainConfig(Stage):
    """The training loop."""

    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-3
    """Peak learning rate. LoRA wants about ten times that of full fine-tuning
    ("LoRA Without Regret", Thinking Machines 2025); docs/explanation has our measurements."""
    num_train_epochs: Annotated[float, Field(gt=0.0)] | Literal["auto"] = "auto"
    """Passes over the training examples; need not be whole. ``auto``: 3, or, where these are
    fewer than 300 steps, until the validation loss stops falling, at most 300 steps."""
    max_steps: PositiveInt | None = None
    """Stops after this many optimizer steps; overrides ``num_train_epochs``."""
    per_device_train_batch_size: PositiveInt = 32
    """Examples a process takes for one forward and backward pass."""
    per_device_eval_batch_size: PositiveInt = 64
    """Examples a process scores at once; changes memory and speed, not results."""
    gradient_accumulation_steps: PositiveInt = 1
    """Batches whose gradients make one optimizer step."""
    lr_scheduler_type: Literal["linear", "warmup_stable_decay"] = "linear"
    """Course of the learning rate: up and down to zero at once, or up, level and down."""
    warmup_ratio: Fraction = 0.06
    """Share of the steps over which the learning rate rises to its peak."""
    decay_ratio: Fraction = 0.25
    """Share of the steps over which ``warmup_stable_decay`` falls to zero at the end."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """AdamW: share of a matrix that a step takes off it, times the learning rate."""
    adam_beta1: Fraction = 0.9
    """AdamW: share kept of the running mean of the gradient at each step."""
    adam_beta2: Fraction = 0.98
    """AdamW: share kept of the running mean of the squared gradient at each step. With 0.999 the
    mean lags behind gradients that grow, as LoRA's do from zero: rates twice as large diverge."""
    adam_epsilon: Annotated[float, Field(gt=0.0)] = 1e-8
    """AdamW: added to the root of that mean, so that nothing is divided by zero."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] | None = 1.0
    """Gradients with a larger norm, over all parameters, are scaled to it; ``None``: none are."""
    eval_steps: PositiveInt | None = None
    """Steps between evaluations; ``None``: four times an epoch."""
    save_steps: PositiveInt | None = None
    """Steps between checkpoints; ``None``: one at each evaluation. The best is kept anyway."""
    early_stopping_patience: PositiveInt | None = 8
    """Evaluations without a better validation loss before training stops; ``None``: never."""
    load_best_model_at_end: bool = True
    """Keep the state with the lowest validation loss instead of the last one."""
    logging_steps: PositiveInt = 10
    """Optimizer steps between lines of ``metrics.jsonl``."""
    bf16: bool | None = None
    """Compute in bfloat16 (weights of the adapter stay float32); ``None``: where the
    hardware does it faster than float32."""
    engine: Literal["auto", "fast", "generic", "eager"] = "auto"
    """What computes the steps: ``fast`` (packed, some encoder families), ``generic`` (any model
    on the CPU, faster parts), ``eager`` (plain torch); ``auto``: the first that can."""
    device: str = "auto"
    """Where the model computes: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; ``auto``: a GPU where
    torch finds one, else the processor."""
    report_to: list[Literal["tensorboard", "trackio", "wandb", "mlflow"]] = []
    """Trackers that also get the metrics."""

    @field_validator("device")
    @classmethod
    def _device(cls, name: str) -> str:
        """Other devices of torch (``meta``, ...) are none to train on."""
        return known_device(name)


class TuneConfig(Stage):
    """How ``learning_rate``, ``r``, ``lora_alpha`` and ``target_modules`` are chosen."""

    strategy: str = "rise"
    """A strategy of ``tune/``; ``none``: nothing is measured, the defaults are taken."""
    budget: float | str = 1.25
    """Most that choosing and training may cost together: in plain runs (``1.25``) or as a
    time (``20min``)."""
    prior: str | None = None
    """A file of your own with what earlier runs found: the search begins near it, and adds its
    line (numbers only) when the run is done. Made if it is missing; ``None``: no prior."""


class GenerateConfig(Stage):
    """What models that write text write, for samples and for prediction; never sampled."""

    max_new_tokens: PositiveInt = 64
    """Longest answer in tokens."""
    num_beams: PositiveInt = 1
    """1: the likeliest token at each step; more: beam search."""
    examples: Annotated[int, Field(ge=0)] = 32
    """Test examples that the base and the tuned model answer for the metrics of whole texts."""


class RunConfig(Stage):
    """Where the results go."""

    dir: str = "runs"
    """Folder in which run folders are made."""
    name: str | None = None
    """Folder name below ``dir``; ``None``: made from the model, the data and a counter."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Level of the reported intervals."""
    keep_texts: bool = True
    """Keep the texts of the test rows in ``predictions.parquet``, so that mistakes can be read;
    without, and for texts that must not be copied: their hashes only."""


class Config(Stage):
    """Everything one run needs."""

    task: str | None = None
    """Task name; ``None``: guessed from the columns and the model, and said."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of everything random: carved splits, order of examples, dropout, new weights."""
    deterministic: bool = False
    """Ask torch for bit-reproducible kernels."""
    model: ModelConfig
    """The model; `ModelConfig`."""
    data: DataConfig
    """The data; `DataConfig`."""
    adapter: AdapterConfig = AdapterConfig()
    """The method; `AdapterConfig`."""
    train: TrainConfig = TrainConfig()
    """The training loop; `TrainConfig`."""
    tune: TuneConfig = TuneConfig()
    """What is measured; `TuneConfig`."""
    generate: GenerateConfig = GenerateConfig()
    """How texts are written; `GenerateConfig`."""
    run: RunConfig = RunConfig()
    """Where the results go; `RunConfig`."""
