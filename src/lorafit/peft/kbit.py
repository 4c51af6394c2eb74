"""PEFT's preparation of quantized models for training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def require_input_grads(model: nn.Module) -> None:
    """Has the input embeddings' output ask for gradients, which reentrant checkpointing needs.

    What transformers' ``enable_input_require_grads`` does, which its
    ``disable_input_require_grads`` takes back.
    """
    if not getattr(model, "_require_grads_hooks", None):
        model.enable_input_require_grads()  # type: ignore[operator]


def make_picklable(model: nn.Module) -> None:
    """Puts a function of this module in the place of the hooks that ask for gradients.

    Those of transformers' ``enable_input_require_grads`` are local functions, with which no model
    can be pickled or sent to another process.
    """
    for handle in getattr(model, "_require_grads_hooks", []):
        hooks = handle.hooks_dict_ref()
        if hooks is not None and handle.id in hooks:
            hooks[handle.id] = _ask_for_gradients


def _ask_for_gradients(module: nn.Module, args: Any, output: torch.Tensor) -> None:
    output.requires_grad_(True)


def prepare_model_for_kbit_training(
    model: nn.Module,
    use_gradient_checkpointing: bool = True,
    gradient_checkpointing_kwargs: dict[str, Any] | None = None,
    auto_clear_cache: bool = True,
) -> nn.Module:
    """Freezes the model, keeps its small layers in float32, and saves memory.

    Args:
        model: A transformers model, quantized or not.
        use_gradient_checkpointing: For quantized models: recompute activations in the
            backward pass.
        gradient_checkpointing_kwargs: Passed on to transformers.
        auto_clear_cache: Give memory freed by the casts back to the GPU.

    Returns:
        The same model.
    """
    settings = gradient_checkpointing_kwargs or {}
    quantized = bool(getattr(model, "is_quantized", False)) or any(
        getattr(model, f"is_loaded_in_{bits}bit", False) for bits in (4, 8)
    )
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        half = parameter.dtype in (torch.float16, torch.bfloat16)
        if half and type(parameter).__name__ != "Params4bit":
            parameter.data = parameter.data.float()
    if auto_clear_cache and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if quantized and use_gradient_checkpointing:
        if settings.get("use_reentrant", True):
            require_input_grads(model)
        model.gradient_checkpointing_enable(  # type: ignore[operator]
            gradient_checkpointing_kwargs=settings
        )
    return model
