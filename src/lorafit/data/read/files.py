"""One local file to one table: csv, tsv, json, jsonl, parquet, arrow and CoNLL.

The suffix says the format (``reviews.csv.bz2``), the first bytes say the compression.
Files are read into memory and nothing is written: no cache is left behind, nothing is
unpickled, no code is run. A file that cannot be read is a `DataError` that names the line.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import pyarrow as pa
from datasets import Dataset

from lorafit.data.read.conll import SUFFIXES, read_conll
from lorafit.data.read.delimited import read_delimited
from lorafit.data.read.reading import PLAIN, Reading
from lorafit.data.read.rows import to_dataset
from lorafit.errors import DataError, clause
from lorafit.evidence.json import parsed
from lorafit.unpacked import check_size, counted, read_arrow, read_parquet

_MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zst"}
_OPENERS: dict[str, Callable[..., Any]] = {
    "gz": gzip.open,
    "bz2": bz2.open,
    "xz": lzma.open,
    "zst": partial(pa.input_stream, compression="zstd"),
}
_BROKEN = (OSError, EOFError, lzma.LZMAError, zlib.error, pa.ArrowException)
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_FORMATS = (
    *(".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather"),
    *SUFFIXES,
)
_BINARY = (".parquet", ".arrow", ".feather")
"""Formats that have no encoding."""
_CHUNK = 1 << 20


def format_of(path: Path) -> str | None:
    """Returns the suffix that says the format of a file (``".csv"``), or ``None``."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in _FORMATS else None


def plain_name(path: Path) -> str:
    """The name of a data file without the suffixes of format and compression."""
    name = path
    while name.suffix.lower() in (*_COMPRESSED, *_FORMATS):
        name = name.with_suffix("")
    return name.name


def read_file(path: Path, reading: Reading = PLAIN) -> Dataset:
    """Reads a data file; arguments and errors as for `read_rows`."""
    return to_dataset(read_rows(path, reading), f'"{path}"')


def read_rows(path: Path, reading: Reading = PLAIN) -> pa.Table | list[Any]:
    """Reads the rows of a data file.

    Args:
        path: The file.
        reading: What to leave out, and how text is stored.

    Raises:
        DataError: The format or the encoding is not known, or the content is not what the suffix
            promises; with the file, the line where there is one, and what to do.
    """
    kind = format_of(path)
    if kind is None:
        raise DataError(
            f'"{path}" is not a data file lorafit reads. It reads '
            f"{', '.join(suffix[1:] for suffix in _FORMATS)}, also compressed as "
            f"{', '.join(suffix[1:] for suffix in _COMPRESSED)}."
            + (" Unpack the archive first." if path.suffix.lower() in (".zip", ".tar") else "")
        )
    try:
        if path.stat().st_size == 0:
            raise DataError(f'"{path}" is empty (0 bytes).')
        compression, limit = _compression(path), reading.limit(path.stat().st_size)
    except OSError as error:
        raise DataError(f'cannot read "{path}": {error.strerror}.') from error

    def open_bytes() -> BinaryIO:
        if compression is None:
            return path.open("rb")
        return counted(cast(BinaryIO, _OPENERS[compression](str(path))), limit, path)

    try:
        if kind not in _BINARY and is_utf8_after_all(reading.encoding, open_bytes):
            reading.findings.warn(f'"{path}" is UTF-8, and is read so: not {reading.encoding}')
            reading = replace(reading, encoding=None)
        return _read(path, kind, open_bytes, reading, compressed=compression is not None)
    except UnicodeError as error:
        if reading.encoding is None and isinstance(error, UnicodeDecodeError):
            raise DataError(_not_utf8(path, open_bytes, error)) from error
        raise DataError(f'"{path}" is not {reading.encoding} text: {clause(error)}.') from error
    except _BROKEN as error:
        what = f"as {compression}" if compression else f"as {kind[1:]}"
        raise DataError(
            f'"{path}" cannot be read {what}; it may be damaged or cut short: {_line(error)}'
        ) from error


def check_encoding(encoding: str | None) -> str:
    """Returns the name for Python of an encoding of text.

    Raises:
        DataError: There is none of this name, or it is none of text.
    """
    if encoding is None:
        return "utf-8-sig"  # drops the byte order mark that Excel and Notepad put in front
    try:
        name = codecs.lookup(encoding).name
        "a".encode(name)
    except (LookupError, ValueError) as error:
        raise DataError(
            f'there is no encoding "{encoding}". Often used are utf-8, utf-16, cp1252 (Windows, '
            "Western Europe), latin-1, cp1251 (Cyrillic), shift_jis, gb18030 and big5."
        ) from error
    return "utf-8-sig" if name == "utf-8" else name


def is_utf8_after_all(encoding: str | None, open_bytes: Callable[[], BinaryIO]) -> bool:
    """Whether a text that is said to be of an encoding with one byte a character is UTF-8.

    Text with other letters than those of ASCII that is right as UTF-8 is nothing else: as cp1252
    "ü" would be "Ã¼". A run's encoding is that of its own data, and other data may have another.
    """
    if encoding is None or not _is_of_single_bytes(check_encoding(encoding)):
        return False
    decoder, ascii_only = codecs.getincrementaldecoder("utf-8")(), True
    try:
        with open_bytes() as file:
            for chunk in iter(lambda: file.read(_CHUNK), b""):
                ascii_only = ascii_only and chunk.isascii()
                decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return not ascii_only


def _is_of_single_bytes(codec: str) -> bool:
    upper = bytes(range(0xC0, 0x100))
    known = not codec.startswith("utf") and codec != "ascii"
    return known and len(upper.decode(codec, "replace")) == len(upper)


def _read(
    path: Path,
    kind: str,
    open_bytes: Callable[[], BinaryIO],
    reading: Reading,
    *,
    compressed: bool,
) -> pa.Table | list[Any]:
    """A table, or the rows of a JSON file."""
    encoding = check_encoding(reading.encoding)
    if kind in _BINARY:
        limit = reading.limit(path.stat().st_size)
        read = read_parquet if kind == ".parquet" else read_arrow
        return read(_all(open_bytes), limit, path)
    if compressed:
        check_size(open_bytes())

    def open_text() -> TextIO:
        raw = cast(io.RawIOBase, open_bytes())
        return io.TextIOWrapper(io.BufferedReader(raw), encoding, newline="")

    if kind in (".csv", ".tsv"):
        delimiter = "," if kind == ".csv" else "\t"
        return read_delimited(open_text, f'"{path}"', delimiter, reading)
    if kind in SUFFIXES:
        with open_text() as file:
            return read_conll(file, f'"{path}"', reading)
    if kind == ".json":
        with open_text() as file:
            return _read_json(file.read(), path, reading)
    with open_text() as file:
        return list(_json_lines(file, path, reading))


def _all(open_bytes: Callable[[], BinaryIO]) -> bytes:
    with open_bytes() as file:
        return file.read()


def _compression(path: Path) -> str | None:
    """How a file is compressed, by its first bytes; a suffix may be missing or wrong."""
    with path.open("rb") as file:
        start = file.read(6)
    found = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
    promised = path.suffix.lower()
    if found is None and promised in _COMPRESSED:
        raise DataError(f'"{path}" is not compressed as its suffix {promised} says. Rename it.')
    return found


def _json_lines(
    lines: Iterator[str] | TextIO, path: Path, reading: Reading
) -> Iterator[dict[str, Any]]:
    """The rows of a JSON lines file; blank lines are skipped."""
    bad: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _json_row(line, f'"{path}", line {number}')
        except DataError as error:
            if not reading.skip_bad_rows:
                raise
            bad.append(str(error))
            continue
        yield row
    if bad:
        reading.findings.warn(f"skipped {len(bad):,} lines that cannot be read; first: {bad[0]}")


def _json_row(line: str, place: str) -> dict[str, Any]:
    """One line of a JSON lines file."""
    skip = "Mend the line, or leave such lines out with --skip-bad-rows."
    try:
        row = parsed(line)
    except ValueError as error:
        where = str(error)
        if isinstance(error, json.JSONDecodeError):
            where = f"column {error.colno}: {error.msg}"
        raise DataError(
            f"{place}: not JSON ({where}): {_excerpt(line)}. Each line has to be one object with "
            f"the columns as keys. {skip}"
        ) from error
    if not isinstance(row, dict):
        raise DataError(
            f"{place}: {_excerpt(line)} is no object. Each line has to be one object with the "
            f'columns as keys, such as {{"text": "...", "label": 1}}. {skip}'
        )
    return row


def _read_json(text: str, path: Path, reading: Reading) -> Any:
    """A JSON file: a list of rows, a dict of columns, one of these under a key, or lines."""
    if not text.strip():
        raise DataError(f'"{path}" is empty.')
    try:
        value = parsed(text)
    except ValueError as error:
        first = text.lstrip().split("\n", 1)[0]
        if _is_object(first):  # JSON lines under a .json name are common
            return list(_json_lines(io.StringIO(text), path, reading))
        where = str(error)
        if isinstance(error, json.JSONDecodeError):
            where = f"line {error.lineno}: {error.msg}"
        raise DataError(f'"{path}" is not JSON: {where}.') from error
    if isinstance(value, dict):
        tables = [item for item in value.values() if _is_rows(item)]
        if len(tables) == 1 and not all(isinstance(item, list) for item in value.values()):
            value = tables[0]  # such as {"version": 1, "data": [...]}
        elif value and not any(isinstance(item, list) for item in value.values()):
            value = [value]  # one line of JSON lines
    if isinstance(value, dict) or _is_rows(value) or value == []:
        return value
    raise DataError(
        f'"{path}" holds no table. It has to be a list of objects, such as '
        '[{"text": "...", "label": 1}], or an object of columns.'
    )


def _is_object(line: str) -> bool:
    try:
        return isinstance(parsed(line), dict)
    except ValueError:
        return False


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _not_utf8(path: Path, open_bytes: Callable[[], BinaryIO], error: UnicodeDecodeError) -> str:
    """Where a file stops being UTF-8, and how to convert it."""
    offset = 0
    with open_bytes() as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as found:
                return _encoding_message(path, line, number, offset + found.start, found)
            offset += len(line)
    return f'"{path}" is not UTF-8 text: {error.reason}.'


def _encoding_message(
    path: Path, line: bytes, number: int, offset: int, error: UnicodeDecodeError
) -> str:
    if offset == 0 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
        return (
            f'"{path}" is UTF-16, not UTF-8. Read it with --encoding utf-16, or convert it: '
            f'iconv -f UTF-16 -t UTF-8 "{path}" > utf8{path.suffix}'
        )
    if b"\0" in line:
        return f'"{path}" is not a text file: line {number} has bytes that are no text.'
    around = line[max(0, error.start - 20) : error.start + 20].decode("cp1252", "replace").strip()
    return (
        f'"{path}" is not UTF-8: line {number}, byte {offset} is 0x{line[error.start]:02x}. '
        f'Read as Windows-1252 (Latin-1) it says "{around}". If that is right, read it with '
        "--encoding cp1252, or convert it: "
        f'iconv -f WINDOWS-1252 -t UTF-8 "{path}" > utf8{path.suffix}'
    )


def _excerpt(line: str) -> str:
    line = line.strip()
    return line if len(line) <= 60 else line[:57] + "..."


def _line(error: BaseException) -> str:
    """The first line of an error, with the type if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
