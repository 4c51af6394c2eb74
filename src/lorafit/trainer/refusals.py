"""Why a Trainer's steps have to run as the parent runs them, as far as it can be seen."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn
from transformers.training_args import OptimizerNames

from lorafit.engine.support import Unsupported

_OVERRIDES = (
    "compute_loss",
    "compute_loss_context_manager",
    "autocast_smart_context_manager",
    "_prepare_inputs",
    "_prepare_input",
)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def base_model_of(model: nn.Module) -> nn.Module:
    """The transformers model inside a ``PeftModel``, or the model itself."""
    inner: Any = getattr(model, "get_base_model", None)
    base = inner() if callable(inner) else model
    return base if isinstance(base, nn.Module) else model


def check_trainer(trainer: Any, model: nn.Module) -> None:
    """Settings and overrides that want more than a forward and a backward pass.

    Args:
        trainer: A ``transformers.Trainer``.
        model: What its loop calls.

    Raises:
        Unsupported: There is one.
    """
    args, accelerator = trainer.args, trainer.accelerator
    if not trainer.skips_compute_loss:
        for name in _OVERRIDES:
            own = getattr(transformers.Trainer, name)
            if name in vars(trainer) or getattr(type(trainer), name) is not own:
                raise Unsupported(f"{type(trainer).__name__} overrides {name}")
    if trainer.compute_loss_func is not None:
        raise Unsupported("compute_loss_func is set")
    if trainer.label_smoother is not None:
        raise Unsupported("label smoothing is on")
    if trainer.label_names != ["labels"]:
        raise Unsupported(f"the labels are called {', '.join(trainer.label_names) or 'nothing'}")
    if args.deepspeed is not None or trainer.is_deepspeed_enabled:
        raise Unsupported("DeepSpeed is on")
    if args.fsdp or trainer.is_fsdp_enabled:
        raise Unsupported("FSDP is on")
    if accelerator.num_processes > 1 or args.world_size > 1:
        raise Unsupported(f"there are {max(accelerator.num_processes, args.world_size)} processes")
    if getattr(accelerator, "parallelism_config", None) is not None:
        raise Unsupported("a parallelism_config is set")
    if args.device.type != "cpu":
        raise Unsupported(f"lorafit's engines compute on the CPU, and there is {args.device}")
    if accelerator.mixed_precision not in ("no", "bf16"):
        raise Unsupported(f"mixed precision is {accelerator.mixed_precision}")
    if args.bf16_full_eval or args.fp16_full_eval:
        raise Unsupported("bf16_full_eval or fp16_full_eval is on")
    if getattr(args, "use_liger_kernel", False):
        raise Unsupported("use_liger_kernel is on")
    if args.optim in (OptimizerNames.LOMO, OptimizerNames.ADALOMO):
        raise Unsupported(f"{args.optim.value} runs in the backward pass")
    if model is not trainer.model:
        raise Unsupported(f"the model is wrapped in {type(model).__name__}")
    if args.torch_compile or hasattr(model, "_orig_mod"):
        raise Unsupported("the model is compiled")


def check_model(model: nn.Module) -> None:
    """What the engines would pass by without seeing it.

    Args:
        model: A transformers model, or a ``PeftModel`` around one.

    Raises:
        Unsupported: There is something.
    """
    configs: Any = getattr(model, "peft_config", None)
    for config in configs.values() if isinstance(configs, dict) else ():
        if getattr(config, "is_prompt_learning", False):
            raise Unsupported(f"{config.peft_type.value} trains virtual tokens")
    base: Any = base_model_of(model)
    if getattr(base, "is_quantized", False) or getattr(base, "quantization_method", None):
        raise Unsupported("the model is quantized")
    for module in model.modules():
        own = vars(module)
        name = type(module).__name__
        if any(own.get(kind) for kind in _HOOKS):
            raise Unsupported(f"a {name} has hooks")
        if own.get("parametrizations") or "parametrizations" in own["_modules"]:
            raise Unsupported(f"a {name} has parametrizations")
        # accelerate wraps the outermost one for mixed precision, and notes that.
        if "forward" in own and not (module is model and "_original_forward" in own):
            raise Unsupported(f"the forward of a {name} was replaced")
        if own.get("merged_adapters"):
            raise Unsupported("an adapter is merged")
        if getattr(module, "gradient_checkpointing", False):
            raise Unsupported("gradient checkpointing is on")
    for path, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype not in (torch.float32, torch.bfloat16):
            raise Unsupported(f"{path} is {parameter.dtype}")
        if not parameter.is_floating_point() or type(parameter) is not nn.Parameter:
            raise Unsupported(f"{path} is a {type(parameter).__name__} of {parameter.dtype}")
        hooks: Any = parameter
        if hooks._backward_hooks or hooks._post_accumulate_grad_hooks:  # noqa: SLF001 no other way
            raise Unsupported(f"{path} has hooks")


def state_of(model: nn.Module) -> int:
    """A number that changes with what an engine was chosen by.

    Frozen weights, which of them train, hooks, merged and active adapters, replaced methods.
    """
    found: list[object] = []
    for module in model.modules():
        own = vars(module)
        found.append(id(module))
        found += [len(own[kind]) for kind in _HOOKS if own.get(kind)]
        found += [name for name in ("forward", "_original_forward") if name in own]
        if getattr(module, "gradient_checkpointing", False):
            found.append("checkpointing")
        if "merged_adapters" in own:
            active = getattr(module, "active_adapters", ())
            disabled = bool(getattr(module, "disable_adapters", False))
            found.append((tuple(own["merged_adapters"]), str(active), disabled))
    for parameter in model.parameters():
        hooks: Any = parameter
        hooked = bool(hooks._backward_hooks or hooks._post_accumulate_grad_hooks)  # noqa: SLF001
        found.append((id(parameter), parameter.requires_grad, parameter.dtype, hooked))
        if not parameter.requires_grad:
            # torch's own count of changes in place, as in `lorafit.engine.frozen`.
            found.append((parameter.data_ptr(), parameter._version))  # noqa: SLF001
    return hash(tuple(found))
