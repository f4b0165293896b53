"""Small steps of the core, for tests that write them."""

from __future__ import annotations

from typing import Any

from infra.rows import BatchId, rows_of
from infra.warehouse import Warehouse
from online.events import Delivery, Event
from online.step import Recommendation, Slate, Step

BROKER = "broker-1"


def delivery(n: int, user: str = "ann", ts: int | None = None, **fields: Any) -> Delivery:
    """The n-th message of partition 0."""
    event = Event(
        event_id=fields.pop("event_id", f"e{n}"),
        type="click",
        user_id=user,
        item_id=f"i{n}",
        ts=1_000 + n if ts is None else ts,
        **fields,
    )
    return Delivery(event, "events", 0, n, 5_000 + n)


def slate(n: int, user: str = "ann", items: tuple[str, ...] = ("a", "b", "c")) -> Slate:
    """A slate made after the n-th message."""
    chosen = tuple(
        Recommendation(item, 1.0 - k / 10, f"because of it's {item}", "popularity", 1.0)
        for k, item in enumerate(items)
    )
    return Slate(f"s{n}", user, 1_000 + n, 5_000 + n, "events", 0, n, "model-1", chosen)


def write(
    warehouse: Warehouse, step: Step, batch: int = 1, written_ms: int = 9_000, broker: str = BROKER
) -> None:
    for table, columns, rows in rows_of(step, BatchId(broker, batch), written_ms):
        warehouse.insert(table, columns, rows)
