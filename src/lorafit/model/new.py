"""Which modules of a loaded model are new, and so are trained whole with the adapter.

It follows from what transformers reports as missing from the checkpoint, and from the module
tree; there is no table of model names.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from lorafit.errors import ModelError
from lorafit.model.sites import head_modules

log = logging.getLogger(__name__)

_MOST_NEW = 0.5
"""A base model of which more than this share is missing is not this checkpoint's model."""


def new_modules(model: nn.Module, missing: set[str], name: str = "the checkpoint") -> list[str]:
    """Finds the modules whose parameters were newly initialised, in module order.

    The outermost module of which every parameter is new stands for all inside it
    (``classifier``, not ``classifier.dense``); lists of modules are looked into, because
    they are never called. A module of which only some parameters are new is reported whole.

    Args:
        model: The loaded model.
        missing: Names of the parameters that were not in the checkpoint; other names
            (buffers, which are computed) are ignored.
        name: What to call the checkpoint in errors.

    Raises:
        ModelError: A new parameter stands outside of every module, so that it cannot be
            saved with an adapter.
    """
    own = [
        key for key, _ in model.named_parameters(recurse=False) if key in missing
    ]  # parameters of the model itself
    if own:
        raise ModelError(
            f'"{name}" lacks {", ".join(own)}, which stands outside of every layer of '
            f"{type(model).__name__} and cannot be trained with an adapter."
        )
    return [path for name, child in model.named_children() for path in _new(child, name, missing)]


def _new(module: nn.Module, path: str, missing: set[str]) -> Iterator[str]:
    keys = [f"{path}.{key}" for key, _ in module.named_parameters()]
    new = [key in missing for key in keys]
    if not any(new):
        return
    container = isinstance(module, nn.ModuleList | nn.ModuleDict)
    partly = any(f"{path}.{key}" in missing for key, _ in module.named_parameters(recurse=False))
    if partly or (all(new) and not container):
        yield path
        return
    for child_name, child in module.named_children():
        yield from _new(child, f"{path}.{child_name}", missing)


def say_new(model: PreTrainedModel, new: list[str], name: str) -> None:
    """One line for the head, one for gaps in the base; refuses a base that is mostly gaps."""
    prefix = model.base_model_prefix
    base = [path for path in new if prefix and path.split(".")[0] == prefix]
    head = [path for path in new if path not in base]
    if base:
        count = sum(p.numel() for path in base for p in model.get_submodule(path).parameters())
        total = sum(parameter.numel() for parameter in model.base_model.parameters())
        if count > _MOST_NEW * total:
            raise ModelError(
                f'the weights of "{name}" are not those of a {type(model).__name__}: '
                f"{100 * count / total:.0f} % of the model is not in the file. Check that "
                "config.json and the weights belong together."
            )
        log.warning(
            '"%s" has no weights for %s inside the model; they start at random and are '
            "trained with the adapter",
            *(name, ", ".join(base)),
        )
    if head:
        log.info("new head, trained and saved with the adapter: %s", ", ".join(head))


def add_relabelled(
    model: PreTrainedModel, new: list[str], stored: dict[Any, str], name: str
) -> list[str]:
    """Adds the head if the checkpoint's labels are not the task's, and says so.

    Such a head has weights, but for another question: it starts from them and is trained.

    Args:
        model: Already has the task's labels in its config.
        new: The modules that are new anyway.
        stored: Number to label, as the checkpoint had them.
        name: What to call the checkpoint.

    Returns:
        The modules to be trained whole, none inside another.
    """
    before = [stored[key] for key in sorted(stored, key=int)]
    labels: dict[Any, str] = dict(model.config.id2label or {})
    after = [labels[index] for index in sorted(labels)]
    heads = head_modules(model)
    if before == after or all(path in new for path in heads):
        return new
    if sorted(before) == sorted(after):
        log.warning(
            '"%s" has the same labels in another order (%s; here %s); its head is trained again',
            *(name, ", ".join(before), ", ".join(after)),
        )
    elif any(label != f"LABEL_{index}" for index, label in enumerate(before)):
        log.info(
            'the head of "%s" was made for %s; here it is trained for %s',
            *(name, ", ".join(before[:10]), ", ".join(after[:10])),
        )
    inside = tuple(f"{path}." for path in heads)
    rest = [path for path in new if path not in heads and not path.startswith(inside)]
    return rest + heads
