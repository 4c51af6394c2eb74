"""Records are typed: ``dict[str, Any]`` stands only where JSON or another library begins."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

UNTYPED = ("dict[str, Any]", "Dict[str, Any]")
SOURCE = Path(__file__).parents[1] / "src" / "lorafit"

ALLOWED: dict[str, tuple[int, str]] = {
    # Keyword arguments of other libraries.
    "adapt/hooks.py": (2, "torch's hook: the arguments of the model's call"),
    "engine/base.py": (1, "a batch: what the engine's model is called with"),
    "inspection/reader.py": (1, "options of the tokenizer"),
    "methods/base.py": (2, "the arguments of the model's call"),
    "methods/prefix.py": (2, "the arguments of the model's call"),
    "methods/prompt.py": (2, "the arguments of the model's call"),
    "model/kind.py": (1, "options of transformers' from_pretrained"),
    "model/load.py": (2, "options of transformers' from_pretrained"),
    "tasks/base.py": (2, "options of transformers' from_pretrained, and of pydantic's models"),
    "tasks/multi_label_classification.py": (1, "options of transformers' from_pretrained"),
    "tasks/parts/generative.py": (1, "options of transformers' from_pretrained"),
    "tasks/parts/labels.py": (1, "options of transformers' from_pretrained"),
    "tasks/regression.py": (1, "options of transformers' from_pretrained"),
    "tasks/sequence_classification.py": (1, "options of transformers' from_pretrained"),
    "tasks/token_classification.py": (1, "options of transformers' from_pretrained"),
    "tasks/parts/control.py": (2, "options of the tokenizer"),
    "testing/tiny.py": (3, "options of transformers' configs"),
    "training/optim.py": (1, "torch's parameter groups"),
    "tune/bench/adamw.py": (1, "torch's parameter groups"),
    "cli/flags.py": (2, "what typer hands over, and options of typer.Option"),
    "data/read/delimited.py": (1, "options of the csv reader"),
    # The peft package, and its names here.
    "export/peft_attach.py": (1, "adapter_config.json"),
    "export/peft_config.py": (8, "adapter_config.json"),
    "methods/peft/bridge.py": (3, "the configs of the peft package"),
    "peft/config.py": (2, "PEFT's signature"),
    "peft/kbit.py": (1, "PEFT's signature"),
    "peft/tuner.py": (2, "PEFT's signature"),
    "peft/trainer.py": (2, "torch's hooks of state_dict"),
    # Keyword arguments of the calls, checked by the config they are for.
    "cli/shrink.py": (1, "keywords of lorafit.shrink"),
    "config.py": (1, "keywords of a method's config, which checks them"),
    "packaged.py": (1, "keywords of lorafit.train"),
    # JSON, and what else is read, as it comes.
    "data/columns/chats.py": (1, "a message as the data has it, for transformers' templates"),
    "data/read/conll.py": (2, "rows, for datasets"),
    "data/read/files.py": (2, "rows, for datasets"),
    "export/card/base_card.py": (1, "the header of a model card, YAML"),
    "run/folder.py": (4, "JSON files as they are, for callers"),
    "comparison/outcome.py": (3, "compare.json, for callers"),
    "api.py": (1, "keywords of lorafit.train"),
    "result.py": (1, "answers, for callers"),
    "using.py": (1, "answers, for callers"),
    "evidence/evaluated.py": (2, "eval.json, for callers"),
    "pipeline/new_rows.py": (1, "keywords of a method's config, which checks them"),
    "testing/tasks.py": (1, "a row as data have it, written by a task's author"),
}
"""How many places a file may have, and which border it is at."""


def untyped(text: str) -> int:
    """How often ``dict[str, Any]`` stands in a file's code."""
    return sum(
        isinstance(node, ast.Subscript)
        and ast.unparse(node) in ("dict[str, Any]", "Dict[str, Any]")
        for node in ast.walk(ast.parse(text))
    )


def test_untyped_dicts_are_at_the_borders_only() -> None:
    found = Counter(
        {
            file.relative_to(SOURCE).as_posix(): untyped(file.read_text(encoding="utf-8"))
            for file in SOURCE.rglob("*.py")
        }
    )
    allowed = Counter({name: places for name, (places, _) in ALLOWED.items()})
    # A record of ours is a pydantic model, a dataclass or a TypedDict; JSON of unknown shape is
    # `lorafit.evidence.json.Json`. Where another library begins, the list above says so.
    assert +(found - allowed) == {}
    assert +(allowed - found) == {}, "fewer than listed: the list is to be shortened"


def test_code_is_counted_and_words_are_not() -> None:
    assert untyped("x: dict[str, Any] = {}\ny: list[dict[str, 'Any']]\n") == 1
    assert untyped('"""dict[str, Any]"""\nx: dict[str, object]  # dict[str, Any]\n') == 0
    assert untyped("def f(x: list[dict[str, dict[str, Any]]]) -> dict[str, Any]: ...") == 2
