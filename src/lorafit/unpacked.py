"""Files that unpack to more than they are: counted while that happens, so that memory lasts.

Two kilobytes of bz2 can hold gigabytes, and a parquet file of a hundred as many rows as it says.
What is counted is what is in memory: bytes of text, and of Arrow's buffers.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lorafit.errors import DataError
from lorafit.units import size

UNPACKED, UNPACKED_TIMES = 10**9, 50
"""Bytes that any file may unpack to; and of a larger one, so many times its own size."""

_AT_ONCE = 1 << 20
"""Bytes that are unpacked between two counts."""
_ROWS_AT_ONCE = (64, 16_384)
"""Fewest and most rows of a parquet file that are unpacked between two counts."""
_MANY = 256
"""Parts of a table above which they are joined: every access to a row looks for its part."""


class Counted(io.RawIOBase):
    """A stream that gives what another one unpacks, up to a limit.

    Args:
        stream: What unpacks; it is closed with this one.
        limit: Most bytes.
        path: The file, for the message.
    """

    def __init__(self, stream: BinaryIO, limit: int, path: Path) -> None:
        self._stream, self._limit, self._path = stream, limit, path
        self._count = 0

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads as many bytes as there is room for, or fewer.

        Raises:
            DataError: That would be more than the limit in all.
        """
        part = self._stream.read(len(buffer))
        self._count += len(part)
        if self._count > self._limit:
            raise too_large(self._path, self._limit)
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        """Closes both."""
        self._stream.close()
        super().close()


def usual_limit(size: int) -> int:
    """Most bytes that a file of this many may unpack to, where nothing else is set."""
    return max(UNPACKED, UNPACKED_TIMES * size)


def counted(stream: BinaryIO, limit: int, path: Path) -> BinaryIO:
    """A stream of bytes that refuses to give more than the limit."""
    return io.BufferedReader(Counted(stream, limit, path), _AT_ONCE)


def check_size(stream: BinaryIO) -> None:
    """Unpacks all of a stream and keeps nothing: reading its lines takes far longer.

    Raises:
        DataError: It gives more than its limit.
    """
    with stream:
        while stream.read(_AT_ONCE):
            pass


def read_parquet(  # noqa: PLR0913 what tests make small
    content: bytes,
    limit: int,
    path: Path,
    rows_at_once: tuple[int, int] = _ROWS_AT_ONCE,
    many: int = _MANY,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """A parquet file, some rows at a time.

    Args:
        content: The file.
        limit: Most bytes that it may unpack to.
        path: Of the file, for messages.
        rows_at_once: Fewest and most rows that are unpacked between two counts.
        many: Parts above which they are joined.
        columns: Names of columns that are wanted, where there are any; ``None``: all.

    Raises:
        DataError: It unpacks to more than the limit.
    """
    with _named_in_utf8(path):
        file = pq.ParquetFile(io.BytesIO(content))
        schema = file.schema_arrow
    about = file.metadata
    sizes = [about.row_group(group).total_byte_size for group in range(about.num_row_groups)]
    if sum(sizes) > limit:
        raise too_large(path, limit)
    if columns is not None:
        wanted = [name for name in schema.names if name in columns]
        schema = pa.schema([schema.field(name) for name in wanted], schema.metadata)
    # A value can be as large as its group, and one value can stand in each row of it.
    fewest, most = rows_at_once
    rows = max(fewest, min(most, limit // max(1, *sizes, 1)))
    return _table(file.iter_batches(rows, columns=schema.names), schema, limit, path, many)


def read_arrow(content: bytes, limit: int, path: Path) -> pa.Table:
    """An Arrow file in either of its two formats (Feather is the file format).

    Offsets that point outside of a buffer are texts of other memory, or the end of the process:
    every part is checked in full before anything is done with it.

    Raises:
        pa.ArrowInvalid: It is damaged.
        DataError: It unpacks to more than the limit.
    """
    source = pa.BufferReader(content)
    try:
        file = pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        stream = pa.ipc.open_stream(source)
        return _table(stream, stream.schema, limit, path)
    parts = (file.get_batch(number) for number in range(file.num_record_batches))
    return _table(parts, file.schema, limit, path)


def _table(
    parts: Iterable[pa.RecordBatch], schema: pa.Schema, limit: int, path: Path, many: int = _MANY
) -> pa.Table:
    with _named_in_utf8(path):
        _ask_names(schema)
    found, count = [], 0
    for part in parts:
        part.validate(full=True)
        # A column of nothing has no bytes, and as many rows as it says.
        count += max(sum(map(_spelled_out, part.columns)), part.num_rows * max(1, part.num_columns))
        if count > limit:
            raise too_large(path, limit)
        found.append(part)
    table = pa.Table.from_batches(found, schema)
    return table.combine_chunks() if len(found) > many else table


def _spelled_out(column: pa.Array) -> int:
    """Bytes of a column once its categories are spelled out, which is what it is read for."""
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    kind = column.type.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind)):
        return 8 * len(column)
    lengths = pc.binary_length(column.dictionary).cast(pa.int64())
    return int(pc.sum(lengths.take(column.indices)).as_py() or 0) + 4 * len(column)


def _ask_names(fields: Iterable[pa.Field]) -> None:
    """Reads every name, inside of lists and structures too: pyarrow decodes them when asked."""
    for field in fields:
        _ = field.name
        _ask_names(field.type.field(at) for at in range(field.type.num_fields))


@contextmanager
def _named_in_utf8(path: Path) -> Iterator[None]:
    """Turns a name of a column that is no text into one clear error."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(
            f'"{path}" has a column whose name is not UTF-8 text ({error.reason}). Rename it, or '
            "write the file again."
        ) from error


class TooLargeError(DataError):
    """A file unpacks to more than its limit."""


def too_large(path: Path, limit: int) -> TooLargeError:
    """What to say of a file that unpacks to more than the limit, in bytes."""
    return TooLargeError(
        f'"{path}" unpacks to more than {size(limit)}, from {size(path.stat().st_size)}. If that '
        "is right and there is memory for it, allow it with --set data.max_unpacked_gb=N (in GB), "
        "or unpack the file yourself."
    )
