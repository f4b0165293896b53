"""A pipeline over a real warehouse that counts what it acknowledges, and events to give it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infra.warehouse import Warehouse, WarehouseUnavailable
from online.events import Event
from online.step import Core
from streams.codec import encode
from streams.keeping import Keeper, Origin
from streams.learning import Learner, Message
from streams.pipeline import Pipeline
from streams.status import Status
from streams.writing import Writer

TS = 1_700_000_000_000


def event(n: int, **changes: Any) -> Event:
    fields: dict[str, Any] = {
        "event_id": f"e{n}", "type": "click", "user_id": f"u{n % 7}", "item_id": f"i{n % 11}",
        "ts": TS + n,
    }  # fmt: skip
    return Event(**{**fields, **changes})


def message(offset: int, value: bytes | None, key: bytes | None = None) -> Message:
    return Message("events", 0, offset, TS, key, value)


def messages(events: Sequence[Event], first: int = 0) -> list[Message]:
    return [message(first + n, encode(e), e.user_id.encode()) for n, e in enumerate(events)]


class Flapping:
    """A warehouse whose `insert` is away for some calls."""

    def __init__(self, warehouse: Warehouse, away: int) -> None:
        self._warehouse = warehouse
        self.away = away

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        if self.away > 0:
            self.away -= 1
            raise WarehouseUnavailable("not there")
        self._warehouse.insert(table, columns, rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._warehouse, name)


class Run:
    """A started pipeline that counts what it acknowledges."""

    def __init__(self, core: Core, warehouse: Any, batch: int = 512) -> None:
        self.status = Status()
        self.acknowledged: list[int] = []
        learner = Learner(core, warehouse, 100_000)
        keeper = Keeper(None, None, self.status, Origin("", "broker-1", {}), 1)
        self.pipeline = Pipeline(learner, Writer(warehouse), self.status, keeper, "broker-1", batch)

    async def __aenter__(self) -> Run:
        self.pipeline.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pipeline.stop()

    async def learn(self, batch: list[Message]) -> None:
        def written() -> None:
            self.acknowledged += [m.offset for m in batch]

        await self.pipeline.take(batch, written)

    async def drained(self) -> None:
        assert await self.pipeline.drain(20)


def ids(warehouse: Warehouse) -> list[str]:
    return [row[0] for row in warehouse.query("SELECT event_id FROM events ORDER BY offset").rows]
