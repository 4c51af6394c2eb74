"""LoRA's variants under names of their own: the settings of ``lora``, other starting points.

On disk they are LoRA adapters; every setting of ``lora`` can be given with them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lorafit.methods import methods
from lorafit.methods.lora.method import Lora


@methods.register("rslora")
class RsLora(Lora):
    """LoRA whose scale is ``lora_alpha / sqrt(r)`` (``use_rslora``)."""

    preset_of = "lora"
    learning_rate = 6e-4
    recommended: ClassVar[Mapping[str, object]] = {**Lora.recommended, "use_rslora": True}


@methods.register("dora")
class Dora(Lora):
    """LoRA that also trains the length of each weight row (``use_dora``)."""

    preset_of = "lora"
    recommended: ClassVar[Mapping[str, object]] = {**Lora.recommended, "use_dora": True}


@methods.register("pissa")
class Pissa(Lora):
    """LoRA that starts from the largest singular directions (``init_lora_weights: pissa``).

    Scale 1, as in the paper.
    """

    preset_of = "lora"
    learning_rate = 6e-4
    recommended: ClassVar[Mapping[str, object]] = {
        **Lora.recommended,
        "init_lora_weights": "pissa",
        "lora_alpha": 8,
    }
