"""Events as columns of numbers, which the compiled loops take."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from online.engine import INTERACTION, SEARCHED, TARGET, Batch
from online.events import EVENT_TYPES, Event
from online.memory import Memory
from online.sequence import price_bucket
from online.slots import hashes
from online.step import PastEvent
from online.texts import QUERY, query_name
from online.told import Told

INTERACTIONS = frozenset({"view", "click", "cart", "purchase", "rating"})
KIND = {name: number for number, name in enumerate(EVENT_TYPES)}


def item_of(event: Event | PastEvent | Told) -> str:
    """The item that an event counts for, or the query that is kept like one: what was only shown
    is not the user's."""
    if event.type in INTERACTIONS:
        return event.item_id
    if event.type != "search":
        return ""
    if isinstance(event, PastEvent):
        return event.item_id
    query = getattr(event, "query", None)
    return query_name(query) if query else ""


def columns_of(memory: Memory, events: Sequence[Event | Told], targets: tuple[str, ...]) -> Batch:
    """The events' columns; their users and items have slots then."""
    n = len(events)
    # Those that are held count as used before room is made, so that none of them gives way.
    users = {e.user_id for e in events if not memory.users.touch(e.user_id)}
    taken = [item_of(e) for e in events]
    for at, item in enumerate(taken):  # a query without a vector is one that nobody understands
        if item.startswith(QUERY) and memory.items.get(item) < 0:
            taken[at] = ""
    items = {item for item in taken if item and not memory.items.touch(item)}
    memory.make_room(users=len(users), items=len(items), pages=n, events=n)
    return Batch(
        user=np.array([memory.take_user(e.user_id) for e in events], np.int32),
        item=np.array([memory.take_item(item) for item in taken], np.int32),
        kind=np.array([KIND[e.type] for e in events], np.int8),
        price=np.array([price_bucket(e.price) for e in events], np.int8),
        role=np.array([_role(e, item, targets) for e, item in zip(events, taken, strict=True)],
                      np.int8),
        ts=np.array([e.ts for e in events], np.int64),
        event=hashes(e.event_id for e in events),
        session=hashes(e.session_id or "" for e in events),
        sentiment=_sentiments(events),
        status=np.zeros(n, np.int8),
    )  # fmt: skip


def _sentiments(events: Sequence[Event | PastEvent | Told]) -> np.ndarray:
    return np.array([e.sentiment for e in events], np.float32)  # None becomes nan


def _role(event: Event | Told, item: str, targets: tuple[str, ...]) -> int:
    if event.type in INTERACTIONS:
        return INTERACTION | (TARGET if event.type in targets else 0)
    return SEARCHED if item else 0


def past_columns(
    memory: Memory, users: list[str], pasts: list[list[PastEvent]]
) -> tuple[np.ndarray, ...]:
    """Columns of users' past events, as `engine.recall` takes them; the users have slots then."""
    events = list(itertools.chain.from_iterable(pasts))
    taken = np.array([memory.take_user(user) for user in users], np.int32)
    return (
        np.repeat(taken, [len(past) for past in pasts]),
        np.array([memory.items.get(item_of(e)) for e in events], np.int32),
        np.array([KIND[e.type] for e in events], np.int8),
        np.array([price_bucket(e.price) for e in events], np.int8),
        np.array([e.ts for e in events], np.int64),
        hashes(e.event_id for e in events),
        hashes(e.session_id for e in events),
        _sentiments(events),
    )


def since_forget(past: list[PastEvent]) -> list[PastEvent]:
    """The history from the newest `forget` on."""
    for n in range(len(past) - 1, -1, -1):
        if past[n].type == "forget":
            return past[n:]
    return past
