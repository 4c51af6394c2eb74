"""PEFT's ``AutoPeftModel`` classes: base model and adapter in one call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import transformers

from lorafit.errors import AdapterError
from lorafit.model.asked import Held, check_elements
from lorafit.model.files import check_attention, check_experts, translated
from lorafit.model.load import Source, check_asked
from lorafit.paths import PACKAGE_PREFIX, resolve
from lorafit.peft.config import PeftConfig
from lorafit.peft.model import PeftModel

_HUB = {"cache_dir", "force_download", "local_files_only", "subfolder", "token"}


class AutoPeftModel:
    """Loads the base model that an adapter names, and the adapter on it."""

    auto_class: ClassVar[str | None] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise OSError(f"{type(self).__name__} is made by `{type(self).__name__}.from_pretrained`.")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        adapter_name: str = "default",
        is_trainable: bool = False,
        config: PeftConfig | None = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> PeftModel:
        """Loads base and adapter.

        Args:
            pretrained_model_name_or_path: The adapter, a folder or a Hub id.
            adapter_name: What to call it.
            is_trainable: Leave it trainable.
            config: Use this configuration instead of the saved one.
            revision: The adapter's revision on the Hub.
            **kwargs: Arguments for the base model's ``from_pretrained``. Code that comes with
                the base runs with ``trust_remote_code=True`` only, and a kernel as its attention
                if ``attn_implementation`` names it.

        Raises:
            AdapterError: The adapter does not say what its base is.
            ModelError: The base cannot be loaded, or needs code that was not allowed.
        """
        path = pretrained_model_name_or_path
        hub = {key: kwargs[key] for key in _HUB & kwargs.keys()}
        saved = PeftConfig.from_pretrained(path, revision=revision, **hub)
        if saved.base_model_name_or_path is None:
            raise AdapterError(
                f"{path} does not say what its base model is; load that yourself and call "
                "`PeftModel.from_pretrained`."
            )
        kwargs.pop("subfolder", None)
        base_name = saved.base_model_name_or_path
        if base_name.startswith(PACKAGE_PREFIX):  # which transformers does not know
            base_name = str(resolve(base_name, AdapterError))
        # Without a word of the caller transformers would ask at the terminal.
        trust = {"trust_remote_code": kwargs.pop("trust_remote_code", None) is True}
        found = {"revision": saved.revision} | trust
        with translated(base_name, saved.revision):
            asked = {key: kwargs[key] for key in hub.keys() & kwargs.keys()}
            local, weights = Path(base_name), Held()
            if local.is_dir():
                weights = check_asked(Source(base_name, local, None, base_name), None, base_name)
            own = transformers.AutoConfig.from_pretrained(base_name, **found, **asked)
            if kwargs.get("attn_implementation") is None:
                check_attention(own, base_name)
            check_experts(own, base_name)
            if not trust["trust_remote_code"]:
                check_elements(own, cls._auto(saved), weights, base_name)
            # Pickled weights can run code.
            kwargs.setdefault("use_safetensors", True)
            base = cls._auto(saved).from_pretrained(base_name, **found, **kwargs)
        if (Path(path) / "tokenizer_config.json").is_file():
            # A tokenizer saved along may have got tokens that the base does not have.
            with translated(str(path), revision):
                size = len(transformers.AutoTokenizer.from_pretrained(path, **trust))
            if size > base.get_input_embeddings().weight.shape[0]:
                base.resize_token_embeddings(size)
        return PeftModel.from_pretrained(
            base, path, adapter_name, is_trainable, config, revision=revision, **hub
        )

    @classmethod
    def _auto(cls, saved: PeftConfig) -> Any:
        if cls.auto_class is not None:
            return getattr(transformers, cls.auto_class)
        if saved.task_type is None:
            return transformers.AutoModel
        for kind in cls.__subclasses__():
            if kind.task_type == saved.task_type:  # type: ignore[attr-defined]
                return kind._auto(saved)  # noqa: SLF001 of a subclass
        return transformers.AutoModel


class AutoPeftModelForCausalLM(AutoPeftModel):
    """For causal language models."""

    auto_class, task_type = "AutoModelForCausalLM", "CAUSAL_LM"


class AutoPeftModelForSeq2SeqLM(AutoPeftModel):
    """For sequence-to-sequence language models."""

    auto_class, task_type = "AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM"


class AutoPeftModelForSequenceClassification(AutoPeftModel):
    """For sequence classifiers."""

    auto_class, task_type = "AutoModelForSequenceClassification", "SEQ_CLS"


class AutoPeftModelForTokenClassification(AutoPeftModel):
    """For token classifiers."""

    auto_class, task_type = "AutoModelForTokenClassification", "TOKEN_CLS"


class AutoPeftModelForQuestionAnswering(AutoPeftModel):
    """For extractive question answering."""

    auto_class, task_type = "AutoModelForQuestionAnswering", "QUESTION_ANS"


class AutoPeftModelForFeatureExtraction(AutoPeftModel):
    """For hidden states."""

    auto_class, task_type = "AutoModel", "FEATURE_EXTRACTION"
