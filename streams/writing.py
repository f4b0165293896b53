"""What was learned, to the warehouse and to Kafka's topics.

Synchronous; two threads write, one the groups of SOON and one those of LATER.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from infra.rows import (
    BatchId,
    Block,
    DeadLetter,
    announcement_rows,
    dead_letter_rows,
    item_rows,
    rows_of,
    text_rows,
)
from infra.warehouse_types import Warehouse
from online.step import Slate
from streams.learning import Learned
from streams.producer import Producer

# the journal first, then what people wait for; what is only kept or counted may come later
# (and before the journal, what is read of texts: once journalled it is not read again)
SOON = ("text_vectors", "item_texts", "journal", "events", "items", "recommendations")
LATER = ("slates", "metrics", "dead_letters", "user_vectors", "item_vectors", "opinions")
# of these only the newest row of each key is ever read, and a row is large
NEWEST = {"user_vectors", "item_vectors"}

_encoder = msgspec.json.Encoder()


@dataclass(slots=True)
class Work:
    """A learned batch on its way to rows."""

    learned: Learned
    batch: BatchId
    written: list[Callable[[], None]]  # called when everything is written: they acknowledge
    offsets: dict[str, int] = field(default_factory=dict)  # by topic/partition: the next one
    told: asyncio.Event = field(default_factory=asyncio.Event)  # other workers know


@dataclass(slots=True)
class Group:
    """Batches whose `tables` are written together; a retry goes on where it failed."""

    works: list[Work]
    tables: tuple[str, ...]
    tables_done: set[str] = field(default_factory=set)
    sent: bool = False
    written_ms: int = 0  # when it was all written, epoch milliseconds


class Writer:
    """Inserts the rows of batches, the journal first, then sends to the topics (if asked to).

    Groups of SOON and of LATER may be written at the same time: each sends by its own producer, and
    nothing is kept between calls.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        letters: Producer | None = None,
        slates: Producer | None = None,
    ) -> None:
        self._warehouse = warehouse
        self._letters = letters
        self._slates = slates

    def write(self, group: Group) -> None:
        """Write what is left of `group`. Raises WarehouseError or DeliveryFailed: call again."""
        for table, columns, rows in _blocks(group, _now_ms()):
            if table not in group.tables_done:
                self._warehouse.insert(table, columns, rows)
                group.tables_done.add(table)
        if not group.sent:
            self._send(group)
            group.sent = True
        group.written_ms = _now_ms()

    def _send(self, group: Group) -> None:
        letters = [one for work in group.works for one in work.learned.letters]
        if self._letters is not None and letters and "dead_letters" in group.tables:
            for letter in letters:
                self._letters.send_raw(None, letter.raw, headers=_headers(letter))
            self._letters.confirm()
        slates = [slate for work in group.works for slate in work.learned.step.slates]
        if self._slates is not None and slates and "recommendations" in group.tables:
            for slate in slates:
                self._slates.send_raw(slate.user_id.encode(), slate_json(slate))
            self._slates.confirm()


def _blocks(group: Group, now_ms: int) -> list[Block]:
    """One block a table for all batches: an insert costs about the same for one row and for 500."""
    merged: dict[str, Block] = {}
    for work in group.works:
        for table, columns, rows in _rows(work, group.tables, now_ms):
            merged.setdefault(table, (table, columns, []))[2].extend(rows)
    for table in NEWEST & merged.keys():
        _, columns, rows = merged[table]
        merged[table] = table, columns, list({row[0]: row for row in rows}.values())
    return [merged[table] for table in group.tables if table in merged]


def _rows(work: Work, tables: tuple[str, ...], now_ms: int) -> list[Block]:
    """Only what is asked for: the raw bytes of dead letters must not delay the newest slates."""
    learned, broker_id = work.learned, work.batch.broker_id
    blocks = rows_of(learned.step, work.batch, now_ms, tables=tables)
    if "items" in tables:
        blocks += announcement_rows(learned.announcements, work.batch, now_ms)
        blocks += item_rows(learned.announcements, broker_id, now_ms)
        if learned.texts is not None:
            texts = learned.texts
            blocks += text_rows(texts.model, texts.made, texts.keys, work.batch, now_ms)
    if "dead_letters" in tables:
        blocks += dead_letter_rows(learned.letters, broker_id, now_ms)
    return blocks


def slate_json(slate: Slate) -> bytes:
    """A slate as the topic `recommendations` carries it."""
    record: dict[str, Any] = {
        "user_id": slate.user_id,
        "slate_id": slate.slate_id,
        "ts": slate.ts,
        "produced_ms": slate.produced_ms,
        "model_version": slate.model_version,
        "recommendations": [msgspec.structs.asdict(r) for r in slate.recommendations],
    }
    return _encoder.encode(record)


def _headers(letter: DeadLetter) -> list[tuple[str, bytes]]:
    return [
        ("reason", letter.reason.encode("utf-8", "backslashreplace")),
        ("topic", letter.topic.encode()),
        ("partition", str(letter.partition).encode()),
        ("offset", str(letter.offset).encode()),
        ("produced_ms", str(letter.produced_ms).encode()),
    ]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
