"""CoNLL files to rows: one word and its tags a line, an empty line after each sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TextIO

from lorafit.data.read.reading import PLAIN, Reading
from lorafit.errors import DataError

SUFFIXES = (".conll", ".iob", ".iob2", ".bio", ".bioes")
_NAMES = {
    2: ("tokens", "ner_tags"),
    # Word, part of speech, chunk, entity: the shared task of 2003.
    4: ("tokens", "pos_tags", "chunk_tags", "ner_tags"),
}


def read_conll(lines: TextIO, name: str, reading: Reading = PLAIN) -> list[dict[str, Any]]:
    """Reads sentences; the first column is the word, the last one the tag.

    Columns are separated by tabs, or by spaces where the file has no tab. ``-DOCSTART-`` lines
    and comments (``# `` before the first word of a sentence) are left out.

    Args:
        lines: The file.
        name: What to call it in messages.
        reading: Whether sentences with a line that does not fit are left out.

    Raises:
        DataError: A line has another number of columns than the first one.
    """
    rows: list[dict[str, Any]] = []
    bad: list[str] = []
    columns: tuple[str, ...] | None = None
    for sentence in _sentences(lines):
        number, first = sentence[0]
        if columns is None:
            columns = _columns(_fields(first), number, name)
        wrong = next(
            ((n, line) for n, line in sentence if len(_fields(line)) != len(columns)), None
        )
        if wrong is None:
            cells = zip(*(_fields(line) for _, line in sentence), strict=True)
            rows.append(dict(zip(columns, map(list, cells), strict=True)))
            continue
        message = (
            f"{name}, line {wrong[0]}: {len(_fields(wrong[1]))} columns where the first line has "
            f"{len(columns)}: {wrong[1].strip()[:60]}"
        )
        if not reading.skip_bad_rows:
            raise DataError(
                f"{message}. Each line is a word and its tags; an empty line ends a sentence. "
                "Mend the line, or leave such sentences out with --skip-bad-rows."
            )
        bad.append(message)
    if bad:
        reading.findings.warn(f"skipped {len(bad):,} sentences that do not fit; first: {bad[0]}")
    if not rows:
        raise DataError(f"{name} holds no sentences: a word and its tags on each line.")
    return rows


def _sentences(lines: TextIO) -> Iterator[list[tuple[int, str]]]:
    """The numbered lines of each sentence."""
    sentence: list[tuple[int, str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            if sentence:
                yield sentence
            sentence = []
        elif sentence or not line.startswith("# "):
            sentence.append((number, line.rstrip("\r\n")))
    if sentence:
        yield sentence


def _fields(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else line.split()


def _columns(first: list[str], number: int, name: str) -> tuple[str, ...]:
    count = len(first)
    if count < 2:
        raise DataError(
            f"{name}, line {number}: one column only ({first[0][:60]!r}). Each line is a word and "
            "its tags, separated by a space or a tab."
        )
    middle = tuple(f"column_{index}" for index in range(2, count))
    return _NAMES.get(count, ("tokens", *middle, "ner_tags"))
