"""Rows to records, and the rules of `online.events` over whole record batches.

The rules live in `online.events`. Here a vectorised sieve finds the rows that *could* break
one; only those are built and judged, so that a clean log is checked at Arrow's speed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from online.events import (
    EVENT_TYPES,
    FUTURE_MS,
    MAX_ID,
    MAX_NUMBER,
    MAX_TEXT,
    WITHOUT_ITEM,
    Event,
    Item,
    event_fault,
    item_fault,
)
from streams.logformat import LogError

Record = TypeVar("Record", Event, Item)
Mask = np.ndarray[Any, np.dtype[np.bool_]]

IDS = ("event_id", "user_id", "item_id", "session_id", "slate_id")
NUMBERS = ("price", "quantity", "rating", "stock")
TEXTS = ("query", "text", "title", "category", "brand", "description")
JUDGED = ("position", "context", "tags", "available_from")  # rare: every such row is built

_CONTEXT = msgspec.json.Decoder(dict[str, str | int | float | bool | None])
_TAGS = msgspec.json.Decoder(list[str])


def records(batch: pa.RecordBatch, kind: type[Record]) -> list[Record]:
    """The rows of a typed batch as events or items."""
    names = batch.schema.names
    columns = [column.to_pylist() for column in batch.columns]
    for name, decoder in (("context", _CONTEXT), ("tags", _TAGS)):
        if name in names:
            at = names.index(name)
            columns[at] = [None if v is None else decoder.decode(v) for v in columns[at]]
    return [kind(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def refuse_events(path: Path, first: int, batch: pa.RecordBatch, now_ms: int) -> None:
    """Raise LogError for the first row of `batch` that is no valid event."""
    allowed = pc.is_in(batch.column("type"), value_set=pa.array(EVENT_TYPES, pa.large_string()))
    odd = np.flatnonzero(~_mask(allowed))
    if len(odd):
        row = int(odd[0])
        raise LogError(
            f"{path}, column 'type', row {first + row}: {batch.column('type')[row].as_py()!r};"
            f" allowed are {', '.join(EVENT_TYPES)} (or --set type=click)"
        )
    ts = batch.column("ts").to_numpy()
    suspects = _suspects(batch) | (ts < 0) | (ts > now_ms + FUTURE_MS)
    special = pa.array(sorted(WITHOUT_ITEM), pa.large_string())
    suspects |= _mask(pc.is_in(batch.column("type"), value_set=special))
    rated = _mask(pc.is_valid(batch.column("rating"))) if "rating" in batch.schema.names else False
    suspects |= _mask(pc.equal(batch.column("type"), "rating")) & ~np.asarray(rated, bool)
    _judge(path, first, batch, suspects, Event, lambda event: event_fault(event, now_ms))


def refuse_items(path: Path, first: int, batch: pa.RecordBatch) -> None:
    """Raise LogError for the first row of `batch` that is no valid item."""
    _judge(path, first, batch, _suspects(batch), Item, item_fault)


def _mask(array: pa.Array) -> Mask:
    return np.asarray(pc.fill_null(array, False).to_numpy(zero_copy_only=False), bool)


def _suspects(batch: pa.RecordBatch) -> Mask:
    out: Mask = np.zeros(batch.num_rows, bool)
    for name in batch.schema.names:
        column = batch.column(name)
        if name in IDS:
            size = pc.binary_length(column)
            out |= _mask(pc.greater(size, MAX_ID)) | _mask(pc.equal(size, 0))
            out |= ~_mask(pc.fill_null(pc.match_substring_regex(column, r"\A[ -~]*\z"), True))
        elif name in NUMBERS:
            out |= ~_mask(pc.fill_null(pc.less_equal(pc.abs(column), MAX_NUMBER), True))
        elif name in TEXTS:
            out |= _mask(pc.greater(pc.binary_length(column), MAX_TEXT))
        elif name in JUDGED:
            out |= _mask(pc.is_valid(column))
    return out


def _judge(
    path: Path,
    first: int,
    batch: pa.RecordBatch,
    suspects: Mask,
    kind: type[Record],
    fault_of: Callable[[Record], str | None],
) -> None:
    for row in np.flatnonzero(suspects):
        try:
            (record,) = records(batch.slice(int(row), 1), kind)
        except (msgspec.MsgspecError, UnicodeError) as e:
            name = "context" if kind is Event else "tags"
            raise LogError(f"{path}, column {name!r}, row {first + row}: {e}") from e
        fault = fault_of(record)
        if fault:
            column = fault.split("=")[0].split(" ")[0]
            raise LogError(f"{path}, column {column!r}, row {first + row}: {fault}")
