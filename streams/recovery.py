"""A start that remembers: the newest state that is whole, then the journal after it.

What was journalled is stepped again in its own batches, in its own order, with the encoder's turns
as they were; so the core is what it was, bit by bit. Batches that no mark covers may lack some of
their rows: these are written once more, the same.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

import msgspec

from infra.erasures import Erasures
from infra.log import get_log
from infra.reading import past_events, text_vectors
from infra.rows import JOURNAL, SHARD_MASK
from infra.warehouse_types import Warehouse
from online.events import Delivery, Event, Item
from online.step import Core, Step, Turn
from online.texts import TextVector, query_name
from streams.core_process import CoreLost
from streams.reviews import judged
from streams.texts import queries_of, query_text, text_key

log = get_log("recovery")

PAGE = 20_000  # journalled events read at once
PROGRESS_S = 2.0

_FIRST = """SELECT min(batch), count() FROM (
    SELECT batch FROM events ORDER BY batch DESC LIMIT %(newest)s
)"""

# a `forget` whose row is gone was heeded
_JOURNALLED = """SELECT DISTINCT offset FROM {table}
WHERE broker_id = %(broker)s AND topic = %(topic)s AND partition = %(partition)s
    AND offset >= %(first)s"""

_OWNER = """SELECT body FROM journal WHERE shard = %(shard)s AND batch = 0 AND kind = 'owner'
ORDER BY written_ms DESC LIMIT 1"""

_SERVED = """SELECT bitAnd(batch, %(mask)s) AS shard, max(batch) FROM events
WHERE broker_id = %(broker)s AND topic = %(topic)s AND partition = %(partition)s
GROUP BY shard"""

_COUNT = """SELECT count() FROM events
WHERE batch > %(after)s AND bitAnd(batch, %(mask)s) = %(shard)s"""

_COLUMNS = (
    "event_id, type, user_id, item_id, ts, session_id, price, quantity, rating, query, text, "
    "slate_id, position, context, topic, partition, offset, produced_ms, batch, batch_pos, "
    "broker_id"
)
_BATCH, _POSITION, _BROKER = 18, 19, 20

_PAGE = f"""SELECT {_COLUMNS} FROM events
WHERE (batch > %(batch)s OR (batch = %(batch)s AND batch_pos > %(position)s))
    AND bitAnd(batch, %(mask)s) = %(shard)s
ORDER BY batch, batch_pos LIMIT 1 BY batch, batch_pos LIMIT %(limit)s"""

_JOURNAL = """SELECT batch, pos, kind, body FROM journal
WHERE shard = %(shard)s AND (batch > %(batch)s OR (batch = %(batch)s AND pos > %(position)s))
ORDER BY batch, pos LIMIT 1 BY batch, kind, pos LIMIT %(limit)s"""

_SHARDS = """SELECT bitAnd(batch, %(mask)s) AS shard, max(batch) FROM events GROUP BY shard"""

_LAST = "SELECT max(batch) FROM {table}"

Part = tuple[int, bool, list[tuple[Any, ...]]]  # batch, are these events?, rows


class Remembers(Core, Protocol):
    """A core whose encoder can be told how its turns went."""

    def follow(self, turns: list[Turn]) -> None: ...
    def put_texts(self, vectors: Iterable[TextVector]) -> None: ...


@dataclass
class Entry:
    """A batch as it stands in the journal."""

    number: int
    broker_id: str = ""
    events: list[Delivery] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    announced: list[Item | str] = field(default_factory=list)  # a string: withdrawn
    texts: dict[str, str] = field(default_factory=dict)  # by item, the key of what was read of it


def owner(warehouse: Warehouse, shard: int) -> str:
    """The lineage whose batches the shard's are; empty when nobody claimed it yet."""
    rows = warehouse.query(_OWNER, {"shard": shard}).rows
    return str(rows[0][0]) if rows else ""


def claim(warehouse: Warehouse, shard: int, lineage: str) -> None:
    """From now on the shard's batches are this lineage's."""
    row = (shard, 0, "owner", 0, lineage, warehouse.broker_id, time.time_ns() // 1_000_000)
    warehouse.insert("journal", JOURNAL, [row])


class Journalled(NamedTuple):
    """What the journal knows of a partition that came to us."""

    offsets: set[int]  # from the first one on that is delivered again
    elsewhere: bool  # was it served by another shard since we served it?


def journalled(
    warehouse: Warehouse, shard: int, topic: str, partition: int, first: int
) -> Journalled:
    """Offsets from `first` on of this broker's partition that are in the journal; and whose."""
    place = {"broker": warehouse.broker_id, "topic": topic, "partition": partition}
    given = {**place, "first": first}
    tables = ("events", "erasures")
    rows = [warehouse.query(_JOURNALLED.format(table=table), given).rows for table in tables]
    offsets = {offset for (offset,) in itertools.chain.from_iterable(rows)}
    newest = dict(warehouse.query(_SERVED, {**place, "mask": SHARD_MASK}).rows)
    ours = newest.pop(shard, -1)
    return Journalled(offsets, any(n > ours for n in newest.values()))


class Recovery:
    """Steps journalled batches through a core.

    `stopping` ends it early; `progress(done, total)` is told how far it is. Methods raise
    WarehouseError.
    """

    def __init__(
        self,
        core: Remembers,
        warehouse: Warehouse,
        stopping: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int], None] = lambda done, total: None,
        erasures: Erasures | None = None,
        model: str = "",
    ) -> None:
        """model: whose vectors of texts count; "": nobody's."""
        self._model = model
        self._core = core
        self._warehouse = warehouse
        self._stopping = stopping
        self._progress = progress
        self._erasures = erasures
        self.events = 0  # that were stepped

    def newest(self, events: int) -> None:
        """Without a state: learn the newest journalled events again, whoever learned them."""
        first, total = self._query(_FIRST, newest=events)[0] if events else (0, 0)
        if total:
            self._step_all(_entries(self._warehouse, first - 1, -1), total)

    def tail(
        self, shard: int, after: int, unmarked: int, write: Callable[[Entry, Step], None]
    ) -> None:
        """Go on from a state: what this shard journalled after the batch `after`.

        `write` is given the batches after `unmarked` and what they did.
        """
        ((total,),) = self._query(_COUNT, after=after, mask=SHARD_MASK, shard=shard)

        def wrote(entry: Entry, step: Step) -> None:
            if entry.number > unmarked:
                write(entry, step)

        self._step_all(_entries(self._warehouse, after, shard), total, wrote)

    def last_batch(self) -> int:
        """The highest number in the journal, 0 without any: numbering goes on from there."""
        tables = ("events", "journal")
        return max(int(self._query(_LAST.format(table=t))[0][0] or 0) for t in tables)

    def newest_of_shards(self) -> dict[int, int]:
        """By shard, the newest batch that it journalled."""
        rows = self._query(_SHARDS, mask=SHARD_MASK)
        return {int(shard): int(batch) for shard, batch in rows}

    def _step_all(
        self, entries: Iterator[Entry], total: int,
        wrote: Callable[[Entry, Step], None] = lambda entry, step: None,
    ) -> None:  # fmt: skip
        started = said = time.monotonic()
        for entry in entries:
            if self._stopping():
                break
            step = self._step(entry)
            if step is not None:
                wrote(entry, step)
            self.events += len(entry.events)
            self._progress(self.events, total)
            if time.monotonic() - said > PROGRESS_S:
                said = time.monotonic()
                log.info("recovering", events=self.events, of=total)
        seconds = round(time.monotonic() - started, 1)
        log.info("recovered", events=self.events, seconds=seconds)

    def _step(self, entry: Entry) -> Step | None:
        for told in entry.announced:
            if isinstance(told, Item):
                self._core.announce([told])
            else:
                self._core.withdraw([told])
        if entry.events:
            self._restore(entry)
        self._put_texts(entry)
        if not entry.events:
            return None
        if entry.turns:
            self._core.follow(entry.turns)
        try:
            return self._core.step(entry.events, time.time_ns() // 1_000_000)
        except CoreLost:
            raise
        except Exception as error:  # it was found when it came; a start must not die of it again
            said = f"{type(error).__name__}: {error}"
            log.warning("recovery_skipped", batch=entry.number, error=said)
            return None

    def _put_texts(self, entry: Entry) -> None:
        """What was read of items then, and of this batch's queries."""
        queries = {
            query_name(q): text_key(query_text(q))
            for q in queries_of(d.event for d in entry.events)
        }
        names = {**entry.texts, **queries}
        if not names or not self._model:
            return
        found = text_vectors(self._warehouse.query, self._model, set(names.values()))
        found[""] = b""  # nothing was said
        self._core.put_texts(
            TextVector(name, found[key]) for name, key in names.items() if key in found
        )

    def _restore(self, entry: Entry) -> None:
        missing = self._core.missing(entry.events)
        if not missing:
            return
        # what the core held of them before this batch: everything that was journalled before it
        before = {"before": entry.number}
        found = past_events(self._warehouse.query, missing, "batch < %(before)s", before,
                            self._core.history_limit)  # fmt: skip
        histories = {user: found.get(user, []) for user in missing}
        self._core.restore(self._erasures.begin(histories) if self._erasures else histories)

    def _query(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return self._warehouse.query(sql, parameters).rows


def _entries(warehouse: Warehouse, after: int, shard: int) -> Iterator[Entry]:
    """Journalled batches after number `after`, in order, each as it was learned.

    shard: whose; -1 for events of all, and of events only (what went on beside them is each
    shard's own).
    """
    mask = SHARD_MASK if shard >= 0 else 0
    cursor = {"mask": mask, "shard": max(shard, 0), "batch": after, "position": 1 << 30}
    rows = _rows(warehouse, _PAGE, dict(cursor), _BATCH, _POSITION)
    told = _rows(warehouse, _JOURNAL, dict(cursor), 0, 1) if shard >= 0 else iter(())
    both = heapq.merge(_grouped(rows, _BATCH, True), _grouped(told, 0, False), key=itemgetter(0))
    for number, parts in itertools.groupby(both, itemgetter(0)):
        yield _entry(number, list(parts))


def _grouped(rows: Iterator[tuple[Any, ...]], by: int, are_events: bool) -> Iterator[Part]:
    for number, group in itertools.groupby(rows, itemgetter(by)):
        yield number, are_events, list(group)


def _entry(number: int, parts: list[Part]) -> Entry:
    entry = Entry(number)
    for _, are_events, rows in parts:
        if are_events:
            entry.events = [_delivery(row) for row in rows]
            entry.broker_id = rows[0][_BROKER]
            continue
        for _, _, kind, body in sorted(rows, key=itemgetter(1)):
            if kind == "turn":
                entry.turns.append(msgspec.json.decode(body, type=Turn))
            elif kind == "item":
                entry.announced.append(msgspec.json.decode(body, type=Item))
            elif kind == "withdrawal":
                entry.announced.append(body)
            elif kind == "text":
                item, key = msgspec.json.decode(body, type=tuple[str, str])
                entry.texts[item] = key
    return entry


def _rows(
    warehouse: Warehouse, sql: str, cursor: dict[str, Any], batch: int, position: int
) -> Iterator[tuple[Any, ...]]:
    while True:
        rows = warehouse.query(sql, {**cursor, "limit": PAGE}).rows
        yield from rows
        if len(rows) < PAGE:
            return
        cursor |= {"batch": rows[-1][batch], "position": rows[-1][position]}


def _delivery(row: tuple[Any, ...]) -> Delivery:
    context = row[13]
    event = Event(
        event_id=row[0], type=row[1], user_id=row[2], item_id=row[3], ts=row[4],
        session_id=row[5] or None, price=row[6], quantity=row[7], rating=row[8], query=row[9],
        text=row[10], slate_id=row[11] or None, position=row[12],
        context=msgspec.json.decode(context) if context else None,
    )  # fmt: skip
    return Delivery(judged(event), row[14], row[15], row[16], row[17])
