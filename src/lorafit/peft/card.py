"""The ``README.md`` beside a saved adapter: what the Hub needs to know of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import ModelCard, ModelCardData
from transformers import PreTrainedModel

from lorafit.errors import AdapterError

if TYPE_CHECKING:
    from lorafit.peft.model import PeftModel

_TEXT = """
# LoRA adapter

```python
from peft import PeftModel

model = PeftModel.from_pretrained(base_model, "path/to/this/adapter")
```
"""


def write(model: PeftModel, folder: Path) -> None:
    """Adds the library, the base model and the tags to the card; its text is kept.

    Raises:
        AdapterError: The card cannot be written.
    """
    file = folder / "README.md"
    try:
        known = ModelCard.load(file) if file.exists() else None
        card = known or ModelCard(f"---\n{ModelCardData().to_yaml()}\n---\n{_TEXT}")
        base = model.active_peft_config.base_model_name_or_path if model.active_adapters else None
        assert isinstance(card.data, ModelCardData)
        tags = set(card.data.tags or []) | {"lora"}
        if isinstance(model.base_model.adapters.model, PreTrainedModel):
            tags.add("transformers")
        if base:
            card.data.base_model = base
            tags.add(f"base_model:adapter:{base}")
        card.data.library_name = "peft"
        card.data.tags = sorted(tags)
        card.save(file)
    except OSError as error:
        raise AdapterError(f"cannot write {file}: {error.strerror or error}.") from error
