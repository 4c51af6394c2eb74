"""The bridge to the tuners of the peft package, as ``peft:NAME``."""

from lorafit.methods.peft.bridge import PeftMethod
from lorafit.methods.peft.layer import PeftConfig, PeftLayer

__all__ = ["PeftConfig", "PeftLayer", "PeftMethod"]
