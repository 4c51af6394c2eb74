"""PEFT methods: the maths of each, one file (LoRA: one package) a method.

What several share is in ``parts``; the tuners of the peft package come in by ``peft``.
"""

from __future__ import annotations

from lorafit.errors import ConfigError
from lorafit.methods.base import Method
from lorafit.registry import Registry

methods: Registry[type[Method]] = Registry("method", "lorafit.methods")


def method_of(peft_type: str) -> str | None:
    """The name of the method whose adapters have this ``peft_type`` on disk.

    Where none of our own has, it is the tuner of the peft package, if peft is here and has it.
    """
    for name in methods:
        if methods[name].preset_of is not None:
            continue
        if methods[name].config_class.model_fields["peft_type"].default == peft_type:
            return name
    name = f"peft:{peft_type.lower()}"
    try:
        methods[name]
    except ConfigError:
        return None
    return name
