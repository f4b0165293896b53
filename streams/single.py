"""Single events as a person types them: what is missing and obvious is filled in."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from online.events import Event, event_fault


class SingleFault(ValueError):
    """A typed event is no event. Says which, and why."""


def completed(text: str | bytes, row: int, now_ms: int) -> Event:
    """The event in a JSON object; `event_id` and `ts` are made if it has none.

    >>> completed('{"type": "click", "user_id": "ann", "item_id": "1"}', 1, 1000).ts
    1000
    """
    try:
        record: dict[str, Any] = msgspec.json.decode(text, type=dict)
        record.setdefault("event_id", f"typed-{uuid.uuid4()}")
        record.setdefault("ts", now_ms)
        event = msgspec.convert(record, Event)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as e:
        raise SingleFault(
            f"event {row}: {e}; a JSON object is needed, such as"
            ' {"type": "click", "user_id": "ann", "item_id": "22423"}'
        ) from e
    fault = event_fault(event, now_ms)
    if fault:
        raise SingleFault(f"event {row}: {fault}")
    return event
