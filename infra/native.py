"""ClickHouse's Native format for chdb, by clickhouse-driver's own codecs.

So a value becomes the same bytes on its way in, and the same Python value on its way out,
whether a server or the embedded engine answers: NULL, NaN, bytes that are no text, arrays, times.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from clickhouse_driver.block import ColumnOrientedBlock
from clickhouse_driver.bufferedreader import CompressedBufferedReader
from clickhouse_driver.bufferedwriter import CompressedBufferedWriter
from clickhouse_driver.connection import ServerInfo
from clickhouse_driver.context import Context
from clickhouse_driver.streams.native import BlockInputStream, BlockOutputStream

_BUFFER = 1 << 16


def context() -> Context:
    """What the codecs want to know of a server. Revision 0 is the plain file format."""
    made = Context()
    made.settings = {}
    made.client_settings = {
        "strings_as_bytes": False,
        "strings_encoding": "utf-8",
        "use_numpy": False,
        "input_format_null_as_default": False,
        "namedtuple_as_json": True,
        "server_side_params": False,
    }
    made.server_info = ServerInfo("chdb", 0, 0, 0, 0, "UTC", "chdb", 0)
    return made


def encode(columns: Sequence[tuple[str, str]], values: Sequence[Sequence[Any]]) -> bytes:
    """One block: (name, type) of each column, and a sequence of values for each."""
    out = io.BytesIO()
    writer = CompressedBufferedWriter(out, _BUFFER)
    block = ColumnOrientedBlock(list(columns), list(values), types_check=False)
    BlockOutputStream(writer, context()).write(block)
    writer.write_into_stream()
    return out.getvalue()


def columns_of(text: bytes) -> list[tuple[str, str]]:
    """(name, type) of each column of an answer in the format JSONCompact."""
    return [(column["name"], column["type"]) for column in json.loads(text)["meta"]]


def header(columns: Sequence[tuple[str, str]]) -> bytes:
    """A block without rows, which chdb leaves out and other readers of the format wait for."""
    out = bytearray([*_varint(len(columns)), 0])
    for text in (part for column in columns for part in column):
        raw = text.encode()
        out += bytes(_varint(len(raw))) + raw
    return bytes(out)


def _varint(number: int) -> list[int]:
    low, high = number & 0x7F, number >> 7
    return [low | 0x80, *_varint(high)] if high else [low]


def decode(text: bytes) -> tuple[list[tuple[str, str]], list[tuple[Any, ...]]]:
    """(name, type) of each column, and the rows. A result without rows has no blocks: no columns.

    >>> decode(encode([("n", "Int64"), ("s", "Nullable(String)")], [[1, 2], ["é", None]]))[1]
    [(1, 'é'), (2, None)]
    """
    unread = [bytearray(text)] if text else []

    def more() -> bytearray:
        if not unread:
            raise EOFError
        return unread.pop()

    stream = BlockInputStream(CompressedBufferedReader(more, max(1, len(text))), context())
    columns: list[tuple[str, str]] = []
    rows: list[tuple[Any, ...]] = []
    while True:
        try:
            block = stream.read()
        except EOFError:
            return columns, rows
        columns = block.columns_with_types
        rows.extend(zip(*map(_in_utc, columns, block.get_columns()), strict=True))


def _in_utc(column: tuple[str, str], values: Sequence[Any]) -> Sequence[Any]:
    """The plain format drops time zones: what it gives are seconds since 1970 in UTC."""
    if not column[1].startswith(("DateTime", "Nullable(DateTime")):
        return values
    return [v.replace(tzinfo=UTC) if isinstance(v, datetime) else v for v in values]
