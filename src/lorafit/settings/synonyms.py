"""What people call the settings elsewhere, and what they mean by it.

Letters say little about a short word (``lr`` is one letter from ``r``), so a hint goes by
meaning first: `ALIASES` are taken as the setting, `MEANT` are answered with its name, and
`INSTEAD` with a sentence, where there is no such setting.
"""

from __future__ import annotations

from pathlib import Path

from lorafit.errors import ConfigError

ALIASES = {
    "alpha": "adapter.lora_alpha",
    "dropout": "adapter.lora_dropout",
    "epochs": "train.num_train_epochs",
    "lr": "train.learning_rate",
    "rank": "adapter.r",
}
"""Names that work: as flags, as keywords and with ``--set``."""

OUTPUT = ("output", "output_dir")
"""Names for a run's folder, whose place and name are two settings."""

_MEANT: dict[str, str] = {
    "adapter.lora_alpha": "scaling",
    "adapter.method": "adapter adapter_type finetuning_type peft peft_method peft_type",
    "adapter.r": "lora_dim lora_r lora_rank",
    "adapter.target_modules": "lora_target lora_target_modules modules target_module targets",
    "adapter.use_dora": "dora",
    "adapter.use_rslora": "rslora",
    "data.encoding": "charset",
    "data.label": "label_col label_column labels response response_column target_column y",
    "data.max_length": (
        "block_size context_length cutoff_len cutoff_length max_len max_seq_len max_seq_length "
        "max_sequence_length max_tokens maxlen model_max_length seq_len seq_length"
    ),
    "data.path": (
        "data_dir data_files data_path dataset dataset_name dataset_path train_file training_data"
    ),
    "data.special_tokens": "split_special_tokens",
    "data.test": "test_data test_file",
    "data.test_fraction": "test_size",
    "data.text": (
        "dataset_text_field prompt_column sentence_column text_col text_column text_field x"
    ),
    "data.validation": "eval_data eval_file val val_data val_file valid validation_file",
    "data.validation_fraction": "val_set_size val_size val_split valid_size validation_split",
    "data.where": "filter",
    "generate.max_new_tokens": "max_output_tokens",
    "generate.num_beams": "beams",
    "model.add_tokens": "added_tokens additional_tokens extra_tokens new_tokens tokens",
    "model.dtype": "torch_dtype",
    "model.name_or_path": (
        "base_model checkpoint model_id model_name model_path pretrained "
        "pretrained_model_name_or_path"
    ),
    "run.name": "experiment experiment_name project run_name",
    "seed": "random_seed random_state rng",
    "task": "problem_type task_name task_type",
    "train.bf16": "amp mixed_precision precision",
    "train.early_stopping_patience": "early_stop early_stopping patience",
    "train.eval_steps": "eval_every eval_strategy evaluation_strategy",
    "train.gradient_accumulation_steps": (
        "accumulate_grad_batches accumulation_steps grad_accum grad_accumulation "
        "gradient_accumulation"
    ),
    "train.learning_rate": "adapter_lr initial_lr learningrate max_lr peak_lr step_size",
    "train.logging_steps": "log_every log_steps logging_strategy",
    "train.lr_scheduler_type": "lr_schedule lr_scheduler schedule scheduler scheduler_type",
    "train.max_grad_norm": "clip clip_grad grad_clip gradient_clip_val gradient_clipping",
    "train.max_steps": "iterations iters max_iters num_steps num_train_steps steps total_steps",
    "train.num_train_epochs": (
        "epoch max_epochs n_epochs nb_epochs num_epochs num_train_epoch passes train_epochs"
    ),
    "train.per_device_eval_batch_size": "eval_batch_size",
    "train.per_device_train_batch_size": (
        "batch batchsize bs micro_batch_size minibatch_size train_batch_size"
    ),
    "train.report_to": "log_to logger mlflow tensorboard tracker trackio wandb",
    "train.save_steps": "save_every save_strategy",
    "train.warmup_ratio": "num_warmup_steps warmup warmup_fraction warmup_steps",
    "train.weight_decay": "decay l2 wd",
    "tune.budget": "max_time max_time_hours time_limit timeout",
    "tune.strategy": "auto_tune hpo search tuner tuning",
}

MEANT = {name: key for key, names in _MEANT.items() for name in names.split()}
"""Names of other tools to the setting that does the same."""

_DEVICE = (
    "A GPU is used where torch finds one. Otherwise set device (--device cpu|cuda|cuda:N|mps); for "
    "several GPUs, accelerate launch starts one process each."
)
_OUTPUT = (
    "A run is the folder NAME in the folder of all runs: "
    "set output (--output DIR/NAME), or run.name (--name) and run.dir (--runs-dir)."
)
_QUANTIZED = (
    "Quantized bases are not trained. model.dtype=bfloat16 halves the memory of the frozen weights."
)
_CHECKPOINTING = (
    "Activations are not recomputed. For less memory take a smaller batch_size with "
    "train.gradient_accumulation_steps, or a smaller max_length."
)
_FP16 = "Half precision is bfloat16 here, which needs no scaling of the loss: train.bf16=true."
_SPLIT = (
    "A split is found by its name in the data; else give files (data.test, data.validation) or "
    "shares of the training rows (data.test_fraction, data.validation_fraction)."
)
_WORKERS = "Threads are set in the environment: OMP_NUM_THREADS=4."
_OPTIMIZER = (
    "The optimizer is AdamW; train.weight_decay and train.adam_beta1 are two settings of it."
)
_OVERWRITE = "A run is never overwritten: give another name (--name), or remove its folder first."
_PUSH = "Nothing is uploaded. To publish the adapter of a run: hf upload USER/NAME RUN/adapter."
_LABELS = "The classes are read off the label column: set data.label (--label)."

INSTEAD = {
    **dict.fromkeys(("cpu", "cuda", "device_map", "gpu", "gpus", "no_cuda"), _DEVICE),
    **dict.fromkeys(("num_gpus", "use_cpu", "use_gpu"), _DEVICE),
    **dict.fromkeys(("logging_dir", "out", "out_dir", "save_dir"), _OUTPUT),
    **dict.fromkeys(("save_path", "output_path"), _OUTPUT),
    **dict.fromkeys(("bits", "load_in_4bit", "load_in_8bit", "qlora", "quantization"), _QUANTIZED),
    **dict.fromkeys(("quantization_bit", "quantization_config", "quantize"), _QUANTIZED),
    **dict.fromkeys(("gradient_checkpointing", "use_gradient_checkpointing"), _CHECKPOINTING),
    **dict.fromkeys(("fp16", "half"), _FP16),
    **dict.fromkeys(("eval_split", "split", "splits", "test_split", "train_split"), _SPLIT),
    **dict.fromkeys(("dataloader_num_workers", "num_proc", "num_threads"), _WORKERS),
    **dict.fromkeys(("num_workers", "threads", "workers"), _WORKERS),
    **dict.fromkeys(("optim", "optimizer"), _OPTIMIZER),
    **dict.fromkeys(("exist_ok", "force", "overwrite", "overwrite_output_dir"), _OVERWRITE),
    **dict.fromkeys(("hub_model_id", "push_to_hub"), _PUSH),
    **dict.fromkeys(("classes", "id2label", "num_classes", "num_labels"), _LABELS),
    "resume_from_checkpoint": "To go on with an interrupted run: resume (--resume RUN).",
    "verbose": "What is done is said anyway; --debug adds the traceback of an error.",
}
"""Names of what lorafit does not have, or does otherwise, to what to do."""


def place_and_name(folder: object) -> dict[str, str]:
    """What a run's folder says: the folder of all runs, and the name of the run.

    >>> place_and_name("out/first"), place_and_name("first")
    ({'run.dir': 'out', 'run.name': 'first'}, {'run.dir': '.', 'run.name': 'first'})

    Raises:
        ConfigError: It has no name.
    """
    path = Path(str(folder))
    if path.name in ("", ".."):
        raise ConfigError(f'output is the folder of one run, such as runs/first, not "{folder}".')
    return {"run.dir": str(path.parent), "run.name": path.name}


def normal(name: str) -> str:
    """A name as the tables write it: ``--Lora-Rank`` is ``lora_rank``."""
    return name.lstrip("-").replace("-", "_").lower()


def meant(name: str) -> str | None:
    """The key of the setting that a name of another tool stands for."""
    return ALIASES.get(normal(name)) or MEANT.get(normal(name))


def instead(name: str) -> str | None:
    """What to do where other tools have a setting of this name and lorafit has none."""
    return INSTEAD.get(normal(name)) or INSTEAD.get(normal(name).removeprefix("no_"))
