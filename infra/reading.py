"""The reads that the program itself needs, as SQL that both engines run: histories, catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from infra.warehouse_types import Answer
from online.events import Item
from online.step import PastEvent

USERS_AT_ONCE = 1_000  # bounds the length of one statement

Execute = Callable[[str, dict[str, Any]], Answer]

_HISTORY = """SELECT user_id, event_id, type, item_id, ts, session_id, price FROM (
    SELECT user_id, event_id, type, item_id, ts, session_id, price, produced_ms, offset
    FROM events
    PREWHERE user_id IN %(users)s
    {not_later}
    ORDER BY user_id, event_id, produced_ms, offset
    LIMIT 1 BY user_id, event_id
)
ORDER BY user_id, ts DESC, produced_ms DESC, offset DESC
LIMIT %(limit)s BY user_id"""

_CATALOGUE = """SELECT item_id, title, category, brand, price, description, tags, stock,
    available_from
FROM items FINAL
WHERE deleted = 0
ORDER BY produced_ms, offset, item_id"""


def _not_later(before: dict[tuple[str, int], int]) -> tuple[str, dict[str, Any]]:
    """SQL that leaves out this broker's events at or after the offsets of `before`."""
    parts: list[str] = []
    parameters: dict[str, Any] = {}
    for n, ((topic, partition), offset) in enumerate(sorted(before.items())):
        parts.append(f"(topic = %(t{n})s AND partition = %(p{n})s AND offset >= %(o{n})s)")
        parameters |= {f"t{n}": topic, f"p{n}": partition, f"o{n}": offset}
    if not parts:
        return "", {}
    return f"WHERE NOT (broker_id = %(broker)s AND ({' OR '.join(parts)}))", parameters


def _chunks(users: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(users), USERS_AT_ONCE):
        yield users[start : start + USERS_AT_ONCE]


def histories(
    execute: Execute,
    broker_id: str,
    users: Iterable[str],
    before: dict[tuple[str, int], int],
    limit: int,
) -> dict[str, list[PastEvent]]:
    """`online.step.History.read` over the table `events`."""
    found: dict[str, list[PastEvent]] = {}
    not_later, places = _not_later(before)
    for some in _chunks(sorted(set(users))):
        parameters = {"users": tuple(some), "limit": int(limit), "broker": broker_id, **places}
        for user, *past in execute(_HISTORY.format(not_later=not_later), parameters).rows:
            found.setdefault(user, []).append(PastEvent(*past))
    for past_events in found.values():
        past_events.reverse()
    return found


def catalogue(execute: Execute) -> list[Item]:
    """`Warehouse.catalogue` over the table `items`."""
    answer = execute(_CATALOGUE, {})
    return [Item(**dict(zip(answer.columns, row, strict=True))) for row in answer.rows]
