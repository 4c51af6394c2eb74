"""The ``README.md`` beside a saved adapter: what the Hub needs to know of it."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from lorafit.errors import AdapterError

_TEXT = """
# LoRA adapter

```python
from peft import PeftModel

model = PeftModel.from_pretrained(base_model, "path/to/this/adapter")
```
"""


def write(folder: Path, base: str | None, transformers: bool) -> None:
    """Adds the library, the base model and the tags to the card; its text is kept.

    Args:
        folder: Of the adapter.
        base: What the base model is called, if it has a name.
        transformers: Whether it is a model of the transformers library.

    Raises:
        AdapterError: The card cannot be written.
    """
    file = folder / "README.md"
    try:
        known = ModelCard.load(file) if file.exists() else None
        card = known or ModelCard(f"---\n{ModelCardData().to_yaml()}\n---\n{_TEXT}")
        assert isinstance(card.data, ModelCardData)
        tags = set(card.data.tags or []) | {"lora"}
        if transformers:
            tags.add("transformers")
        if base:
            card.data.base_model = base
            tags.add(f"base_model:adapter:{base}")
        card.data.library_name = "peft"
        card.data.tags = sorted(tags)
        card.save(file)
    except OSError as error:
        raise AdapterError(f"cannot write {file}: {error.strerror or error}.") from error
