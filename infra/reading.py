"""The reads that the program itself needs, as SQL that both engines run: histories, catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from encoders.sentiment import sentiment
from infra.warehouse_types import Answer
from online.events import Item
from online.step import PastEvent
from online.texts import query_name

AT_ONCE = 1_000  # bounds the length of one statement

Execute = Callable[[str, dict[str, Any]], Answer]

_HISTORY = """SELECT user_id, event_id, type, item_id, ts, session_id, price, query, review FROM (
    SELECT user_id, event_id, type, item_id, ts, session_id, price, query, produced_ms, offset,
        if(type = 'rating', text, NULL) AS review
    FROM events
    PREWHERE user_id IN %(users)s
    WHERE {condition}
    ORDER BY user_id, event_id, produced_ms, offset
    LIMIT 1 BY user_id, event_id
)
ORDER BY user_id, ts DESC, produced_ms DESC, offset DESC
LIMIT %(limit)s BY user_id"""

# what came before a `forget` is forgotten whatever its event time
_FORGET = """SELECT event_id, batch, batch_pos FROM events
PREWHERE user_id = %(user)s WHERE type = 'forget' AND {condition}
ORDER BY batch DESC, batch_pos DESC LIMIT 1"""
_BEFORE = """SELECT max(ts) FROM events PREWHERE user_id = %(user)s
WHERE batch < %(batch)s OR (batch = %(batch)s AND batch_pos <= %(position)s)"""
_AFTER = "(batch > %(batch)s OR (batch = %(batch)s AND batch_pos > %(position)s))"

_ITEM_TEXTS = "SELECT item_id, text_key FROM item_texts FINAL WHERE model = %(model)s"

_TEXTS = """SELECT text_key, vector FROM text_vectors
PREWHERE model = %(model)s AND text_key IN %(keys)s LIMIT 1 BY text_key"""

_CATALOGUE = """SELECT item_id, title, category, brand, price, description, tags, stock,
    available_from
FROM items FINAL
WHERE deleted = 0
ORDER BY produced_ms, offset, item_id"""


def _not_later(before: dict[tuple[str, int], int]) -> tuple[str, dict[str, Any]]:
    """The condition that leaves out this broker's events at or after the offsets of `before`."""
    parts: list[str] = []
    parameters: dict[str, Any] = {}
    for n, ((topic, partition), offset) in enumerate(sorted(before.items())):
        parts.append(f"(topic = %(t{n})s AND partition = %(p{n})s AND offset >= %(o{n})s)")
        parameters |= {f"t{n}": topic, f"p{n}": partition, f"o{n}": offset}
    if not parts:
        return "1", {}
    return f"NOT (broker_id = %(broker)s AND ({' OR '.join(parts)}))", parameters


def _chunks(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), AT_ONCE):
        yield names[start : start + AT_ONCE]


def histories(
    execute: Execute,
    broker_id: str,
    users: Iterable[str],
    before: dict[tuple[str, int], int],
    limit: int,
) -> dict[str, list[PastEvent]]:
    """`online.step.History.read` over the table `events`."""
    not_later, places = _not_later(before)
    return past_events(execute, users, not_later, {"broker": broker_id, **places}, limit)


def past_events(
    execute: Execute, users: Iterable[str], condition: str, parameters: dict[str, Any], limit: int
) -> dict[str, list[PastEvent]]:
    """The newest `limit` journalled events of each user for which `condition` holds.

    Oldest first; after a `forget` only what came after it.
    """
    found: dict[str, list[PastEvent]] = {}
    sql = _HISTORY.format(condition=condition)
    for some in _chunks(sorted(set(users))):
        given = {**parameters, "users": tuple(some), "limit": int(limit)}
        for user, *past in execute(sql, given).rows:
            found.setdefault(user, []).append(_past(*past))
    for user, past in found.items():
        past.reverse()
        if "forget" in (event.type for event in past):
            found[user] = _since_forget(execute, user, condition, parameters, limit)
    return found


def _past(
    event_id: str, kind: str, item_id: str, ts: int, session_id: str, price: float | None,
    query: str | None, review: str | None,
) -> PastEvent:  # fmt: skip
    if kind == "search" and query:
        item_id = query_name(query)
    said = sentiment(review) if review else None
    return PastEvent(event_id, kind, item_id, ts, session_id, price, said)


def _since_forget(
    execute: Execute, user: str, condition: str, parameters: dict[str, Any], limit: int
) -> list[PastEvent]:
    given = {**parameters, "user": user}
    ((event_id, batch, position),) = execute(_FORGET.format(condition=condition), given).rows
    place = {"user": user, "batch": batch, "position": position}
    ((ts,),) = execute(_BEFORE, place).rows
    after = _HISTORY.format(condition=f"{_AFTER} AND {condition}")
    given |= place | {"users": (user,), "limit": int(limit)}
    newer = [_past(*past) for _, *past in execute(after, given).rows]
    newer.reverse()
    return [PastEvent(event_id, "forget", "", ts), *newer]


def text_vectors(execute: Execute, model: str, keys: Iterable[str]) -> dict[str, bytes]:
    """By key, those vectors (f4) of a model that there are."""
    found: dict[str, bytes] = {}
    for some in _chunks(sorted(keys)):
        rows = execute(_TEXTS, {"model": model, "keys": tuple(some)}).rows
        found |= {key: np.array(vector, np.float32).tobytes() for key, vector in rows}
    return found


def item_texts(execute: Execute, model: str) -> dict[str, str]:
    """By item, the key of the text that a model has read."""
    return dict(execute(_ITEM_TEXTS, {"model": model}).rows)


def catalogue(execute: Execute) -> list[Item]:
    """`Warehouse.catalogue` over the table `items`."""
    answer = execute(_CATALOGUE, {})
    return [Item(**dict(zip(answer.columns, row, strict=True))) for row in answer.rows]
