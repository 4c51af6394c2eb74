"""The code of a card: how the adapter is loaded and used."""

from __future__ import annotations

from lorafit.export.card.card import Card
from lorafit.export.card.names import hub_id
from lorafit.export.card.text import quoted
from lorafit.paths import PACKAGE_PREFIX
from lorafit.run.commands import FOLDER


def peft_snippet(card: Card, adapter: str = FOLDER) -> str:
    """Returns code that loads and uses the adapter with peft and transformers alone.

    It defines ``model``, ``tokenizer``, ``inputs`` (`Task.asking`) and what `Task.reading` does.
    """
    auto = card.task.auto_model.__name__
    labels: dict[int, str] = card.task.model_kwargs().get("id2label", {})
    base, options = _base(card)
    in_package = (card.base_name or "").startswith(PACKAGE_PREFIX)
    imports = ["from importlib.resources import files", ""] if in_package else []
    named = ", ".join(f"{index}: {quoted(name)}" for index, name in labels.items())
    numbered = ", ".join(f"{quoted(name)}: {index}" for index, name in labels.items())
    arguments = [base, *options]
    if labels:
        arguments += ["id2label=id2label", f"label2id={{{numbered}}}"]
    dtype = card.config.model.dtype
    if dtype != "auto":
        arguments.append(f"dtype={quoted(dtype)}")
    if card.resized_head:
        arguments.append("ignore_mismatched_sizes=True")
    joined = "".join(f"    {argument},\n" for argument in arguments)
    resized = card.new_tokens.resized_to
    return "\n".join(
        [
            *imports,
            "import torch",
            "from peft import PeftModel",
            f"from transformers import {auto}, AutoTokenizer",
            "",
            f"adapter = {quoted(adapter)}",
            *([f"id2label = {{{named}}}"] if labels else []),
            f"base = {auto}.from_pretrained(\n{joined})",
            "tokenizer = AutoTokenizer.from_pretrained(adapter)",
            *([] if resized is None else [f"base.resize_token_embeddings({resized})"]),
            "base.config.pad_token_id = tokenizer.pad_token_id",
            "model = PeftModel.from_pretrained(base, adapter).eval()",
            "",
            *card.task.asking(card.max_length),
            *card.task.reading,
        ]
    )


def lorafit_snippet(card: Card, adapter: str = FOLDER) -> str:
    """Returns code that uses the adapter with lorafit."""
    texts = ", ".join(map(quoted, card.task.examples))
    text = f"({texts})" if len(card.task.examples) > 1 else texts
    return f"import lorafit\n\nprint(lorafit.predict({quoted(adapter)}, [{text}]))"


def _base(card: Card) -> tuple[str, list[str]]:
    """The base model as a Python expression, and further arguments to load it."""
    name = card.base_name or "the base model"
    options = []
    gguf_file = card.config.model.gguf_file
    if name.lower().endswith(".gguf"):
        name, _, gguf_file = name.rpartition("/")
    if name.startswith(PACKAGE_PREFIX):
        package, *inside = name.removeprefix(PACKAGE_PREFIX).strip("/").split("/")
        place = f"files({quoted(package.replace('-', '_'))})"
        for part in inside:
            place += f" / {quoted(part)}"
        expression = f"str({place})"
    else:
        expression = quoted(name)
    if gguf_file is not None:
        options.append(f"gguf_file={quoted(gguf_file)}")
    if card.config.model.revision is not None and hub_id(card):
        options.append(f"revision={quoted(card.config.model.revision)}")
    if card.config.model.trust_remote_code:
        options.append("trust_remote_code=True")
    return expression, options
