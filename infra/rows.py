"""What a step did, as rows of the warehouse. Pure: keys come from the log, never from a clock."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
import numpy as np

from online.events import Delivery, Event, Item
from online.step import Metric, Reject, Slate, Step

Row = tuple[Any, ...]
Block = tuple[str, Sequence[str], list[Row]]  # table, columns, rows
Place = tuple[str, int, int]  # topic, partition, offset

EVENTS = (
    "event_id",
    "type",
    "user_id",
    "item_id",
    "ts",
    "session_id",
    "price",
    "quantity",
    "rating",
    "query",
    "text",
    "slate_id",
    "position",
    "context",
    "broker_id",
    "topic",
    "partition",
    "offset",
    "produced_ms",
    "batch",
    "batch_pos",
    "written_ms",
)
SLATES = (
    "user_id",
    "slate_id",
    "item_ids",
    "scores",
    "reasons",
    "sources",
    "propensities",
    "model_version",
    "ts",
    "broker_id",
    "topic",
    "partition",
    "offset",
    "produced_ms",
    "version",
    "written_ms",
)
METRICS = (
    "name",
    "value",
    "count",
    "ts",
    "broker_id",
    "topic",
    "partition",
    "offset",
    "batch",
    "produced_ms",
    "version",
    "written_ms",
)
VECTORS = (
    "vector",
    "encoder",
    "ts",
    "broker_id",
    "topic",
    "partition",
    "offset",
    "produced_ms",
    "version",
    "written_ms",
)
ITEMS = (
    "item_id",
    "title",
    "category",
    "brand",
    "price",
    "description",
    "tags",
    "stock",
    "available_from",
    "deleted",
    "broker_id",
    "topic",
    "partition",
    "offset",
    "produced_ms",
    "version",
    "written_ms",
)
DEAD_LETTERS = (
    "broker_id",
    "topic",
    "partition",
    "offset",
    "produced_ms",
    "reason",
    "raw",
    "written_ms",
)

TEXT_VECTORS = ("model", "text_key", "vector", "written_ms")
ITEM_TEXTS = ("item_id", "model", "text_key", "version", "written_ms")
OPINIONS = ("item_id", "sentiment", "rating", "ts", "broker_id", "topic", "partition", "offset",
            "produced_ms", "written_ms")  # fmt: skip
JOURNAL = ("shard", "batch", "kind", "pos", "body", "broker_id", "written_ms")

TABLES = (
    "journal", "events", "slates", "recommendations", "metrics", "dead_letters", "user_vectors",
    "item_vectors", "opinions",
)  # rows of a step  # fmt: skip
_OFFSETS = 1 << 22
_LAST_MS = (1 << 42) - 1  # the year 2109
_MAX_RAW = 1 << 20  # bytes kept of a dead letter
_json = msgspec.json.Encoder()


SHARD_BITS = 10  # the last bits of a batch's number: which shard learned it
SHARD_MASK = (1 << SHARD_BITS) - 1


class BatchId(NamedTuple):
    """Which batch of which broker: `batch` is the number that the journal gives it."""

    broker_id: str
    batch: int

    @property
    def shard(self) -> int:
        return self.batch & SHARD_MASK


def next_batch(last: int, now_us: int, shard: int) -> int:
    """The number of a shard's batch after `last`: about the time, and always a higher one.

    >>> next_batch(0, 5000, shard=1) - (4 << SHARD_BITS), next_batch(1 << 20, 0, shard=0) >> 10
    (1, 1025)
    """
    return max((last >> SHARD_BITS) + 1, now_us >> SHARD_BITS) << SHARD_BITS | shard


class Announcement(NamedTuple):
    """A message of the topic `items`: an item, or its withdrawal (a tombstone, `item` None)."""

    item_id: str
    item: Item | None
    topic: str
    partition: int
    offset: int
    produced_ms: int


class DeadLetter(NamedTuple):
    """A message that nobody could use, as it came."""

    topic: str
    partition: int
    offset: int
    produced_ms: int
    reason: str
    raw: bytes


def version(produced_ms: int, offset: int) -> int:
    """Orders messages by (produced_ms, offset) in 64 bits: the newest row of a key wins.

    Offsets count modulo 2^22, which matters only for two messages of one key within one
    millisecond and four million others between them.
    """
    return min(max(produced_ms, 0), _LAST_MS) * _OFFSETS + offset % _OFFSETS


def rows_of(
    step: Step,
    batch: BatchId,
    written_ms: int,
    raw: Mapping[Place, bytes] | None = None,
    tables: Collection[str] = TABLES,
) -> list[Block]:
    """Blocks of `tables` to insert in this order: the journal first. Empty ones are left out.

    `raw` gives the bytes of rejected messages as they came; without it they are encoded again.
    """
    blocks: list[Block] = [
        (table, columns, rows(step, batch, written_ms))
        for table, (columns, rows) in _OF_STEPS.items()
        if table in tables
    ]
    if "dead_letters" in tables:
        letters = [_letter(r, raw or {}) for r in step.rejects]
        blocks += dead_letter_rows(letters, batch.broker_id, written_ms)
    return [block for block in blocks if block[2]]


def item_rows(
    announcements: Iterable[Announcement], broker_id: str, written_ms: int
) -> list[Block]:
    """The block of table `items` (none without announcements)."""
    rows = [_item(a, broker_id, written_ms) for a in announcements]
    return [("items", ITEMS, rows)] if rows else []


def announcement_rows(
    announcements: Iterable[Announcement], batch: BatchId, written_ms: int
) -> list[Block]:
    """The same for the journal: what the core was told, and when among the batches."""
    rows: list[Row] = [
        (batch.shard, batch.batch, "item" if a.item else "withdrawal", n,
         _json.encode(a.item) if a.item else a.item_id.encode(), batch.broker_id, written_ms)
        for n, a in enumerate(announcements)
    ]  # fmt: skip
    return [("journal", JOURNAL, rows)] if rows else []


def text_rows(
    model: str, made: Mapping[str, bytes], keys: Mapping[str, str], batch: BatchId,
    written_ms: int,
) -> list[Block]:  # fmt: skip
    """What texts said: vectors by their key, and each item's key, also for the journal."""
    vectors: list[Row] = [
        (model, key, np.frombuffer(raw, "<f4").tolist(), written_ms) for key, raw in made.items()
    ]
    items: list[Row] = [(item, model, key, batch.batch, written_ms) for item, key in keys.items()]
    told: list[Row] = [
        (batch.shard, batch.batch, "text", n, _json.encode((item, key)), batch.broker_id,
         written_ms)
        for n, (item, key) in enumerate(keys.items())
    ]  # fmt: skip
    blocks: list[Block] = [
        ("text_vectors", TEXT_VECTORS, vectors), ("journal", JOURNAL, told),
        ("item_texts", ITEM_TEXTS, items),
    ]  # fmt: skip
    return [block for block in blocks if block[2]]


def dead_letter_rows(letters: Iterable[DeadLetter], broker_id: str, written_ms: int) -> list[Block]:
    """The block of table `dead_letters`; of each message at most a mebibyte is kept."""
    rows: list[Row] = [
        (
            broker_id,
            one.topic,
            one.partition,
            one.offset,
            one.produced_ms,
            one.reason.encode("utf-8", "backslashreplace"),
            one.raw[:_MAX_RAW],
            written_ms,
        )
        for one in letters
    ]
    return [("dead_letters", DEAD_LETTERS, rows)] if rows else []


def _turns(step: Step, batch: BatchId, written_ms: int) -> list[Row]:
    return [
        (batch.shard, batch.batch, "turn", n, _json.encode(turn), batch.broker_id, written_ms)
        for n, turn in enumerate(step.turns)
    ]


def _events(step: Step, batch: BatchId, written_ms: int) -> list[Row]:
    return [_event(d, n, batch, written_ms) for n, d in enumerate(step.accepted)]


def _slates(step: Step, batch: BatchId, written_ms: int) -> list[Row]:
    return [_slate(s, batch.broker_id, written_ms) for s in step.slates]


def _event(d: Delivery, position: int, batch: BatchId, written_ms: int) -> Row:
    e: Event = d.event
    return (
        e.event_id, e.type, e.user_id, e.item_id, e.ts, e.session_id or "", e.price, e.quantity,
        e.rating, e.query, e.text, e.slate_id or "", e.position,
        _json.encode(e.context) if e.context is not None else b"",
        batch.broker_id, d.topic, d.partition, d.offset, d.produced_ms,
        batch.batch, position, written_ms,
    )  # fmt: skip


def _slate(s: Slate, broker_id: str, written_ms: int) -> Row:
    items = s.recommendations
    return (
        s.user_id, s.slate_id, [r.item_id for r in items], [r.score for r in items],
        [r.reason for r in items], [r.source for r in items], [r.propensity for r in items],
        s.model_version, s.ts, broker_id, s.topic, s.partition, s.offset, s.produced_ms,
        version(s.produced_ms, s.offset), written_ms,
    )  # fmt: skip


def _vectors(table: str, step: Step, batch: BatchId, written_ms: int) -> list[Row]:
    return [
        (
            v.id, np.frombuffer(v.values, "<f4").tolist(), v.encoder, v.ts, batch.broker_id,
            v.topic, v.partition, v.offset, v.produced_ms, version(v.produced_ms, v.offset),
            written_ms,
        )
        for v in step.vectors
        if v.table == table
    ]  # fmt: skip


def _opinions(step: Step, batch: BatchId, written_ms: int) -> list[Row]:
    """What reviews say, without who said it."""
    return [
        (
            d.event.item_id, d.event.sentiment, d.event.rating, d.event.ts, batch.broker_id,
            d.topic, d.partition, d.offset, d.produced_ms, written_ms,
        )
        for d in step.accepted
        if d.event.sentiment is not None
    ]  # fmt: skip


def _metrics(step: Step, batch: BatchId, written_ms: int) -> list[Row]:
    if not step.metrics:
        return []
    if step.accepted:
        last = step.accepted[-1]
        place = (last.topic, last.partition, last.offset)
        produced_ms = last.produced_ms
    else:  # a batch that learned nothing but measured something: keyed by its number
        place, produced_ms = ("", -1, batch.batch), 0
    return [_metric(m, batch, place, produced_ms, written_ms) for m in step.metrics]


def _metric(m: Metric, batch: BatchId, place: Place, produced_ms: int, written_ms: int) -> Row:
    return (
        m.name, m.value, m.count, m.ts, batch.broker_id, *place, batch.batch, produced_ms,
        version(produced_ms, place[2]), written_ms,
    )  # fmt: skip


def _letter(r: Reject, raw: Mapping[Place, bytes]) -> DeadLetter:
    d = r.delivery
    came = raw.get((d.topic, d.partition, d.offset))
    if came is None:
        came = _json.encode(d.event)
    return DeadLetter(d.topic, d.partition, d.offset, d.produced_ms, r.reason, came)


def _item(a: Announcement, broker_id: str, written_ms: int) -> Row:
    item = a.item or Item(item_id=a.item_id)
    return (
        a.item_id, item.title, item.category, item.brand, item.price, item.description, item.tags,
        item.stock, item.available_from, int(a.item is None), broker_id, a.topic, a.partition,
        a.offset, a.produced_ms, version(a.produced_ms, a.offset), written_ms,
    )  # fmt: skip


_OF_STEPS: dict[str, tuple[Sequence[str], Callable[[Step, BatchId, int], list[Row]]]] = {
    "journal": (JOURNAL, _turns),
    "events": (EVENTS, _events),
    "slates": (SLATES, _slates),
    "recommendations": (SLATES, _slates),
    "metrics": (METRICS, _metrics),
    "user_vectors": (("user_id", *VECTORS), partial(_vectors, "user_vectors")),
    "item_vectors": (("item_id", *VECTORS), partial(_vectors, "item_vectors")),
    "opinions": (OPINIONS, _opinions),
}
