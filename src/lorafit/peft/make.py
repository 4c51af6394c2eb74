"""How adapters come onto a model: wrapped as a `PeftModel`, or in place."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from lorafit.errors import ConfigError
from lorafit.peft import tuner
from lorafit.peft.config import LoraConfig
from lorafit.peft.model import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, PeftModel


def get_peft_model(
    model: nn.Module,
    peft_config: LoraConfig,
    adapter_name: str = "default",
    mixed: bool = False,
    autocast_adapter_dtype: bool = True,
    revision: str | None = None,
    low_cpu_mem_usage: bool = False,
) -> PeftModel:
    """Wraps a model for training with an adapter; the model is changed in place.

    The configuration is copied, so that it fits a second model as well; what was filled in
    (the layers, the head, the name of the base) is in the ``peft_config`` of what is returned.

    Raises:
        TargetError: A name in the configuration matches nothing in the model.
        AdapterError: The model has adapters already.
    """
    if mixed:
        raise ConfigError("mixed=True: lorafit.peft has LoRA only, there is nothing to mix.")
    if isinstance(peft_config, LoraConfig):
        source = getattr(model, "_orig_mod", model).__dict__.get("name_or_path") or None
        before = peft_config.base_model_name_or_path
        if before is not None and before != source:
            warnings.warn(
                f"The PEFT config's `base_model_name_or_path` was renamed from '{before}' to "
                f"'{source}'. Please ensure that the correct base model is loaded when loading "
                "this checkpoint.",
                stacklevel=2,
            )
        update: dict[str, object] = {"base_model_name_or_path": source}
        if revision is not None:
            update["revision"] = revision
        peft_config = peft_config.model_copy(update=update, deep=True)
    task = getattr(peft_config, "task_type", None)
    return MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(str(task), PeftModel)(
        model, peft_config, adapter_name
    )


def inject_adapter_in_model(
    peft_config: LoraConfig,
    model: nn.Module,
    adapter_name: str = "default",
    low_cpu_mem_usage: bool = False,
    state_dict: dict[str, torch.Tensor] | None = None,
) -> nn.Module:
    """Adds an adapter to a model in place, without wrapping the model.

    Args:
        peft_config: The adapter's configuration.
        model: The model.
        adapter_name: The adapter's name.
        low_cpu_mem_usage: Without effect.
        state_dict: Not supported, has to be ``None``.

    Returns:
        The same model.
    """
    if state_dict is not None:
        raise ConfigError("state_dict: name the layers in target_modules instead.")
    tuner.inject(peft_config, model, adapter_name)
    return model
