"""The settings as typed keywords of `lorafit.train` and its like, for editors.

Written by `make docs` from `Config` and the methods' settings. Change those instead. What is
passed is checked when the call is made; a setting that is not here (of a ``peft:NAME`` method, or
one whose name two groups have) goes in as ``**{"group.name": value}``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, TypedDict


class SharedKeywords(TypedDict, total=False):
    """Settings that every call takes."""

    task: str | None
    """Task name; ``None``: guessed from the columns and the model, and said."""

    seed: int
    """Seed of everything random: carved splits, order of examples, dropout, new weights."""

    deterministic: bool
    """Ask torch for bit-reproducible kernels."""

    gguf_file: str | None
    """Name of the GGUF file in the model's folder that holds the weights; ``None``: safetensors."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    """Number format of the frozen weights; the adapter is always float32."""

    attn_implementation: str | None
    """Attention of transformers, e.g. ``sdpa`` or ``eager``; ``None``: its own choice. Kernels of
    the Hub run code: only a flag or a keyword can name one."""

    trust_remote_code: bool
    """Whether Python code that comes with the model may run on this machine. Only a flag or a
    keyword can say so; in a file it is a record."""

    add_tokens: str | Sequence[str] | None
    """New tokens for the tokenizer, such as ``<drug>``, which texts are read with; their rows of
    the embeddings are trained (``trainable_token_indices``)."""

    head_init: Literal["probe", "random"]
    """How a new head begins: ``probe``, as the best linear layer on what the untrained model says
    (it reads some of the training examples once), or ``random``."""

    test: str | None
    """File with the test rows, where ``path`` has none."""

    validation: str | None
    """File with the validation rows, likewise."""

    encoding: str | None
    """Encoding of csv, tsv, json and CoNLL files, such as ``cp1252``; ``None``: UTF-8."""

    text: str | Sequence[str] | None
    """Text column, or two for text pairs; ``None``: guessed, and said."""

    label: str | Sequence[str] | None
    """Label column, or several of 0 and 1 (one for each label); ``None``: guessed, and said."""

    where: str | None
    """Keep only rows for which this is true, e.g. ``category != 'plot'``."""

    max_length: int | None
    """Longest input in tokens; ``None``: the model's own limit, at most 512."""

    special_tokens: Literal["text", "control"]
    """What ``</s>``, ``[SEP]`` or ``<|im_end|>`` inside a text is: ``text``, or the ``control``
    token of that name. What a chat template itself writes is always the token."""

    max_truncated: float
    """Share of training examples whose answer may be cut off at ``max_length``."""

    dedupe: bool
    """Leave out training rows whose text stands in train before, in validation or in test."""

    clean_labels: bool
    """Join labels that differ in case or spaces only, under their most frequent spelling."""

    skip_bad_rows: bool
    """Leave out rows that cannot be read, and conversations that cannot be learned from, and count
    them, instead of stopping."""

    max_unpacked_gb: float | None
    """Most that one compressed, parquet or arrow file may unpack to, in GB of 10^9 bytes; ``None``:
    1, or 50 times the file where that is more. Stops files made to fill the memory."""

    validation_fraction: float
    """Share of the training rows carved off when the data has no validation split."""

    test_fraction: float
    """Share of the training rows carved off when the data has no test split."""

    max_train_samples: int | None
    """Most training rows; drawn at random, in the proportions of the labels; ``None``: all."""

    max_eval_samples: int | None
    """Most validation rows and most test rows, drawn likewise; ``None``: all."""

    method: str
    """A method of ``methods/``, or ``peft:NAME``."""

    modules_to_save: str | Sequence[str] | None
    """Modules trained whole and saved with the adapter, such as a new head."""

    target_modules: str | Collection[str] | Literal["auto"] | None
    """Modules whose biases are trained, at any depth: names, or a regular expression that matches
    whole paths. ``None``: all."""

    placement: Literal["houlsby", "pfeiffer"]
    """After attention and MLP, or after the MLP only."""

    reduction_factor: int
    """The adapter's inner width is the model's divided by this, at least 1."""

    non_linearity: Literal["gelu", "relu", "silu", "tanh"]
    """Function between the two layers."""

    lora_alpha: int | float | Literal["auto"]
    """The update is multiplied by ``lora_alpha / r`` (``/ sqrt(r)`` with ``use_rslora``)."""

    exclude_modules: str | Collection[str] | None
    """Names, or a regular expression that matches whole paths, left out of the targets."""

    lora_dropout: float
    """Dropout on the input of ``A`` only."""

    fan_in_fan_out: bool
    """Kept for PEFT's files; the orientation of a weight is read off its layer."""

    bias: Literal["none", "all", "lora_only"]
    """Which biases are trained: none, all of the model's, or the adapted layers'."""

    use_rslora: bool
    """Scale by ``lora_alpha / sqrt(r)``, so that a larger rank takes the same learning rate."""

    use_dora: bool
    """Also train the length of each row of the weight (DoRA)."""

    init_lora_weights: bool | str
    """``True`` (Kaiming A, zero B), ``"gaussian"``, ``"orthogonal"``, ``"olora"``, ``"pissa"``
    (``"pissa_niter_16"``: fast SVD), or ``False`` (both random: does not start at the base)."""

    layers_to_transform: Sequence[int] | int | None
    """Numbers of the blocks to adapt, from 0; ``None``: all."""

    layers_pattern: str | Sequence[str] | None
    """Names of the block lists that these numbers count in, e.g. ``h``; ``None``: all."""

    rank_pattern: Mapping[str, int]
    """Module name or expression to rank, where it differs from ``r``."""

    alpha_pattern: Mapping[str, float]
    """Module name or expression to ``lora_alpha``, where it differs."""

    target_parameters: str | Sequence[str] | None
    """Weights that are no layers, such as the experts of a mixture (``experts.down_proj``), adapted
    beside the target modules; without dropout."""

    trainable_token_indices: Sequence[int] | Mapping[str, Sequence[int]] | None
    """Rows of the input embeddings trained whole (ids of tokens), or rows by the name of an
    embedding."""

    feedforward_modules: str | Collection[str] | None
    """The targets whose input is rescaled instead of their output; ``None``: those that stand in an
    MLP."""

    init_ia3_weights: bool
    """Start from ones; ``False``: from random numbers (does not start at the base)."""

    k: int
    """How many blocks from the top are trained."""

    num_virtual_tokens: int
    """How many virtual tokens stand before those of the input."""

    token_dim: int | None
    """Filled in: the width of the embeddings; of a prefix, of a layer's keys."""

    num_layers: int | None
    """Filled in: the model's layers."""

    num_attention_heads: int | None
    """Filled in: the heads of a layer."""

    num_transformer_submodules: int | None
    """Filled in, for PEFT: 1."""

    init_weights: Literal["vocab", "zero"] | None
    """Start from the keys and values of random tokens, from zeros, or (``null``) random."""

    prefix_projection: bool
    """Train the prefix through a two-layer MLP."""

    encoder_hidden_size: int | None
    """Width of the MLP; ``null``: that of a layer's keys."""

    prompt_tuning_init: Literal["SAMPLE_VOCAB", "TEXT", "RANDOM"]
    """Start from the embeddings of random tokens, of a text's tokens, or from random numbers."""

    prompt_tuning_init_text: str | None
    """The text, for ``TEXT``; repeated or cut to the number of virtual tokens."""

    tokenizer_name_or_path: str | None
    """Its tokenizer; ``None``: the base model's."""

    density: float
    """Share of the weights of the adapted layers that is trained."""

    calibration_batches: int
    """Training batches whose gradients choose the positions."""

    nonzero: Mapping[str, int]
    """Number of trained weights in each layer; filled in once they are chosen."""

    learning_rate: float | Literal["auto"]
    """Peak learning rate. LoRA wants about ten times that of full fine-tuning ("LoRA Without
    Regret", Thinking Machines 2025); docs/explanation has our measurements."""

    num_train_epochs: float | Literal["auto"]
    """Passes over the training examples; need not be whole. ``auto``: 3, or, where these are fewer
    than 300 steps, until the validation loss stops falling, at most 300 steps."""

    max_steps: int | None
    """Stops after this many optimizer steps; overrides ``num_train_epochs``."""

    per_device_train_batch_size: int
    """Examples a process takes for one forward and backward pass."""

    per_device_eval_batch_size: int
    """Examples a process scores at once; changes memory and speed, not results."""

    gradient_accumulation_steps: int
    """Batches whose gradients make one optimizer step."""

    lr_scheduler_type: Literal["linear", "warmup_stable_decay"]
    """Course of the learning rate: up and down to zero at once, or up, level and down."""

    warmup_ratio: float
    """Share of the steps over which the learning rate rises to its peak."""

    decay_ratio: float
    """Share of the steps over which ``warmup_stable_decay`` falls to zero at the end."""

    weight_decay: float
    """AdamW: share of a matrix that a step takes off it, times the learning rate."""

    adam_beta1: float
    """AdamW: share kept of the running mean of the gradient at each step."""

    adam_beta2: float
    """AdamW: share kept of the running mean of the squared gradient at each step. With 0.999 the
    mean lags behind gradients that grow, as LoRA's do from zero: rates twice as large diverge."""

    adam_epsilon: float
    """AdamW: added to the root of that mean, so that nothing is divided by zero."""

    max_grad_norm: float | None
    """Gradients with a larger norm, over all parameters, are scaled to it; ``None``: none are."""

    eval_steps: int | None
    """Steps between evaluations; ``None``: four times an epoch."""

    save_steps: int | None
    """Steps between checkpoints; ``None``: one at each evaluation. The best is kept anyway."""

    early_stopping_patience: int | None
    """Evaluations without a better validation loss before training stops; ``None``: never."""

    load_best_model_at_end: bool
    """Keep the state with the lowest validation loss instead of the last one."""

    logging_steps: int
    """Optimizer steps between lines of ``metrics.jsonl``."""

    bf16: bool | None
    """Compute in bfloat16 (weights of the adapter stay float32); ``None``: where the hardware does
    it faster than float32."""

    engine: Literal["auto", "fast", "generic", "eager"]
    """What computes the steps: ``fast`` (packed, some encoder families), ``generic`` (any model on
    the CPU, faster parts), ``eager`` (plain torch); ``auto``: the first that can."""

    device: str
    """Where the model computes: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; ``auto``: a GPU where
    torch finds one, else the processor."""

    report_to: Sequence[Literal["tensorboard", "trackio", "wandb", "mlflow"]]
    """Trackers that also get the metrics."""

    strategy: str
    """A strategy of ``tune/``; ``none``: nothing is measured, the defaults are taken."""

    prior: str | None
    """A file of your own with what earlier runs found: the search begins near it, and adds its line
    (numbers only) when the run is done. Made if it is missing; ``None``: no prior."""

    max_new_tokens: int
    """Longest answer in tokens."""

    num_beams: int
    """1: the likeliest token at each step; more: beam search."""

    examples: int
    """Test examples that the base and the tuned model answer for the metrics of whole texts."""

    dir: str
    """Folder in which run folders are made."""

    confidence: float
    """Level of the reported intervals."""

    keep_texts: bool
    """Keep the texts of the test rows in ``predictions.parquet``, so that mistakes can be read;
    without, and for texts that must not be copied: their hashes only."""

    batch_size: int
    """Examples a process takes for one forward and backward pass."""

    name: str | None
    """Folder name below ``dir``; ``None``: made from the model, the data and a counter."""

    runs_dir: str
    """Folder in which run folders are made."""

    alpha: int | float | Literal["auto"]
    """The update is multiplied by ``lora_alpha / r`` (``/ sqrt(r)`` with ``use_rslora``)."""

    dropout: float
    """Dropout on the input of ``A`` only."""

    epochs: float | Literal["auto"]
    """Passes over the training examples; need not be whole. ``auto``: 3, or, where these are fewer
    than 300 steps, until the validation loss stops falling, at most 300 steps."""

    lr: float | Literal["auto"]
    """Peak learning rate. LoRA wants about ten times that of full fine-tuning ("LoRA Without
    Regret", Thinking Machines 2025); docs/explanation has our measurements."""

    output: str
    """Folder of the run: ``dir`` and ``name`` in one."""

    output_dir: str
    """Folder of the run: ``dir`` and ``name`` in one."""


class SettingsKeywords(SharedKeywords, total=False):
    """All settings, as `lorafit.train` takes them."""

    r: int | Literal["auto"]
    """Rank."""

    budget: float | str
    """Most that choosing and training may cost together: in plain runs (``1.25``) or as a time
    (``20min``)."""

    rank: int | Literal["auto"]
    """Rank."""


class CompareKeywords(SharedKeywords, total=False):
    """Those of `lorafit.compare`; its ``budget`` is another."""

    r: int | Literal["auto"]
    """Rank."""

    rank: int | Literal["auto"]
    """Rank."""


class ShrinkKeywords(SharedKeywords, total=False):
    """Those of `lorafit.shrink`; its ``r`` is another."""

    budget: float | str
    """Most that choosing and training may cost together: in plain runs (``1.25``) or as a time
    (``20min``)."""
