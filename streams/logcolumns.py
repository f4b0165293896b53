"""The columns of logs: names, types, and how a foreign column becomes one of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from online.events import MAX_ID
from streams.logformat import LogError, stem_of

PER_MS = {"s": 1000.0, "ms": 1.0, "us": 0.001}
TS_UNITS = (*PER_MS, "iso")


class Column(NamedTuple):
    kind: str  # text | number | integer | time | json
    required: bool = False
    blank: str | None = None  # what stands for a null


EVENT_COLUMNS = {
    "event_id": Column("text"),  # missing ids are derived from file name and row
    "type": Column("text", required=True),
    "user_id": Column("text", required=True),
    "item_id": Column("text", required=True, blank=""),
    "ts": Column("time", required=True),
    "session_id": Column("text"),
    "price": Column("number"),
    "quantity": Column("number"),
    "rating": Column("number"),
    "query": Column("text"),
    "text": Column("text"),
    "slate_id": Column("text"),
    "position": Column("integer"),
    "context": Column("json"),
}
ITEM_COLUMNS = {
    "item_id": Column("text", required=True),
    "title": Column("text", blank=""),
    "category": Column("text", blank=""),
    "brand": Column("text", blank=""),
    "price": Column("number"),
    "description": Column("text", blank=""),
    "tags": Column("json", blank="[]"),
    "stock": Column("number"),
    "available_from": Column("time"),
}
ARROW = {
    "text": pa.large_string(), "number": pa.float64(), "integer": pa.int64(),
    "time": pa.int64(), "json": pa.large_string(),
}  # fmt: skip


class _Source(Protocol):
    path: Path
    columns: Mapping[str, Column]
    reading: Any
    theirs: Mapping[str, str]


def typed_batch(source: _Source, first: int, batch: pa.RecordBatch) -> pa.RecordBatch:
    """`batch` in our names and types. Columns that the file lacks are left out.

    Raises LogError naming file, column and row (`first` is the number of the first one).
    """
    arrays: dict[str, pa.Array] = {}
    fixed = source.reading.fixed
    for name, column in source.columns.items():
        if name in fixed:
            raw: pa.Array = pa.array([fixed[name].encode()] * batch.num_rows, pa.binary())
        elif source.theirs[name] in batch.schema.names:
            raw = batch.column(source.theirs[name])
        else:
            continue
        where = _Where(source.path, source.theirs[name], first)
        array = _CONVERT[column.kind](raw, where, source.reading.ts_unit)
        if column.required and column.blank is None and array.null_count:
            row = int(np.flatnonzero(pc.is_null(array).to_numpy(zero_copy_only=False))[0])
            where.refuse(row, "the value is missing")
        if column.blank is not None and array.null_count:
            array = pc.fill_null(array, column.blank)
        arrays[name] = array
    if "event_id" in source.columns:
        arrays["event_id"] = _event_ids(source.path, first, batch.num_rows, arrays.get("event_id"))
    return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


class _Where(NamedTuple):
    path: Path
    column: str
    first: int

    def refuse(self, row: int, fault: str) -> None:
        raise LogError(f"{self.path}, column {self.column!r}, row {self.first + row}: {fault}")

    def refuse_type(self, array: pa.Array, allowed: str) -> None:
        raise LogError(
            f"{self.path}, column {self.column!r}, row {self.first}:"
            f" values are of type {array.type}: {allowed} are allowed"
        )


def _event_ids(path: Path, first: int, rows: int, ids: pa.Array | None) -> pa.Array:
    if ids is not None and not ids.null_count:
        return ids
    stem = "".join(c if c.isprintable() else "_" for c in stem_of(path))[-(MAX_ID - 20) :]
    numbers = pa.array(np.arange(first - 1, first - 1 + rows)).cast(pa.large_string())
    made = pc.binary_join_element_wise(
        pa.scalar(stem, pa.large_string()), numbers, pa.scalar("-", pa.large_string())
    )
    return made if ids is None else pc.coalesce(ids, made)


def _plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _text(array: pa.Array, where: _Where, _unit: str) -> pa.Array:
    array = _plain(array)
    if pa.types.is_null(array.type) or pa.types.is_integer(array.type):
        return array.cast(pa.large_string())
    if _is_binary(array.type):
        array = _decoded(array, where)
    if not _is_text(array.type):
        where.refuse_type(array, "text or whole numbers")
    array = array.cast(pa.large_string())
    empty = pc.equal(pc.binary_length(array), 0)
    return pc.if_else(empty, pa.scalar(None, array.type), array) if pc.any(empty).as_py() else array


def _decoded(array: pa.Array, where: _Where) -> pa.Array:
    try:
        return array.cast(pa.large_string())
    except pa.ArrowInvalid:
        for row, value in enumerate(array.to_pylist()):
            try:
                (value or b"").decode()
            except UnicodeDecodeError as e:
                where.refuse(row, f"not UTF-8 ({e.reason} at byte {e.start})")
        raise


def _number(array: pa.Array, where: _Where, _unit: str) -> pa.Array:
    return _numeric(array, where, pa.float64(), "numbers", float)


def _integer(array: pa.Array, where: _Where, _unit: str) -> pa.Array:
    return _numeric(array, where, pa.int64(), "whole numbers", int)


def _numeric(
    array: pa.Array, where: _Where, target: pa.DataType, allowed: str, parse: Callable[[str], Any]
) -> pa.Array:
    array = _plain(array)
    kind = array.type
    if _is_binary(kind) or _is_text(kind):
        text = pc.utf8_trim_whitespace(_text(array, where, ""))
        try:
            return text.cast(target)
        except pa.ArrowInvalid:  # slower, and able to name the row
            return pa.array(_each(text, where, allowed, parse), target)
    if not (
        pa.types.is_null(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
    ):  # fmt: skip
        where.refuse_type(array, allowed)
    try:
        return array.cast(target, safe=target != pa.float64())
    except pa.ArrowInvalid:
        for row, value in enumerate(array.to_pylist()):
            if value is not None and not _is_whole(value):
                where.refuse(row, f"{value!r}: {allowed} are allowed")
        raise


def _is_whole(value: Any) -> bool:
    return -(2**63) <= value < 2**63 and int(value) == value  # false for NaN


def _each(text: pa.Array, where: _Where, allowed: str, parse: Callable[[str], Any]) -> list[Any]:
    out: list[Any] = []
    for row, value in enumerate(text.to_pylist()):
        try:
            out.append(None if value is None else parse(value))
            if isinstance(out[-1], int) and not -(2**63) <= out[-1] < 2**63:
                raise ValueError
        except (ValueError, OverflowError):
            where.refuse(row, f"{value[:80]!r}: {allowed} are allowed")
    return out


def _time(array: pa.Array, where: _Where, unit: str) -> pa.Array:
    array = _plain(array)
    if pa.types.is_timestamp(array.type):
        return array.cast(pa.timestamp("ms", array.type.tz), safe=False).cast(pa.int64())
    if pa.types.is_date(array.type):
        return array.cast(pa.timestamp("ms")).cast(pa.int64())
    if unit == "iso":
        if not (_is_binary(array.type) or _is_text(array.type)):
            where.refuse_type(array, "ISO 8601 times (as --ts-unit iso says)")
        return pa.array(_each(_text(array, where, ""), where, "ISO 8601 times", _iso), pa.int64())
    if unit == "ms":
        allowed = "whole epoch milliseconds (or --ts-unit s, us or iso)"
        return _numeric(array, where, pa.int64(), allowed, int)
    counts = _numeric(array, where, pa.float64(), f"epoch times in {unit}", float)
    scaled = pc.floor(pc.add(pc.multiply(counts, PER_MS[unit]), 1e-6))
    values = scaled.to_numpy(zero_copy_only=False)
    bad = np.flatnonzero(~(np.abs(np.nan_to_num(values, nan=0.0, posinf=np.inf)) < 2.0**62))
    odd = [int(r) for r in bad] or [
        int(r) for r in np.flatnonzero(np.isnan(values)) if counts[int(r)].is_valid
    ]
    if odd:
        where.refuse(odd[0], f"{counts[odd[0]].as_py()!r}: epoch times in {unit} are allowed")
    return scaled.cast(pa.int64())


def _iso(value: str) -> int:
    when = datetime.fromisoformat(value.strip())
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    seconds = when - datetime(1970, 1, 1, tzinfo=UTC)
    return seconds.days * 86_400_000 + seconds.seconds * 1000 + seconds.microseconds // 1000


def _json(array: pa.Array, where: _Where, _unit: str) -> pa.Array:
    array = _plain(array)
    if pa.types.is_null(array.type) or _is_binary(array.type) or _is_text(array.type):
        return _text(array, where, "")
    values = array.to_pylist()
    if pa.types.is_map(array.type):
        values = [None if v is None else dict(v) for v in values]
    elif not (pa.types.is_struct(array.type) or pa.types.is_list(array.type)
              or pa.types.is_large_list(array.type)):  # fmt: skip
        where.refuse_type(array, "JSON objects, structs or lists")
    encoded = [None if v is None else msgspec.json.encode(v).decode() for v in values]
    return pa.array(encoded, pa.large_string())


_CONVERT = {
    "text": _text, "number": _number, "integer": _integer, "time": _time, "json": _json,
}  # fmt: skip
