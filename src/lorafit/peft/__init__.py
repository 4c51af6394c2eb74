"""PEFT's names over lorafit: change the import line of an existing script.

``from lorafit.peft import LoraConfig, TaskType, get_peft_model`` instead of ``from peft
import ...``. Attribute names in memory, files on disk and printed text are PEFT's.

Where we differ: a target, pattern or head that matches nothing is an error; loading is
strict; adapters are always float32; unmerging and disabling restore the base bit for
bit; adapters of PiSSA and OLoRA leave the base alone and are saved as ordinary LoRA; a
configuration is copied and never changed (``model.peft_config`` has what was filled in).
"""

import sys
from typing import Any

from lorafit.methods.base import AdapterLayer as BaseTunerLayer
from lorafit.methods.base import ModulesToSaveWrapper
from lorafit.methods.lora import LoraLayer
from lorafit.peft.auto import (
    AutoPeftModel,
    AutoPeftModelForCausalLM,
    AutoPeftModelForFeatureExtraction,
    AutoPeftModelForQuestionAnswering,
    AutoPeftModelForSeq2SeqLM,
    AutoPeftModelForSequenceClassification,
    AutoPeftModelForTokenClassification,
)
from lorafit.peft.config import LoraConfig, PeftConfig, PeftType, TaskType, get_peft_config
from lorafit.peft.kbit import prepare_model_for_kbit_training
from lorafit.peft.make import get_peft_model, inject_adapter_in_model
from lorafit.peft.model import (
    MODEL_TYPE_TO_PEFT_MODEL_MAPPING,
    PeftModel,
    PeftModelForCausalLM,
    PeftModelForFeatureExtraction,
    PeftModelForQuestionAnswering,
    PeftModelForSeq2SeqLM,
    PeftModelForSequenceClassification,
    PeftModelForTokenClassification,
)
from lorafit.peft.state import (
    get_base_model_state_dict,
    get_peft_model_state_dict,
    set_base_model_state_dict,
    set_peft_model_state_dict,
)
from lorafit.peft.status import (
    TunerLayerStatus,
    TunerModelStatus,
    get_layer_status,
    get_model_status,
)
from lorafit.peft.tuner import LoraModel

__all__ = [
    "MODEL_TYPE_TO_PEFT_MODEL_MAPPING",
    "AutoPeftModel",
    "AutoPeftModelForCausalLM",
    "AutoPeftModelForFeatureExtraction",
    "AutoPeftModelForQuestionAnswering",
    "AutoPeftModelForSeq2SeqLM",
    "AutoPeftModelForSequenceClassification",
    "AutoPeftModelForTokenClassification",
    "BaseTunerLayer",
    "LoraConfig",
    "LoraLayer",
    "LoraModel",
    "ModulesToSaveWrapper",
    "PeftConfig",
    "PeftModel",
    "PeftModelForCausalLM",
    "PeftModelForFeatureExtraction",
    "PeftModelForQuestionAnswering",
    "PeftModelForSeq2SeqLM",
    "PeftModelForSequenceClassification",
    "PeftModelForTokenClassification",
    "PeftType",
    "TaskType",
    "TunerLayerStatus",
    "TunerModelStatus",
    "get_base_model_state_dict",
    "get_layer_status",
    "get_model_status",
    "get_peft_config",
    "get_peft_model",
    "get_peft_model_state_dict",
    "inject_adapter_in_model",
    "prepare_model_for_kbit_training",
    "set_base_model_state_dict",
    "set_peft_model_state_dict",
]


def __dir__() -> list[str]:
    """PEFT's names that are here, and nothing that only happens to be imported."""
    return sorted([*__all__, "__doc__"])


def __getattr__(name: str) -> Any:
    """Says of PEFT's other names that they are not here."""
    if not name[:1].isupper():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    sentence = (
        f"lorafit.peft has no {name}: it has PEFT's LoRA (with rsLoRA, DoRA, PiSSA, OLoRA). "
        f"Import {name} from peft if you need it, with everything that goes with it."
    )
    # `from lorafit.peft import X` asks `hasattr` from within the import system, and would then
    # say on its own only that there is no X.
    asker = sys._getframe(1)  # noqa: SLF001 of CPython 3.11 and later
    if asker.f_code.co_name == "_handle_fromlist":
        raise ImportError(sentence, name=__name__)
    raise AttributeError(sentence, name=name)
