"""The records that flow through freshrec: what a shop sends, and what Kafka makes of it.

Records are frozen msgspec structs. They evolve by addition only: unknown fields are ignored,
new fields get a default.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import msgspec

EventType = Literal["view", "click", "cart", "purchase", "search", "impression", "rating", "forget"]
EVENT_TYPES: tuple[str, ...] = get_args(EventType)
WITHOUT_ITEM = frozenset({"search", "forget"})

MAX_ID = 256  # characters of an id
MAX_TEXT = 16_384  # characters of a query, a text, a title or a description
MAX_NUMBER = 1e12  # |price|, |quantity|, |rating|
MAX_CONTEXT = 64  # entries of `context`
FUTURE_MS = 5 * 60 * 1000  # clocks of shops may run ahead of ours by this much


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that a user did. `ts` is event time in epoch milliseconds (0 is valid)."""

    event_id: str
    type: EventType
    user_id: str
    ts: int
    item_id: str = ""
    session_id: str | None = None
    price: float | None = None
    quantity: float | None = None
    rating: float | None = None
    query: str | None = None
    text: str | None = None
    slate_id: str | None = None
    position: int | None = None
    context: dict[str, str | int | float | bool | None] | None = None
    # -1 to 1, of a review: read from its text before the core sees it, whatever was sent
    sentiment: float | None = None


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One product of the catalogue, as announced on the topic `items`."""

    item_id: str
    title: str = ""
    category: str = ""
    brand: str = ""
    price: float | None = None
    description: str = ""
    tags: list[str] = []
    stock: float | None = None
    available_from: int | None = None  # epoch milliseconds


class Delivery(NamedTuple):
    """An event together with the place in the log that it was read from."""

    event: Event
    topic: str
    partition: int
    offset: int
    produced_ms: int  # Kafka's timestamp of the record, epoch milliseconds


def id_fault(name: str, value: str) -> str | None:
    if not value or len(value) > MAX_ID:
        return f"{name} has {len(value)} characters: 1 to {MAX_ID} are allowed"
    if not value.isprintable():
        return f"{name}={value!r} has characters that cannot be printed"
    return None


def _number_fault(name: str, value: float | None) -> str | None:
    # NaN fails every comparison; an integer beyond all floats still compares
    if value is not None and not abs(value) <= MAX_NUMBER:
        return f"{name}={value!r}: a finite number of at most {MAX_NUMBER:g} is allowed"
    return None


def _text_fault(name: str, value: str | None) -> str | None:
    if value is not None and len(value) > MAX_TEXT:
        return f"{name} has {len(value)} characters: at most {MAX_TEXT} are allowed"
    return None


def _context_fault(context: dict[str, Any] | None) -> str | None:
    if context is None:
        return None
    if len(context) > MAX_CONTEXT:
        return f"context has {len(context)} entries: at most {MAX_CONTEXT} are allowed"
    for key, value in context.items():
        fault = id_fault("a context key", key)
        if fault is None:
            fault = (
                _text_fault(f"context.{key}", value)
                if isinstance(value, str)
                else _number_fault(f"context.{key}", value)
            )
        if fault:
            return fault
    return None


def event_fault(event: Event, now_ms: int) -> str | None:
    """Why `event` may not enter the core, or None. `now_ms` only refuses the future.

    >>> event_fault(Event(event_id="e", type="click", user_id="u", item_id="i", ts=0), 0)
    >>> event_fault(Event(event_id="e", type="click", user_id="u", item_id="i", ts=-1), 0)
    'ts=-1: epoch milliseconds from 0 to now + 5 min are allowed'
    """
    if not 0 <= event.ts <= now_ms + FUTURE_MS:
        return f"ts={event.ts}: epoch milliseconds from 0 to now + 5 min are allowed"
    if event.type not in WITHOUT_ITEM or event.item_id:
        fault = id_fault("item_id", event.item_id)
        if fault:
            return fault
    if event.type == "search" and not event.query:
        return "a search event needs a query"
    if event.type == "rating" and event.rating is None:
        return "a rating event needs a rating"
    if event.position is not None and not 0 <= event.position < 100_000:
        return f"position={event.position}: 0 to 99999 are allowed"
    return (
        id_fault("event_id", event.event_id)
        or id_fault("user_id", event.user_id)
        or (event.session_id is not None and id_fault("session_id", event.session_id))
        or (event.slate_id is not None and id_fault("slate_id", event.slate_id))
        or _number_fault("price", event.price)
        or _number_fault("quantity", event.quantity)
        or _number_fault("rating", event.rating)
        or _text_fault("query", event.query)
        or _text_fault("text", event.text)
        or _context_fault(event.context)
        or None
    )


def item_fault(item: Item) -> str | None:
    """Why `item` may not enter the catalogue, or None."""
    if len(item.tags) > MAX_CONTEXT:
        return f"tags has {len(item.tags)} entries: at most {MAX_CONTEXT} are allowed"
    if item.available_from is not None and not 0 <= item.available_from < 1 << 53:
        return f"available_from={item.available_from}: epoch milliseconds are allowed"
    return (
        id_fault("item_id", item.item_id)
        or _number_fault("price", item.price)
        or _number_fault("stock", item.stock)
        or _text_fault("title", item.title)
        or _text_fault("category", item.category)
        or _text_fault("brand", item.brand)
        or _text_fault("description", item.description)
        or next((f for tag in item.tags if (f := _text_fault("a tag", tag))), None)
    )
