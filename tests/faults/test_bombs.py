"""Small texts that would take all time or memory: refused in a line, soon."""

from __future__ import annotations

import ast
import string
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import transformers as hf

import lorafit
from lorafit import peft
from lorafit.errors import LorafitError
from lorafit.export.card import base_card
from lorafit.report.refresh import refresh
from lorafit.run import Run, aliases
from lorafit.run.config_file import LONGEST
from lorafit.run.listing import list_runs
from lorafit.settings import from_file, from_sets
from tests import tiny_text
from tests.faults import finished
from tests.faults.finished import copied, outcome
from tests.faults.test_adapters import BOMBS

SOON_S = 10.0
"""Of processor time; without the bounds all of these take for ever, or all memory."""


def levels(opener: str, closer: str) -> str:
    """Eleven names, each ten times the one before."""
    lines = ["a: &a {k: 1}"]
    for before, name in zip(string.ascii_letters, string.ascii_letters[1:12], strict=False):
        lines.append(f"{name}: &{name} {opener}{', '.join([f'*{before}'] * 10)}{closer}")
    return "\n".join(lines) + "\n"


def flow(text: str) -> str:
    """The same as one mapping of one line, for ``--set``."""
    return "{" + ", ".join(text.splitlines()) + "}"


TEXTS = {
    "lists": levels("[", "]"),
    "mappings": levels("{x: [", "]}"),
    "merged": levels("{<<: [", "]}"),
    "an alias in itself": "a: &a {x: *a}\n",
    "a list in itself": "a: &a [*a, *a]\n",
    "deep lists": f"a: {'[' * 5_000}",
    "deep mappings": f"a: {'{a: ' * 5_000}",
    "deep blocks": "".join(f"{'  ' * depth}a:\n" for depth in range(700)),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.make(tmp_path_factory.mktemp("made"))


def opened(run: Path) -> None:
    assert [found.name for found in list_runs(run.parent)] == [run.name]
    refresh(run)
    _ = Run(run).config


def nested(text: str) -> str:
    """The text as the value of a setting that takes a mapping."""
    return "adapter:\n  rank_pattern:\n" + "".join(f"    {line}\n" for line in text.splitlines())


@pytest.mark.parametrize("reader", ["config.yaml", "--config", "--set", "card of the base"])
@pytest.mark.parametrize("what", TEXTS)
def test_yaml_that_stands_for_too_much_is_refused_soon(
    what: str, reader: str, run: Path, tmp_path: Path
) -> None:
    text, file = TEXTS[what], tmp_path / "README.md"
    calls: dict[str, Callable[[], Any]] = {
        "config.yaml": lambda: opened(tmp_path / "runs" / "x"),
        "--config": lambda: from_file(file),
        "--set": lambda: from_sets([f"adapter.rank_pattern={flow(text)}"]),
        "card of the base": lambda: base_card.read(str(tmp_path)),
    }
    if reader == "config.yaml":
        (copied(run, tmp_path / "runs" / "x") / "config.yaml").write_text(nested(text))
    dashes = "---\n" if reader == "card of the base" else ""
    file.write_text(f"{dashes}{nested(text)}{dashes}")
    began = time.process_time()
    error = outcome(calls[reader])
    assert time.process_time() - began < SOON_S
    if reader != "card of the base":  # which is no card then
        assert error is not None
        assert len(str(error).splitlines()) == 1


def test_aliases_of_ordinary_files_are_read(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("data: &data\n  train: a.csv\nadapter:\n  rank_pattern: {<<: {q: 4}, k: 8}\n")
    assert from_file(file)["adapter.rank_pattern"].value == {"q": 4, "k": 8}


def test_a_file_of_settings_that_is_too_long_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("seed: 1\n" + "#" * LONGEST)
    began = time.process_time()
    with pytest.raises(LorafitError, match="characters, and at most"):
        from_file(file)
    assert time.process_time() - began < 1


def test_counting_takes_no_longer_than_the_tree_is_large() -> None:
    class Node:
        def __init__(self, value: Any) -> None:
            self.value = value

    node = Node("x")
    for _ in range(300):
        node = Node([node] * 10)
    with pytest.raises(ValueError, match="more than 100,000 values"):
        aliases.check(node)
    aliases.check(Node([Node("x") for _ in range(200_000)]))  # as many as are written


# Regular expressions

SETTINGS = (
    *("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern"),
)


def asked(setting: str, bomb: str) -> dict[str, Any]:
    """Settings with an expression in one of them."""
    if setting in ("rank_pattern", "alpha_pattern"):
        return {setting: {bomb: 4}}
    if setting == "layers_pattern":
        return {setting: [bomb], "layers_to_transform": [0], "target_modules": ["q_lin"]}
    return {"target_modules": ["q_lin"], setting: bomb}


@pytest.mark.parametrize("setting", SETTINGS)
def test_an_expression_of_the_settings_never_takes_for_ever(setting: str, run: Path) -> None:
    base = run.parents[1] / "base"
    model = hf.AutoModelForSequenceClassification.from_pretrained(base)
    for bomb in BOMBS:
        began = time.process_time()
        config = peft.LoraConfig(**asked(setting, bomb))
        found = outcome(partial(peft.get_peft_model, model, config))
        assert found is not None, bomb  # no module ends with "!"
        assert time.process_time() - began < SOON_S, bomb
    began = time.process_time()
    given = {"strategy": "none", "progress": False, **asked(setting, BOMBS[0])}
    assert outcome(lambda: lorafit.plan(base, tiny_text.splits(12), **given)) is not None
    assert time.process_time() - began < SOON_S


SOURCE = Path(lorafit.__file__).parent
BOUNDED = "model/expressions.py"
"""The one file that matches expressions that somebody else wrote."""


def patterns() -> Iterator[tuple[str, ast.expr]]:
    """The patterns that the package gives `re`, with their places."""
    for file in sorted(SOURCE.rglob("*.py")):
        place = file.relative_to(SOURCE).as_posix()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            called, module = node.func, node.func.value
            of_re = isinstance(module, ast.Name) and module.id == "re"
            if of_re and node.args and called.attr != "escape":
                yield f"{place}:{node.lineno}", node.args[0]


def ours(pattern: ast.expr) -> bool:
    """Whether a pattern is written in the source, but for texts that are escaped in it."""
    if isinstance(pattern, ast.Name | ast.Attribute):
        name = pattern.id if isinstance(pattern, ast.Name) else pattern.attr
        return name.isupper()
    if isinstance(pattern, ast.JoinedStr):
        parts = [part.value for part in pattern.values if isinstance(part, ast.FormattedValue)]
        return all(escaped(part) or ours(part) for part in parts)
    if isinstance(pattern, ast.BinOp):
        return ours(pattern.left) and ours(pattern.right)
    return isinstance(pattern, ast.Constant) or escaped(pattern)


def escaped(part: ast.expr) -> bool:
    return isinstance(part, ast.Call) and ast.unparse(part.func) == "re.escape"


REASONS = {
    "run/stage.py": "its callers pass what is escaped, or a constant",
    "tasks/parts/control.py": "joins what is escaped",
    "report/words.py": "its own table of words",
}


def test_no_expression_of_somebody_else_reaches_re_but_in_one_file() -> None:
    found = [(place, pattern) for place, pattern in patterns() if not ours(pattern)]
    files = {place.partition(":")[0] for place, _ in found}
    assert BOUNDED in files
    assert files - {BOUNDED} == REASONS.keys(), [place for place, _ in found]
