"""Reviews: what an event's text says of its item, before the core sees the event."""

from __future__ import annotations

import msgspec

from encoders.sentiment import sentiment
from online.events import Event


def judged(event: Event) -> Event:
    """The event with its sentiment, if it is a `rating` with a text; without one otherwise.

    It depends on the text alone: live, in a backtest and when the journal is read again it is the
    same.
    """
    read = sentiment(event.text) if event.type == "rating" and event.text else None
    if read == event.sentiment:
        return event
    return msgspec.structs.replace(event, sentiment=read)
