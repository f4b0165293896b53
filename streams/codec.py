"""Records to bytes and back. Whatever a stranger sends, decoding answers and never raises."""

from __future__ import annotations

import re
from typing import NamedTuple, TypeVar

import msgspec

from online.events import Event, Item

MAX_REASON = 300  # characters
INTEGERS_END = 1 << 63  # signed 64 bits: more no column holds, nor MessagePack

Record = TypeVar("Record", Event, Item)

_events = msgspec.json.Decoder(Event)
_items = msgspec.json.Decoder(Item)
_encoder = msgspec.json.Encoder()


class Fault(NamedTuple):
    """Why bytes are not a record. `reason` starts with a code: `undecodable: …`, `too_large: …`."""

    reason: str


def decode_event(raw: bytes | None, limit: int) -> Event | Fault:
    """The event in `raw` (at most `limit` bytes of JSON), or why there is none.

    The rules on values are `online.events.event_fault`'s, which the core applies. Only integers
    that it could not even be told of are refused here.

    >>> decode_event(b'{"event_id": 1}', 1000).reason
    'undecodable: Expected `str`, got `int` - at `$.event_id`'
    """
    event = _decode(_events, raw, limit)
    if isinstance(event, Event) and (name := _too_long(event)):
        return Fault(f"invalid: {name} is an integer of more than 64 bits"[:MAX_REASON])
    return event


def decode_item(raw: bytes | None, limit: int) -> Item | Fault:
    """The item in `raw`, or why there is none. A tombstone (None) is the caller's to see first."""
    return _decode(_items, raw, limit)


def encode(record: Event | Item) -> bytes:
    """JSON of a record; fields at their defaults are left out."""
    return _encoder.encode(record)


def unquoted(reason: str) -> str:
    """A fault without the values that it quotes.

    >>> unquoted("undecodable: Invalid enum value 'ann' - at `$.type`")
    "undecodable: Invalid enum value '…' - at `$.type`"
    """
    return re.sub(r"'.*'", "'…'", reason, flags=re.DOTALL)


def _decode(decoder: msgspec.json.Decoder[Record], raw: bytes | None, limit: int) -> Record | Fault:
    if raw is None:
        return Fault("undecodable: the record has no value")
    if len(raw) > limit:
        return Fault(f"too_large: {len(raw)} bytes; at most {limit} are allowed")
    try:
        return decoder.decode(raw)
    except Exception as error:  # msgspec, UTF-8, recursion, number range: all are the sender's
        return Fault(f"undecodable: {error}"[:MAX_REASON])


def _too_long(event: Event) -> str | None:
    """The field of `event` with an integer that does not fit into 64 bits, if there is one."""
    if not _fits(event.ts):
        return "ts"
    if not _fits(event.position):
        return "position"
    context = event.context or {}
    return next((f"context.{key}" for key, value in context.items() if not _fits(value)), None)


def _fits(value: object) -> bool:
    return not isinstance(value, int) or -INTEGERS_END <= value < INTEGERS_END
