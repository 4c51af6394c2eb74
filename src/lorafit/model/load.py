"""A name to a model, its tokenizer, and the list of what in it is not pretrained.

Weights are read from safetensors or GGUF files only: a pickle can run code. What the
checkpoint lacks for the task (the classification head, usually) is initialised by
transformers from torch's global generator: **seed before calling `load_model`**, and the
same seed gives the same head.

The length of the inputs is decided in ``limits.py``, which modules are new in ``new.py``; new
tokens are added in ``new_tokens.py``.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import try_to_load_from_cache
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.hub import cached_file

from lorafit import hub, paths, quiet
from lorafit.config import ModelConfig
from lorafit.errors import ModelError
from lorafit.model.asked import (
    INDEX,
    Held,
    check_counts,
    check_elements,
    check_index,
    check_named_weights,
    held,
)
from lorafit.model.files import (
    check_attention,
    check_experts,
    check_folder,
    check_gguf,
    translated,
)
from lorafit.model.limits import DEFAULT_MAX_LENGTH, max_length
from lorafit.model.new import add_relabelled, new_modules, say_new
from lorafit.model.new_tokens import NewTokens, add_tokens
from lorafit.model.sites import head_modules
from lorafit.tasks.base import Task
from lorafit.tasks.parts.padding import ensure_pad_token, set_side, side_of
from lorafit.trust import check_granted

__all__ = [
    "DEFAULT_MAX_LENGTH",
    "LoadedModel",
    "from_live",
    "load_model",
    "max_length",
    "new_modules",
]

log = logging.getLogger(__name__)

GgufConfig: Any = getattr(transformers, "GgufConfig", None)
"""Only newer versions of transformers can keep GGUF's weights packed, and do."""


_MOST_ADDED = 1_000
"""Tokens that a tokenizer may add to a text; all known ones add fewer than ten."""


@dataclass
class LoadedModel:
    """A model ready for adapters."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    new_modules: list[str]
    """Paths of the modules to be trained whole and saved with the adapter: those whose
    weights were not in the checkpoint, and a head that was made for other labels."""
    source: str
    """What was asked for."""
    base_name: str | None
    """What the adapter's ``base_model_name_or_path`` gets: the Hub id, the absolute path of
    a local folder or file, or the ``package:`` name (which holds on every machine);
    ``None``: a live model that does not say where it is from."""
    resized_head: bool = False
    """The checkpoint has a head of another shape: loading the base again needs
    ``ignore_mismatched_sizes=True``."""
    new_tokens: NewTokens = field(default_factory=NewTokens)
    """What was added to the tokenizer."""


@dataclass(frozen=True)
class Source:
    """Where transformers finds the files."""

    location: str
    """Local folder or Hub id."""
    folder: Path | None
    """``None`` for the Hub."""
    gguf_file: str | None
    base_name: str


def load_model(config: ModelConfig, task: Task) -> LoadedModel:
    """Loads a pretrained model with a head for the task, and its tokenizer.

    New weights are drawn from torch's global generator; seed it before. The model is in
    evaluation mode, on the CPU, with every parameter still trainable.

    Args:
        config: ``name_or_path`` is a Hub id, a local folder, a ``.gguf`` file, or
            ``package:NAME/path`` to either.
        task: Gives the kind of model and its labels.

    Raises:
        ModelError: The model or the tokenizer is missing, damaged, pickled, needs code that
            is not trusted, or does not fit the task. One clear line says which.
    """
    name = config.name_or_path
    check_granted(config)
    source = find_source(config)
    # Only options that are set: some model classes refuse arguments they do not know.
    options: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    if config.revision is not None:
        options["revision"] = config.revision
    if source.gguf_file is not None:
        check_gguf(name)
        options["gguf_file"] = source.gguf_file
    with (
        quiet.others(downloads=source.folder is None),
        hub.asked(source.folder is None),
        translated(name, config.revision),
    ):
        weights = check_asked(source, config.revision, name)
        model_config = AutoConfig.from_pretrained(source.location, **options)
    if config.attn_implementation is None:
        check_attention(model_config, name)
    check_experts(model_config, name)
    stored_labels = dict(getattr(model_config, "id2label", None) or {})
    _check_kind(model_config, task, name, trusted=config.trust_remote_code)
    tokenizer = _load_tokenizer(name, source, options)
    for key, value in task.model_kwargs().items():
        if key != "num_labels":  # a property of the names, which would reset them
            setattr(model_config, key, value)
    if source.gguf_file is not None and GgufConfig is not None:
        # Weights that stay packed can be neither trained nor merged nor saved.
        options["quantization_config"] = GgufConfig(dequantize=True)
    if config.attn_implementation is not None:
        options["attn_implementation"] = config.attn_implementation
    if not config.trust_remote_code:  # code that may do anything needs no config for it
        check_elements(model_config, task.auto_model, weights, name)
    with (
        quiet.others(downloads=source.folder is None),
        hub.asked(source.folder is None),
        translated(name, config.revision),
    ):
        model, info = task.auto_model.from_pretrained(  # type: ignore[attr-defined]
            source.location,
            config=model_config,
            dtype=config.dtype,
            use_safetensors=True,
            output_loading_info=True,
            # A head for other labels is built anew; anything else misshapen is refused below.
            ignore_mismatched_sizes=True,
            **options,
        )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            f'"{name}" is an adapter, not a model. Give the model it was trained on '
            "(base_model_name_or_path in its adapter_config.json)."
        )
    model.eval()
    _check_vocabulary(model, tokenizer, name)
    _align_padding(model, tokenizer, task)
    missing = set(info["missing_keys"]) | {key for key, *_ in info["mismatched_keys"]}
    _check_mismatched(model, info["mismatched_keys"], name)
    new = new_modules(model, missing, name)
    say_new(model, new, name)
    new = add_relabelled(model, new, stored_labels, name)
    added = add_tokens(model, tokenizer, config.add_tokens or [])
    return LoadedModel(
        model,
        tokenizer,
        new,
        source=name,
        base_name=source.base_name,
        resized_head=bool(info["mismatched_keys"]),
        new_tokens=added,
    )


def from_live(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, task: Task
) -> LoadedModel:
    """Takes a model that is already in memory; its head counts as new.

    The model is used as it is and gets the task's label names; the tokenizer is copied, for what
    is set on it (padding) is nothing to whoever gave it. Without a tokenizer, the one stored
    beside the model's weights is loaded.

    Raises:
        ModelError: It is not a transformers model, does not fit the task, already carries
            adapters, or there is no tokenizer.
    """
    if not isinstance(model, PreTrainedModel):
        raise ModelError(
            f"got a {type(model).__name__}, which is not a transformers model. Give a "
            "PreTrainedModel, a Hub id or a path. (A PEFT model: give its base model.)"
        )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            f"this {type(model).__name__} already carries adapters. Give it without them."
        )
    task.check(model)
    name = model.name_or_path or None
    if name is not None and Path(name).exists():
        name = str(Path(name).absolute())
    if tokenizer is None:
        if name is None:
            raise ModelError(
                f"a tokenizer is needed: this {type(model).__name__} does not say which is its own."
            )
        found = find_source(ModelConfig(name_or_path=name))
        tokenizer = _load_tokenizer(name, found, {})
        log.info('tokenizer: loaded from "%s"', name)
    else:
        tokenizer = copy.deepcopy(tokenizer)
    shown = name or type(model).__name__
    _check_vocabulary(model, tokenizer, shown)
    _align_padding(model, tokenizer, task)
    stored = dict(model.config.id2label or {})
    for key, value in task.model_kwargs().items():
        if key != "num_labels":
            setattr(model.config, key, value)
    new = head_modules(model)
    add_relabelled(model, [], stored, shown)
    return LoadedModel(model, tokenizer, new, source=shown, base_name=name)


def find_source(config: ModelConfig) -> Source:
    """Where the files are; refuses what can be refused without reading weights."""
    name = config.name_or_path
    path = paths.resolve(name, error=ModelError)
    if path is None:
        return Source(name, None, config.gguf_file, base_name=name)
    portable = name.startswith(paths.PACKAGE_PREFIX)
    base_name = name if portable else str(path.absolute())
    gguf_file = config.gguf_file
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(
                f'"{name}" is a file. Give the folder of the model (with config.json), '
                "or a .gguf file."
            )
        if gguf_file is not None:
            raise ModelError(f'"{name}" is a GGUF file already; do not set gguf_file as well.')
        path, gguf_file = path.parent, path.name
    elif gguf_file is not None:
        base_name = f"{base_name.rstrip('/')}/{gguf_file}"
    check_folder(path, gguf_file, name)
    return Source(str(path), path, gguf_file, base_name)


def check_asked(source: Source, revision: str | None, name: str) -> Held:
    """Refuses a ``config.json`` that asks for what its weights cannot be, before it is obeyed.

    Args:
        source: Where the files are. Of a GGUF file nothing is asked: it has no config.json.
        revision: Branch, tag or commit on the Hub.
        name: What to call the model in messages.

    Returns:
        What the weights hold, as far as they are on this machine.

    Raises:
        ModelError: It asks for too much, or weights are named that are not read.
    """
    if source.gguf_file is not None:
        return Held()
    chosen = {} if revision is None else {"revision": revision}
    values, _ = PreTrainedConfig.get_config_dict(source.location, **chosen)
    folder = source.folder
    if folder is None:
        index = cached_file(
            *(source.location, INDEX),
            **chosen,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
        if index is not None:
            check_index(Path(index))
        config = try_to_load_from_cache(source.location, "config.json", revision=revision)
        folder = Path(config).parent if isinstance(config, str) else None
    weights = Held() if folder is None else held(folder)
    check_named_weights(values, name)
    check_counts(values, weights, name)
    # On the Hub there may be files that are not fetched yet.
    return weights if source.folder is not None else Held()


def _check_kind(config: PreTrainedConfig, task: Task, name: str, *, trusted: bool) -> None:
    """The model's family needs a class for the task."""
    auto: Any = task.auto_model
    if type(config) in auto._model_mapping:  # noqa: SLF001 transformers 5.23 has no public one
        return
    if trusted and auto.__name__ in (getattr(config, "auto_map", None) or {}):
        return
    kind = task.name.replace("_", " ")
    raise ModelError(
        f'"{name}" is of type "{config.model_type}", for which transformers has no {kind} '
        f"model ({auto.__name__}). Choose a text model such as BERT, RoBERTa, Llama or T5."
    )


def _load_tokenizer(name: str, source: Source, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    with (
        quiet.others(downloads=source.folder is None),
        hub.asked(source.folder is None),
        translated(name, options.get("revision")),
    ):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source.location, **options
        )
    # transformers 5 makes a tokenizer of the special tokens alone when it finds no files.
    if len(tokenizer.get_vocab()) <= len(set(tokenizer.all_special_tokens)):
        raise ModelError(
            f'"{name}" has no tokenizer: there is no tokenizer.json and no vocabulary file. '
            "Save the tokenizer beside the model (tokenizer.save_pretrained)."
        )
    if tokenizer.is_fast and (added := tokenizer.num_special_tokens_to_add()) > _MOST_ADDED:
        raise ModelError(
            f'the tokenizer of "{name}" adds {added:,} tokens to every text, which no model reads. '
            "Mend the post_processor in its tokenizer.json."
        )
    return tokenizer


def _check_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str
) -> None:
    """An id beyond the embedding table would crash in the middle of training."""
    embeddings = model.get_input_embeddings()
    rows = getattr(embeddings, "num_embeddings", None)
    highest = max(tokenizer.get_vocab().values())
    if rows is not None and highest >= rows:
        raise ModelError(
            f'the tokenizer does not fit "{name}": it has token ids up to {highest:,}, and the '
            f"model has embeddings for {rows:,}. Use the tokenizer the model was trained with."
        )


def _align_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task) -> None:
    """Tokenizer and model have to agree on padding.

    The tokenizer is saved beside the adapter and the merged model, where others pad with it: on
    the side where the model's answers stay what they are. A language model is left alone; it
    is asked with padding on the left and trained with padding on the right.

    Classifiers on decoders read the last token that is not ``config.pad_token_id``, whatever
    the attention mask says.
    """
    ensure_pad_token(tokenizer, task.findings)
    if task.supervision != "next_token":
        set_side(tokenizer, side_of(model.config), task.findings)
    text_config = model.config.get_text_config()
    for config in {id(c): c for c in (model.config, text_config)}.values():
        before = getattr(config, "pad_token_id", None)
        if before != tokenizer.pad_token_id:
            config.pad_token_id = tokenizer.pad_token_id
            log.info(
                "model.config.pad_token_id set to %s, the tokenizer's (it was %s)",
                *(tokenizer.pad_token_id, before),
            )


def _check_mismatched(
    model: PreTrainedModel, mismatched: list[tuple[str, Any, Any]], name: str
) -> None:
    """Only the head may have another shape than in the checkpoint."""
    prefix = f"{model.base_model_prefix}."
    wrong = [entry for entry in mismatched if entry[0].startswith(prefix)]
    if wrong:
        key, stored, expected = min(wrong)
        raise ModelError(
            f'the weights of "{name}" do not fit its config.json: {key} is '
            f"{tuple(stored)} in the file and {tuple(expected)} in the model"
            f"{f' (and {len(wrong) - 1} more)' if len(wrong) > 1 else ''}. "
            "The two are not from the same model."
        )
