"""What was learned, to the warehouse and to Kafka's topics. Synchronous, in one thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from infra.rows import BatchId, Block, DeadLetter, dead_letter_rows, item_rows, rows_of
from infra.warehouse_types import Warehouse
from online.step import Slate
from streams.learning import Learned
from streams.producer import Producer

_encoder = msgspec.json.Encoder()


@dataclass(slots=True)
class Work:
    """A learned batch on its way to rows; remembers how far it got, so that a retry goes on."""

    learned: Learned
    batch: BatchId
    written: Callable[[], None]  # called when everything is written: acknowledges
    blocks_done: int = 0
    sent: bool = False


class Writer:
    """Inserts the rows of a batch, the journal first, then sends to the topics (if asked to)."""

    def __init__(
        self,
        warehouse: Warehouse,
        letters: Producer | None = None,
        slates: Producer | None = None,
    ) -> None:
        self._warehouse = warehouse
        self._letters = letters
        self._slates = slates

    def write(self, work: Work, now_ms: int) -> None:
        """Write what is left of `work`. Raises WarehouseError or DeliveryFailed: call again."""
        learned = work.learned
        blocks: list[Block] = [
            *rows_of(learned.step, work.batch, now_ms),
            *item_rows(learned.announcements, work.batch.broker_id, now_ms),
            *dead_letter_rows(learned.letters, work.batch.broker_id, now_ms),
        ]
        for table, columns, rows in blocks[work.blocks_done :]:
            self._warehouse.insert(table, columns, rows)
            work.blocks_done += 1
        if not work.sent:
            self._send(learned)
            work.sent = True

    def _send(self, learned: Learned) -> None:
        if self._letters is not None and learned.letters:
            for letter in learned.letters:
                self._letters.send_raw(None, letter.raw, headers=_headers(letter))
            self._letters.confirm()
        if self._slates is not None and learned.step.slates:
            for slate in learned.step.slates:
                self._slates.send_raw(slate.user_id.encode(), slate_json(slate))
            self._slates.confirm()


def slate_json(slate: Slate) -> bytes:
    """A slate as the topic `recommendations` carries it."""
    record: dict[str, Any] = {
        "user_id": slate.user_id,
        "slate_id": slate.slate_id,
        "ts": slate.ts,
        "produced_ms": slate.produced_ms,
        "model_version": slate.model_version,
        "recommendations": [r._asdict() for r in slate.recommendations],
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
