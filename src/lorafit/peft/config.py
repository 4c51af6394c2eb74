"""PEFT's configuration classes over our `LoraConfig`."""

from __future__ import annotations

import dataclasses
import json
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError, model_validator

from lorafit.errors import AdapterError, ConfigError, did_you_mean
from lorafit.export import peft as on_disk
from lorafit.export.folder import staged
from lorafit.export.peft_config import CONFIG_FILE
from lorafit.methods import lora
from lorafit.methods.base import MethodConfig

# LoRA options of PEFT 0.21 that lorafit does not have, with the values that mean "off".
# A script that spells them out at these values runs; any other value is refused.
_OFF: dict[str, tuple[Any, ...]] = {
    "alora_invocation_tokens": (None,),
    "arrow_config": (None,),
    "auto_mapping": (None,),
    "corda_config": (None,),
    "ensure_weight_tying": (False,),
    "eva_config": (None,),
    "kasa_config": (None,),
    "layer_replication": (None,),
    "loftq_config": ({}, None),
    "lora_bias": (False,),
    "lora_ga_config": (None,),
    "megatron_config": (None,),
    "megatron_core": ("megatron.core", None),
    "monteclora_config": (None,),
    "peft_version": (),
    "qalora_group_size": (16,),
    "runtime_config": (None,),
    "use_bdlora": (None,),
    "use_qalora": (False,),
    "velora_config": (None,),
}


class TaskType(StrEnum):
    """What the model is for; decides which heads are trained with the adapter."""

    SEQ_CLS = "SEQ_CLS"
    SEQ_2_SEQ_LM = "SEQ_2_SEQ_LM"
    CAUSAL_LM = "CAUSAL_LM"
    TOKEN_CLS = "TOKEN_CLS"
    QUESTION_ANS = "QUESTION_ANS"
    FEATURE_EXTRACTION = "FEATURE_EXTRACTION"


class PeftType(StrEnum):
    """The methods this module has."""

    LORA = "LORA"


class PeftConfig(MethodConfig):
    """What all adapter configurations have; ``from_pretrained`` gives the right subclass."""

    peft_type: PeftType = PeftType.LORA
    task_type: TaskType | None = None

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _readable(type(self), error) from None

    @property
    def is_prompt_learning(self) -> bool:
        """Whether this is a prompt-learning method: no."""
        return False

    @property
    def is_adaption_prompt(self) -> bool:
        """Whether this is LLaMA-Adapter: no."""
        return False

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> PeftConfig:
        """Reads the configuration of a saved adapter, local or on the Hub.

        Raises:
            AdapterError: There is none, or it is not LoRA.
        """
        hub = {k: v for k, v in kwargs.items() if k in _HUB_ARGUMENTS and v is not None}
        config = on_disk.read_config(pretrained_model_name_or_path, **hub)
        if config.peft_type != "LORA":
            raise AdapterError(
                f"{pretrained_model_name_or_path} is not a LoRA adapter: its peft_type is "
                f"{config.peft_type}. lorafit.load reads it where lorafit made it."
            )
        return LoraConfig(**config.model_dump(exclude={"peft_type"}, exclude_unset=True))

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        # PEFT's configurations are dataclasses: `replace`, `asdict` and `fields` work on these.
        super().__pydantic_init_subclass__(**kwargs)
        fields = [(name, Any, dataclasses.field(default=None)) for name in cls.model_fields]
        made = dataclasses.make_dataclass(cls.__name__, fields)
        cls.__dataclass_fields__ = made.__dataclass_fields__  # type: ignore[attr-defined]

    def to_dict(self) -> dict[str, Any]:
        """The settings as a dictionary."""
        return self.model_dump()

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Writes ``adapter_config.json``."""
        values = self.model_dump(mode="json")
        for key, value in values.items():
            if isinstance(getattr(self, key), set):
                values[key] = sorted(value)
        with staged(save_directory) as stage:
            text = json.dumps(values, indent=2, sort_keys=True) + "\n"
            (Path(stage) / CONFIG_FILE).write_text(text, encoding="utf-8")


class LoraConfig(lora.LoraConfig, PeftConfig):
    """PEFT's ``LoraConfig``: same names, same defaults.

    PEFT options outside of plain LoRA, rsLoRA and DoRA are accepted while they are off.

    Raises:
        ConfigError: An option is unknown, not supported, or has a wrong value.
    """

    # Again, because pydantic takes a field from the first base that has it.
    peft_type: PeftType = PeftType.LORA
    task_type: TaskType | None = None

    if TYPE_CHECKING:
        # Lists, strings for the enums, PEFT's options that are off: the validators know better
        # than a type checker, which sees the fields as they are afterwards.
        def __init__(self, **settings: Any) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _without_unsupported(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        kept = {}
        for key, value in values.items():
            if key not in _OFF:
                kept[key] = value
            elif _OFF[key] and not any(value == off for off in _OFF[key]):
                raise ConfigError(
                    f"{key}={value!r}: lorafit does not have this PEFT option; leave it out."
                )
        for key in ("target_modules", "exclude_modules"):
            if isinstance(kept.get(key), tuple):
                kept[key] = set(kept[key])
        return kept

    @model_validator(mode="after")
    def _index_rules(self) -> Self:
        if isinstance(self.target_modules, str) and self.target_modules != "all-linear":
            for setting in ("layers_to_transform", "layers_pattern"):
                if getattr(self, setting) is not None:
                    raise ConfigError(f"{setting} cannot be used when target_modules is a string.")
        if self.layers_pattern and self.layers_to_transform is None:
            raise ConfigError("layers_pattern needs layers_to_transform as well.")
        return self


_HUB_ARGUMENTS = {
    "cache_dir",
    "force_download",
    "local_files_only",
    "revision",
    "subfolder",
    "token",
}


def get_peft_config(config_dict: dict[str, Any]) -> LoraConfig:
    """Makes a configuration of a dictionary with ``peft_type``.

    Raises:
        AdapterError: The type is not LoRA.
    """
    if config_dict.get("peft_type") != "LORA":
        raise AdapterError(f'peft_type "{config_dict.get("peft_type")}": lorafit.peft has LORA.')
    return LoraConfig(**config_dict)


def _readable(cls: type[MethodConfig], error: ValidationError) -> ConfigError:
    """Pydantic's findings as one line each, with the close name for an unknown one."""
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"][:1]) or cls.__name__
        if problem["type"] == "extra_forbidden":
            hint = did_you_mean(name, cls.model_fields)
            lines.append(f"{cls.__name__} has no setting {name}.{hint}")
        elif isinstance(cause := problem.get("ctx", {}).get("error"), ConfigError):
            lines.append(str(cause))
        else:
            lines.append(f"{name}={problem.get('input')!r}: {problem['msg']}")
    return ConfigError("\n".join(dict.fromkeys(lines)))
