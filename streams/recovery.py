"""A start that remembers: the newest journalled events are stepped again, in their own batches."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from infra.log import get_log
from infra.warehouse_types import Warehouse
from online.events import Delivery, Event
from online.step import Core, PastEvent
from streams.core_process import CoreLost

log = get_log("recovery")

PAGE = 20_000  # journalled events read at once
PROGRESS_S = 2.0

_FIRST = """SELECT min(batch), count() FROM (
    SELECT batch FROM events ORDER BY batch DESC LIMIT %(newest)s
)"""

_COLUMNS = (
    "event_id, type, user_id, item_id, ts, session_id, price, quantity, rating, query, text, "
    "slate_id, position, context, topic, partition, offset, produced_ms, batch, batch_pos"
)

_PAGE = f"""SELECT {_COLUMNS} FROM events
WHERE batch > %(batch)s OR (batch = %(batch)s AND batch_pos > %(position)s)
ORDER BY batch, batch_pos LIMIT %(limit)s"""

# what the core held of a user before a batch: everything that was journalled before it
_HISTORY = """SELECT user_id, event_id, type, item_id, ts, session_id, price FROM (
    SELECT user_id, event_id, type, item_id, ts, session_id, price, produced_ms, offset
    FROM events
    WHERE user_id IN %(users)s AND batch < %(batch)s
    ORDER BY user_id, event_id, produced_ms, offset LIMIT 1 BY user_id, event_id
) ORDER BY user_id, ts DESC, produced_ms DESC, offset DESC LIMIT %(limit)s BY user_id"""


def recover(
    core: Core,
    warehouse: Warehouse,
    newest: int,
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Step the `newest` journalled events through `core`; write nothing.

    Returns the number of the last journalled batch (0 without any), so that numbering goes on.
    `stopping` ends it early; `progress(done, total)` is told how far it is. Raises WarehouseError.
    """
    first, total = warehouse.query(_FIRST, {"newest": newest}).rows[0] if newest else (0, 0)
    if not total:
        return _last_batch(warehouse)
    started = said = time.monotonic()
    done = last = 0
    for number, batch in _batches(warehouse, first):
        if stopping():
            break
        last = number
        _learn_again(core, warehouse, number, batch)
        done += len(batch)
        progress(done, total)
        if time.monotonic() - said > PROGRESS_S:
            said = time.monotonic()
            log.info("recovering", events=done, of=total)
    log.info("recovered", events=done, seconds=round(time.monotonic() - started, 1))
    return last


def _learn_again(core: Core, warehouse: Warehouse, number: int, batch: list[Delivery]) -> None:
    missing = core.missing(batch)
    if missing:
        parameters = {"users": tuple(missing), "batch": number, "limit": core.history_limit}
        histories: dict[str, list[PastEvent]] = {}
        for user, *past in warehouse.query(_HISTORY, parameters).rows:
            histories.setdefault(user, []).append(PastEvent(*past))
        for newest_first in histories.values():
            newest_first.reverse()
        core.restore(histories)
    try:
        core.step(batch, time.time_ns() // 1_000_000)
    except CoreLost:
        raise
    except Exception as error:  # it was found when it came; a start must not die of it again
        log.warning("recovery_skipped", batch=number, error=f"{type(error).__name__}: {error}")


def _batches(warehouse: Warehouse, first: int) -> Iterator[tuple[int, list[Delivery]]]:
    """Journalled batches from number `first` on, in order, each as it was learned."""
    rows = _rows(warehouse, first)
    for number, group in itertools.groupby(rows, key=lambda row: row[18]):
        yield number, [_delivery(row) for row in group]


def _rows(warehouse: Warehouse, first: int) -> Iterator[tuple[Any, ...]]:
    batch, position = first, -1
    while True:
        cursor = {"batch": batch, "position": position, "limit": PAGE}
        rows = warehouse.query(_PAGE, cursor).rows
        yield from rows
        if len(rows) < PAGE:
            return
        batch, position = rows[-1][18], rows[-1][19]


def _delivery(row: tuple[Any, ...]) -> Delivery:
    context = row[13]
    event = Event(
        event_id=row[0], type=row[1], user_id=row[2], item_id=row[3], ts=row[4],
        session_id=row[5] or None, price=row[6], quantity=row[7], rating=row[8], query=row[9],
        text=row[10], slate_id=row[11] or None, position=row[12],
        context=msgspec.json.decode(context) if context else None,
    )  # fmt: skip
    return Delivery(event, row[14], row[15], row[16], row[17])


def _last_batch(warehouse: Warehouse) -> int:
    return int(warehouse.query("SELECT max(batch) FROM events").rows[0][0] or 0)
