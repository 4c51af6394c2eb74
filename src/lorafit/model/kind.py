"""What kind of model a name stands for, from its config alone."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
)

from lorafit import hub, quiet
from lorafit.config import ModelConfig
from lorafit.model.files import translated
from lorafit.model.load import check_asked, find_source
from lorafit.tasks.base import ModelKind
from lorafit.trust import check_granted


def kind_of_model(model: PreTrainedModel | ModelConfig) -> ModelKind:
    """Reads the kind off a live model, or off the config of one that is not loaded yet.

    Raises:
        ModelError: There is no such model.
    """
    if isinstance(model, PreTrainedModel):
        return _kind(model.config)
    check_granted(model)
    source = find_source(model)
    options: dict[str, Any] = {"trust_remote_code": model.trust_remote_code}
    if model.revision is not None:
        options["revision"] = model.revision
    if source.gguf_file is not None:
        options["gguf_file"] = source.gguf_file
    with (
        quiet.others(downloads=source.folder is None),
        hub.asked(source.folder is None),
        translated(model.name_or_path, model.revision),
    ):
        check_asked(source, model.revision, model.name_or_path)
        return _kind(AutoConfig.from_pretrained(source.location, **options))


def _kind(config: PreTrainedConfig) -> ModelKind:
    both = bool(getattr(config, "is_encoder_decoder", False))
    # BERT has a class that goes on with a text, but was trained to fill gaps.
    alone = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    fills_gaps = type(config) in MODEL_FOR_MASKED_LM_MAPPING
    return ModelKind(
        config.model_type, generates=alone and not fills_gaps and not both, encoder_decoder=both
    )
