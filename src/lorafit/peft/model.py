"""PEFT's ``PeftModel`` over our adapters, so that an existing script runs unchanged."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils.hub import PushToHubMixin
from transformers.utils.import_utils import is_peft_available

from lorafit.errors import AdapterError, ConfigError, did_you_mean
from lorafit.export import peft as on_disk
from lorafit.export.peft import SaveEmbeddings
from lorafit.peft import card, status
from lorafit.peft.config import LoraConfig, PeftConfig, PeftType, TaskType
from lorafit.peft.kbit import make_picklable, require_input_grads
from lorafit.peft.state import LoadResult, get_peft_model_state_dict
from lorafit.peft.trainer import ForwardOfBase, LooksLikePeft, save_tied_weights_once
from lorafit.peft.tuner import LoraModel, with_targets

log = logging.getLogger(__name__)

_HUB = {"cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token"}


class PeftModel(LooksLikePeft, PushToHubMixin, nn.Module):
    """A model with adapters.

    Args:
        model: The base model; its layers are wrapped in place.
        peft_config: The first adapter's configuration.
        adapter_name: The first adapter's name.
        autocast_adapter_dtype: Accepted for PEFT's sake: adapters are always float32.
        low_cpu_mem_usage: Accepted for PEFT's sake, without effect.

    Attributes:
        base_model: The `LoraModel`; the adapted model is ``base_model.model``.
    """

    head_names: ClassVar[tuple[str, ...]] = ()
    """Modules of the task's head, trained and saved with every adapter where they exist."""

    base_model: LoraModel

    def __init__(
        self,
        model: nn.Module,
        peft_config: LoraConfig,
        adapter_name: str = "default",
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
    ) -> None:
        self._wrap(model)
        self.add_adapter(adapter_name, peft_config)

    def _wrap(self, model: nn.Module) -> None:
        """Sets the module up without an adapter."""
        super().__init__()
        self.base_model = LoraModel(model)
        self.peft_type = PeftType.LORA
        if not is_peft_available():
            save_tied_weights_once(self)
        if getattr(model, "is_activation_checkpointing", False):
            # Reentrant checkpointing drops gradients unless its input asks for them.
            require_input_grads(model)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """For pickle and copy, of models with gradient checkpointing too."""
        make_picklable(self.get_base_model())
        return super().__reduce_ex__(protocol)

    # Looking ---------------------------------------------------------------------------

    @property
    def peft_config(self) -> dict[str, LoraConfig]:
        """The configurations by adapter name."""
        return self.base_model.peft_config

    @property
    def active_adapters(self) -> list[str]:
        """Names of the active adapters."""
        return self.base_model.active_adapters

    @property
    def active_adapter(self) -> str | list[str]:
        """The name if there is one active adapter, else the list."""
        return self.base_model.active_adapter

    @property
    def active_peft_config(self) -> LoraConfig:
        """The configuration of the (first) active adapter."""
        self._check_there("ask for its configuration")
        return self.peft_config[self.active_adapters[0]]

    @property
    def has_active_enabled_adapter(self) -> bool:
        """Whether an adapter takes part in the forward pass."""
        return bool(self.active_adapters) and not self.base_model.is_disabled

    @property
    def modules_to_save(self) -> set[str] | None:
        """Names of the modules that adapters train whole."""
        return {n for c in self.peft_config.values() for n in c.modules_to_save or ()} or None

    @property
    def base_model_torch_dtype(self) -> torch.dtype | None:
        """The base model's number format."""
        return getattr(self.get_base_model(), "dtype", None)

    def get_base_model(self) -> nn.Module:
        """The adapted model inside the wrappers."""
        return self.base_model.model

    def __getattr__(self, name: str) -> Any:
        """Forwards what is missing to `LoraModel`, which forwards to the model."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_model":  # not there yet while a copy is being built
                raise
            return getattr(self.base_model, name)

    def get_nb_trainable_parameters(self) -> tuple[int, int]:
        """Numbers of trainable and of all parameters."""
        parameters = list(self.parameters())
        return sum(p.numel() for p in parameters if p.requires_grad), sum(
            p.numel() for p in parameters
        )

    def print_trainable_parameters(self) -> None:
        """Prints the numbers of trainable and of all parameters."""
        trainable, total = self.get_nb_trainable_parameters()
        print(  # noqa: T201 as PEFT does
            f"trainable params: {trainable:,d} || all params: {total:,d} || "
            f"trainable%: {100 * trainable / total:.4f}"
        )

    def get_layer_status(self) -> list[status.TunerLayerStatus]:
        """The state of each adapted layer."""
        return status.get_layer_status(self)

    def get_model_status(self) -> status.TunerModelStatus:
        """The state of the adapters as a whole."""
        return status.get_model_status(self)

    # Running ---------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the adapted model."""
        return self.base_model(*args, **kwargs)

    if not is_peft_available():
        forward = ForwardOfBase(forward)  # type: ignore[assignment]

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Generates with the adapted model."""
        return self.base_model.generate(*args, **kwargs)

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """While open, the model computes what the base model computes, bit for bit."""
        adapters = self.base_model.adapters
        if self.base_model.is_disabled:
            yield
            return
        with adapters.disabled():
            yield

    # Adapters --------------------------------------------------------------------------

    def add_adapter(
        self,
        adapter_name: str,
        peft_config: LoraConfig,
        low_cpu_mem_usage: bool = False,
        autocast_adapter_dtype: bool = True,
    ) -> None:
        """Adds an untrained adapter; only the first one becomes active by it.

        Raises:
            TargetError: A name in the configuration matches nothing in the model.
            AdapterError: The name is taken.
        """
        if not isinstance(peft_config, LoraConfig):
            raise ConfigError(
                f"lorafit.peft takes its own LoraConfig, got {type(peft_config).__module__}."
                f"{type(peft_config).__name__}; change that import as well."
            )
        self.base_model.add(self._with_head(peft_config), adapter_name)

    def _with_head(self, config: LoraConfig) -> LoraConfig:
        """PEFT's rule: the head modules are those whose path ends with one of the names."""
        paths = self.base_model.adapters.paths
        there = [name for name in self.head_names if any(p.endswith(name) for p in paths)]
        if self.head_names and not there:
            log.warning(
                "%s has no module called %s, so no head is trained; name it in modules_to_save.",
                type(self.get_base_model()).__name__,
                " or ".join(self.head_names),
            )
        names = list(dict.fromkeys([*(config.modules_to_save or []), *there]))
        return config.model_copy(update={"modules_to_save": names}) if there else config

    def set_adapter(self, adapter_name: str, inference_mode: bool = False) -> None:
        """Makes one adapter active, and trainable unless ``inference_mode``."""
        self.base_model.set_adapter(adapter_name, inference_mode=inference_mode)

    def set_requires_grad(
        self, adapter_names: str | Sequence[str], requires_grad: bool = True
    ) -> None:
        """Makes all parameters of adapters trainable, or freezes them."""
        self.base_model.set_requires_grad(adapter_names, requires_grad)

    def delete_adapter(self, adapter_name: str) -> None:
        """Forgets an adapter. If it was active, the first one left becomes active."""
        self.base_model.delete_adapter(adapter_name)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Whether the adapter is an additive change of weights: always."""
        return True

    # Saving and loading ----------------------------------------------------------------

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        safe_serialization: bool = True,
        selected_adapters: list[str] | None = None,
        save_embedding_layers: SaveEmbeddings = "auto",
        is_main_process: bool = True,
        path_initial_model_for_weight_conversion: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes the adapters: ``default`` into the folder, others into subfolders.

        ``path_initial_model_for_weight_conversion`` is accepted without effect: PiSSA and
        OLoRA adapters are always written in a form that fits the unmodified base.

        Raises:
            ConfigError: Pickled files are asked for.
            AdapterError: An adapter is unknown, or the folder cannot be written.
        """
        if not safe_serialization:
            raise ConfigError("safe_serialization=False: lorafit writes safetensors only.")
        self._check_there("save")
        names = list(self.peft_config) if selected_adapters is None else selected_adapters
        for name in names:
            if name not in self.peft_config:
                raise AdapterError(
                    f'there is no adapter "{name}"; there is {", ".join(self.peft_config)}.'
                    f"{did_you_mean(name, self.peft_config)}"
                )
        if not is_main_process:
            return
        for name in names:
            folder = Path(save_directory) / ("" if name == "default" else name)
            tensors = get_peft_model_state_dict(
                self,
                kwargs.get("state_dict"),
                adapter_name=name,
                save_embedding_layers=save_embedding_layers,
            )
            on_disk.save(self.base_model.adapters, folder, name, tensors=tensors)
        self.create_or_update_model_card(save_directory)

    def _check_there(self, what: str) -> None:
        """Refuses to do something with adapters where none are left."""
        if not self.peft_config:
            raise AdapterError(
                f"there is no adapter left to {what}: all have been unloaded or deleted. The plain "
                "model is what `merge_and_unload` or `unload` returned; save that one, with its "
                "own `save_pretrained`."
            )

    def create_or_update_model_card(self, output_dir: str | os.PathLike[str]) -> None:
        """Notes the base model and the tags that the Hub reads in ``README.md``."""
        base = self.active_peft_config.base_model_name_or_path if self.active_adapters else None
        transformers = isinstance(self.base_model.adapters.model, PreTrainedModel)
        card.write(Path(output_dir), base, transformers)

    @classmethod
    def from_pretrained(
        cls,
        model: nn.Module,
        model_id: str | os.PathLike[str],
        adapter_name: str = "default",
        is_trainable: bool = False,
        config: PeftConfig | None = None,
        autocast_adapter_dtype: bool = True,
        ephemeral_gpu_offload: bool = False,
        low_cpu_mem_usage: bool = False,
        key_mapping: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Puts a saved adapter on a base model. Strict: every tensor has to fit.

        Args:
            model: The base model; its layers are wrapped in place.
            model_id: A folder or a Hub id.
            adapter_name: What to call the adapter.
            is_trainable: Leave it trainable; otherwise it is frozen, in evaluation mode.
            config: Use this configuration instead of the saved one.
            autocast_adapter_dtype: Adapters are always float32.
            ephemeral_gpu_offload: Not supported, has to be off.
            low_cpu_mem_usage: Without effect.
            key_mapping: Not supported, has to be empty.
            **kwargs: ``subfolder`` and arguments for the Hub.

        Raises:
            AdapterError: The adapter is missing, damaged, or of another base model; the
                model is then as before.
        """
        task = (config or PeftConfig.from_pretrained(model_id, **kwargs)).task_type
        target = _MODELS.get(task, PeftModel) if task else cls
        wrapped = target.__new__(target)
        wrapped._wrap(model)  # noqa: SLF001 of this class
        wrapped.load_adapter(
            model_id,
            adapter_name,
            is_trainable=is_trainable,
            ephemeral_gpu_offload=ephemeral_gpu_offload,
            key_mapping=key_mapping,
            config=config,
            **kwargs,
        )
        return wrapped  # type: ignore[return-value]

    def load_adapter(
        self,
        model_id: str | os.PathLike[str],
        adapter_name: str,
        is_trainable: bool = False,
        torch_device: str | None = None,
        autocast_adapter_dtype: bool = True,
        ephemeral_gpu_offload: bool = False,
        low_cpu_mem_usage: bool = False,
        key_mapping: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> LoadResult:
        """Loads a saved adapter, as a new one or into the one of this name.

        Into one that is there go the tensors and the scale of the file (``lora_alpha``), so
        that it computes what was saved; what only concerns training, such as dropout, stays.
        A new adapter is not made active (unless it is the first). The tensors go where
        the layers are, whatever ``torch_device`` says.

        Returns:
            What did not match: nothing, for loading is strict.

        Raises:
            AdapterError: The adapter is missing, damaged, or does not fit; or an adapter is
                merged.
        """
        if ephemeral_gpu_offload or key_mapping:
            raise ConfigError(
                "ephemeral_gpu_offload and key_mapping: lorafit does not have these PEFT options."
            )
        hub = {key: value for key, value in kwargs.items() if key in _HUB and value is not None}
        folder = on_disk.locate(model_id, **hub)
        source = str(model_id)
        tensors = on_disk.read_tensors(folder, source=source)
        adapters = self.base_model.adapters
        if adapter_name in self.peft_config:
            saved = kwargs.get("config") or PeftConfig.from_pretrained(model_id, **hub)
            assert isinstance(saved, LoraConfig)
            on_disk.update(adapters, tensors, adapter_name, source=source, saved=saved)
        else:
            config = self._given(kwargs.get("config")) or PeftConfig.from_pretrained(
                model_id, **hub
            )
            assert isinstance(config, LoraConfig)
            config = config.model_copy(update={"inference_mode": not is_trainable})
            on_disk.attach(adapters, config, tensors, adapter_name, source=source)
            self.base_model._publish()  # noqa: SLF001 PEFT has no such name
            if is_trainable:
                self.set_requires_grad(adapter_name)
        if not is_trainable:
            self.eval()
        return LoadResult([], [])

    def _given(self, config: LoraConfig | None) -> LoraConfig | None:
        """A configuration to load with, filled in as when an adapter is made."""
        if config is None:
            return None
        tuner = self.base_model
        sites = tuner._sites  # noqa: SLF001 PEFT has no such name
        return self._with_head(with_targets(config, tuner.adapters.model, sites))


class PeftModelForSequenceClassification(PeftModel):
    """A sequence classifier; its head is trained and saved with every adapter."""

    head_names = ("classifier", "score")


class PeftModelForTokenClassification(PeftModel):
    """A token classifier; its head is trained and saved with every adapter."""

    head_names = ("classifier", "score")


class PeftModelForQuestionAnswering(PeftModel):
    """An extractive question answerer; its head is trained and saved with every adapter."""

    head_names = ("qa_outputs",)


class PeftModelForCausalLM(PeftModel):
    """A causal language model."""


class PeftModelForSeq2SeqLM(PeftModel):
    """A sequence-to-sequence language model."""


class PeftModelForFeatureExtraction(PeftModel):
    """A model whose hidden states are used."""


_MODELS: dict[str, type[PeftModel]] = {
    TaskType.SEQ_CLS: PeftModelForSequenceClassification,
    TaskType.SEQ_2_SEQ_LM: PeftModelForSeq2SeqLM,
    TaskType.CAUSAL_LM: PeftModelForCausalLM,
    TaskType.TOKEN_CLS: PeftModelForTokenClassification,
    TaskType.QUESTION_ANS: PeftModelForQuestionAnswering,
    TaskType.FEATURE_EXTRACTION: PeftModelForFeatureExtraction,
}
MODEL_TYPE_TO_PEFT_MODEL_MAPPING = _MODELS
