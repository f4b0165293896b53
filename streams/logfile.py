"""Logs of events and catalogues of items in files: read, checked and put in order.

A file is read twice. The first pass checks every row, so that nothing of a faulty file is ever
sent; the second gives the records. Memory is bounded by one record batch; only a log that is
not in `ts` order (or whose ties are shuffled) is copied to a temporary file and costs 16 bytes
of memory a row.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from online.events import Event, Item
from streams import logcheck, logformat
from streams.logcolumns import EVENT_COLUMNS, ITEM_COLUMNS, TS_UNITS, Column, typed_batch
from streams.logformat import LogError

__all__ = ["EventLog", "ItemFile", "LogError", "Reading"]

NO_FUTURE = 1 << 53  # a `now_ms` that refuses no event: a backtest has no wall clock

Record = TypeVar("Record", Event, Item)


@dataclass(frozen=True)
class Reading:
    """How the columns of a foreign file are to be read.

    `rename` maps our column names to theirs, `fixed` gives a column one value for all rows,
    `ts_unit` is what `ts` counts (s, ms, us) or iso.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)
    ts_unit: str = "ms"

    def __post_init__(self) -> None:
        if self.ts_unit not in TS_UNITS:
            raise LogError(f"--ts-unit {self.ts_unit}: use one of {', '.join(TS_UNITS)}")


class _TypedFile:
    """A file as record batches in our columns and types."""

    def __init__(self, path: Path, columns: Mapping[str, Column], reading: Reading) -> None:
        self.path, self.columns, self.reading = path, columns, reading
        for option, chosen in (("--map", reading.rename), ("--set", reading.fixed)):
            unknown = sorted(set(chosen) - set(columns))
            if unknown:
                raise LogError(
                    f"{option} {unknown[0]}=…: there is no column {unknown[0]!r}; use one of"
                    f" {', '.join(columns)}"
                )
        self.theirs: Mapping[str, str] = {n: reading.rename.get(n, n) for n in columns}

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        wanted = [t for name, t in self.theirs.items() if name not in self.reading.fixed]
        text = logformat.format_of(self.path) == "jsonl"
        for first, batch in logformat.record_batches(self.path, list(dict.fromkeys(wanted))):
            if first == 1:
                self._refuse_missing(batch, text)
            yield first, typed_batch(self, first, batch)

    def _refuse_missing(self, batch: pa.RecordBatch, jsonl: bool) -> None:
        present = set(batch.schema.names)
        if jsonl:  # the keys of a line are its own: a column is missing if no row has it
            present = {n for n in present if batch.column(n).null_count < batch.num_rows}
        for name, column in self.columns.items():
            theirs = self.theirs[name]
            if name in self.reading.fixed or theirs in present:
                continue
            if column.required or (name in self.reading.rename and not jsonl):
                cure = f"use --map {name}=THEIRS"
                if name in ("type", "user_id"):
                    cure += f" or --set {name}=VALUE"
                raise LogError(
                    f"{self.path} has no column {theirs!r} (it has"
                    f" {', '.join(self._all_names()) or 'none'}): {cure}"
                )

    def _all_names(self) -> list[str]:
        _, batch = next(logformat.record_batches(self.path, None, rows=100))
        return list(batch.schema.names)


class EventLog:
    """A checked log of events. Use it in a `with` block: it may hold a temporary file.

    Attributes: `rows`, `first_ts` and `last_ts` (epoch ms), `in_order` (was the file sorted?).
    Raises LogError, naming file, column and row, if any row is not a valid event.
    """

    def __init__(
        self, path: str | Path, reading: Reading = Reading(), now_ms: int = NO_FUTURE
    ) -> None:
        self.path = Path(path)
        self._file = _TypedFile(self.path, EVENT_COLUMNS, reading)
        self._spilled: dict[int | None, _Spilled] = {}
        self.rows, self.in_order = 0, True
        self.first_ts, self.last_ts = NO_FUTURE, -1
        for first, batch in self._file.batches():
            logcheck.refuse_events(self.path, first, batch, now_ms)
            ts = batch.column("ts").to_numpy()
            self.in_order &= bool(ts[0] >= self.last_ts and (np.diff(ts) >= 0).all())
            self.rows += len(ts)
            self.first_ts = min(self.first_ts, int(ts.min()))
            self.last_ts = max(self.last_ts, int(ts.max()))

    def batches(
        self,
        size: int = 512,
        *,
        limit: int | None = None,
        start: int = 0,
        shuffle_ties: int | None = None,
    ) -> Iterator[list[Event]]:
        """Lists of `size` events in `ts` order; ties in file order, or shuffled by a seed.

        `start` events are skipped and at most `limit` given.
        """
        if self.in_order and shuffle_ties is None:
            source: Iterator[pa.RecordBatch] = (b for _, b in self._file.batches())
        else:
            if shuffle_ties not in self._spilled:
                self._spilled[shuffle_ties] = _Spilled(self._file, shuffle_ties)
            source = self._spilled[shuffle_ties].batches()
        stop = self.rows if limit is None else min(self.rows, start + limit)
        yield from _cut(source, Event, size, start, stop)

    def close(self) -> None:
        for spilled in self._spilled.values():
            spilled.close()
        self._spilled.clear()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


class ItemFile:
    """A checked catalogue file: Parquet, CSV or JSONL with the columns of the item record."""

    def __init__(self, path: str | Path, reading: Reading = Reading()) -> None:
        self.path = Path(path)
        self._file = _TypedFile(self.path, ITEM_COLUMNS, reading)
        self.rows = 0
        for first, batch in self._file.batches():
            logcheck.refuse_items(self.path, first, batch)
            self.rows += batch.num_rows

    def batches(self, size: int = 512, limit: int | None = None) -> Iterator[list[Item]]:
        """Lists of `size` items in file order."""
        stop = self.rows if limit is None else min(self.rows, limit)
        yield from _cut((b for _, b in self._file.batches()), Item, size, 0, stop)

    def __iter__(self) -> Iterator[Item]:
        for batch in self.batches(4096):
            yield from batch


def _cut(
    source: Iterator[pa.RecordBatch], kind: type[Record], size: int, start: int, stop: int
) -> Iterator[list[Record]]:
    """Rows `start` to `stop` of the batches as lists of `size` records (the last: fewer)."""
    if size < 1:
        raise ValueError(f"size={size}: at least 1 is needed")
    held: list[Record] = []
    position = 0
    for batch in source:
        rows = batch.num_rows
        lo, hi = max(start - position, 0), min(stop - position, rows)
        if lo < hi:
            for cut in range(lo, hi, 4096):
                held += logcheck.records(batch.slice(cut, min(4096, hi - cut)), kind)
                while len(held) >= size:
                    yield held[:size]
                    held = held[size:]
        position += rows
        if position >= stop:
            break
    if held:
        yield held


class _Spilled:
    """A copy of the log on disk that is read in another order."""

    def __init__(self, file: _TypedFile, shuffle_ties: int | None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="freshrec-log-")
        path = Path(self._folder.name) / "log.arrow"
        times: list[np.ndarray[Any, Any]] = []
        writer = None
        for _, batch in file.batches():
            times.append(batch.column("ts").to_numpy())
            writer = writer or pa.ipc.new_file(str(path), batch.schema)
            writer.write_batch(batch)
        if writer is not None:
            writer.close()
        ts = np.concatenate(times)
        self._starts = np.cumsum([0, *map(len, times)])
        if shuffle_ties is None:
            self._order = np.argsort(ts, kind="stable")
        else:
            chance = np.random.default_rng(shuffle_ties).permutation(len(ts))
            self._order = np.lexsort((chance, ts))
        self._map = pa.memory_map(str(path))
        self._reader = pa.ipc.open_file(self._map)

    def batches(self, rows: int = logformat.ROWS) -> Iterator[pa.RecordBatch]:
        for start in range(0, len(self._order), rows):
            yield self._take(self._order[start : start + rows])

    def _take(self, wanted: np.ndarray[Any, Any]) -> pa.RecordBatch:
        """Rows by number: taken from each stored batch, then put back in the wanted order."""
        stored = np.searchsorted(self._starts, wanted, side="right") - 1
        pieces, places = [], []
        for number in np.unique(stored):
            at = np.flatnonzero(stored == number)
            local = pa.array(wanted[at] - self._starts[number])
            pieces.append(self._reader.get_batch(int(number)).take(local))
            places.append(at)
        back = np.argsort(np.concatenate(places), kind="stable")
        table = pa.Table.from_batches(pieces).combine_chunks().take(pa.array(back))
        return table.combine_chunks().to_batches()[0]

    def close(self) -> None:
        self._map.close()
        self._folder.cleanup()
