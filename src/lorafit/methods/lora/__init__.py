"""LoRA: the method, its layers, and its variants under names of their own.

`linear` has the formula; `dora` and `init` what variants change of it; `parameter` and `tokens`
what is adapted beside layers.
"""

from lorafit.methods.lora.config import LoraConfig
from lorafit.methods.lora.dora import DoraLinear
from lorafit.methods.lora.embedding import LoraEmbedding
from lorafit.methods.lora.init import Origin
from lorafit.methods.lora.layer import LoraLayer
from lorafit.methods.lora.linear import LoraLinear
from lorafit.methods.lora.method import Lora
from lorafit.methods.lora.presets import Dora, Pissa, RsLora

__all__ = [
    "Dora",
    "DoraLinear",
    "Lora",
    "LoraConfig",
    "LoraEmbedding",
    "LoraLayer",
    "LoraLinear",
    "Origin",
    "Pissa",
    "RsLora",
]
