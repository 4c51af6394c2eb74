"""Messages are sentences: with one full stop at an end, whatever was put into them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorafit.errors import RunError, clause
from lorafit.run import Run
from lorafit.tune.bench.journal import Entry, Journal

SOURCE = Path(__file__).parents[1] / "src" / "lorafit"


def doubled(text: str) -> Iterator[int]:
    """Lines of messages in which a caught error, which may end with one, is before a full stop."""
    for handler in ast.walk(ast.parse(text)):
        if not isinstance(handler, ast.ExceptHandler) or handler.name is None:
            continue
        for message in ast.walk(handler):
            if not isinstance(message, ast.JoinedStr):
                continue
            for part, after in zip(message.values, message.values[1:], strict=False):
                if not isinstance(part, ast.FormattedValue) or not isinstance(after, ast.Constant):
                    continue
                own = isinstance(part.value, ast.Name) and part.value.id == handler.name
                if own and str(after.value).startswith("."):
                    yield message.lineno


def test_no_message_has_a_full_stop_after_what_another_error_says() -> None:
    bad = {path.name: list(doubled(path.read_text("utf-8"))) for path in SOURCE.rglob("*.py")}
    assert {name: lines for name, lines in bad.items() if lines} == {}
    planted = 'try:\n    f()\nexcept OSError as error:\n    g(f"{error}. Try again.")\n'
    assert list(doubled(planted)) == [4]


@pytest.mark.parametrize("said", ["It ended.", "It ended", " It ended. ", "It ended..."])
def test_a_clause_goes_on(said: str) -> None:
    assert clause(OSError(said)) == "It ended"


def test_a_journal_whose_pieces_another_version_wrote_is_one_sentence_after_another(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.yaml").write_text("")
    journal = Journal(Run(tmp_path))
    journal.once("start", lambda: Entry("start", {"runs": 1.0}))
    file = journal.folder / "start.json"
    file.write_text(file.read_text("utf-8").replace('"state"', '"condition"'), "utf-8")
    with pytest.raises(RunError) as refused:
        Journal(Run(tmp_path)).once("start", lambda: Entry("start", {}))
    message = str(refused.value)
    assert message.endswith("to search again from the beginning.")
    assert ".." not in message.replace(str(tmp_path), "")
