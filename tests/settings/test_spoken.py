"""Messages for Python callers."""

from __future__ import annotations

from pathlib import Path

import pytest

import lorafit
from lorafit.errors import ConfigError, DataError, LorafitError, RunError
from lorafit.settings.spoken import in_python


@pytest.mark.parametrize(
    ("typed", "spoken"),
    [
        ("or choose with --task.", "or choose with task=...."),
        (
            "Name it: --text PROMPT; or leave --label out.",
            'Name it: text="PROMPT"; or leave label=... out.',
        ),
        ("columns of 0 and 1 (--label a --label b).", 'columns of 0 and 1 (label=["a", "b"]).'),
        (
            "Read it with --encoding utf-16, or convert it",
            'Read it with encoding="utf-16", or convert it',
        ),
        ("a smaller --batch-size or --max-length.", "a smaller batch_size=... or max_length=...."),
        ("or more (--budget 10), or --strategy rise.", 'or more (budget=10), or strategy="rise".'),
        ("(--dedupe leaves them out)", "(dedupe=True leaves them out)"),
        ("the same search, of --budget runs", "the same search, of budget=... runs"),
        ("allow more with --set data.max_truncated=SHARE.", "allow more with max_truncated=SHARE."),
        ("pip install --editable .", "pip install --editable ."),
        ("lorafit train --resume 'a b/c'", 'lorafit.train(resume="a b/c")'),
        ("nothing of the kind", "nothing of the kind"),
    ],
)
def test_flags_become_keywords(typed: str, spoken: str) -> None:
    assert in_python(typed) == spoken


def refused(error: type[LorafitError], *data: object, **settings: object) -> LorafitError:
    with pytest.raises(error) as caught:
        lorafit.preview("no-model", *data, **settings)  # type: ignore[arg-type]
    return caught.value


def test_an_error_speaks_python_and_keeps_what_the_command_line_says(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes("text,label\nschön,a\n".encode("cp1252") * 20)
    error = refused(DataError, file)
    assert 'encoding="cp1252"' in str(error)
    assert "--encoding cp1252" in error.typed
    assert "--" not in str(error)


def test_a_keyword_that_is_none_says_where_all_are_listed(tmp_path: Path) -> None:
    error = refused(ConfigError, "rows.csv", learning_rat=1)
    assert 'Did you mean "learning_rate"' in str(error)
    assert 'help("lorafit.settings.keywords")' in str(error)
    assert ".md" not in str(error)


def test_a_folder_that_is_no_run_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        lorafit.Run(tmp_path)
    with pytest.raises(RunError, match="there is no run"):
        lorafit.Run(str(tmp_path / "nothing"))
