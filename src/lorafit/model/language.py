"""The base model's own language-modelling head, where its files have one."""

from __future__ import annotations

import logging
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedModel,
)

from lorafit import quiet

log = logging.getLogger(__name__)


def load_language_model(
    source: str, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedModel | None:
    """Loads a model with its masked or causal head.

    Args:
        source: Hub id or local folder.
        revision: Branch, tag or commit on the Hub.
        trust_remote_code: Whether code of the model may run.

    Returns:
        The model in evaluation mode, float32; ``None`` if its files have no such head.
    """
    options = {"revision": revision} if revision is not None else {}
    try:
        with quiet.others():
            config = AutoConfig.from_pretrained(
                source, trust_remote_code=trust_remote_code, **options
            )
            auto: Any
            masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING
            if masked and not getattr(config, "is_decoder", False):
                auto = AutoModelForMaskedLM
            elif type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
                auto = AutoModelForCausalLM
            else:
                return None
            model, info = auto.from_pretrained(
                source,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                trust_remote_code=trust_remote_code,
                **options,
            )
    except (OSError, ValueError) as error:
        log.info("no language-modelling head was read from %s: %s", source, error)
        return None
    if info["missing_keys"] or info["mismatched_keys"]:
        return None
    loaded: PreTrainedModel = model.eval()
    return loaded
