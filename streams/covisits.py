"""Which texts go together in a shop: items that one visit had, queries and what was taken after.

A visit is a session; without sessions it ends when its user does nothing for half an hour. Each
event is paired with one earlier item of its visit, drawn among the ten newest others, so that long
baskets count by their length and not by its square.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from online.columns import INTERACTIONS
from online.events import Event
from streams.texts import query_text

PAUSE_MS = 30 * 60 * 1000  # ends a visit
AGO_MS = 10 * 60 * 1000  # after a query, what is taken is taken to be its answer
NEWEST = 10  # items of a visit that an event may go with
ANSWERS = frozenset({"click", "cart", "purchase"})


@dataclass(frozen=True)
class Covisits:
    """N pairs in order of time. Texts are numbered: items first, then queries.

    left, right: (N,) the numbers of a text and of the item that goes with it; user: (N,) numbers
    from 0; ts: (N,) epoch ms.
    """

    queries: list[str]
    left: np.ndarray
    right: np.ndarray
    user: np.ndarray
    ts: np.ndarray

    def some(self, which: np.ndarray) -> Covisits:
        """Those that a mask or their places name."""
        return Covisits(
            self.queries, self.left[which], self.right[which], self.user[which], self.ts[which]
        )

    def __len__(self) -> int:
        return len(self.ts)


@dataclass(slots=True)
class _Visit:
    """Where a user is."""

    session: str | None
    ts: int
    items: list[int]
    query: int = -1
    asked: int = 0  # epoch ms


def covisits(events: Iterable[Event], texts: dict[str, str], seed: int) -> Covisits:
    """Pairs of an events' stream, which is in order of time.

    texts: what is said of each item; others, and those of whom nothing is said, are passed over.
    """
    items = {name: n for n, name in enumerate(texts)}
    said = list(texts.values())
    rng = np.random.default_rng(seed)
    users: dict[str, int] = {}
    queries: dict[str, int] = {}
    visits: dict[str, _Visit] = {}
    found = array("q")
    for event in events:
        visit = _visit(visits, event)
        visit.ts = event.ts
        if event.type == "search" and event.query and (text := query_text(event.query)):
            visit.query, visit.asked = queries.setdefault(text, len(queries)), event.ts
            continue
        item = items.get(event.item_id)
        if event.type not in INTERACTIONS or item is None or not said[item]:
            continue
        user = users.setdefault(event.user_id, len(users))
        others = [n for n in visit.items if said[n] != said[item]]
        if others and item not in visit.items[-1:]:
            found.extend((others[int(rng.integers(len(others)))], item, user, event.ts))
        if event.type in ANSWERS and visit.query >= 0 and event.ts - visit.asked <= AGO_MS:
            found.extend((len(texts) + visit.query, item, user, event.ts))
        visit.items = [n for n in visit.items if n != item][1 - NEWEST :] + [item]
    left, right, user_of, ts = np.array(found, np.int64).reshape(-1, 4).T
    return Covisits(list(queries), left, right, user_of, ts)


def _visit(visits: dict[str, _Visit], event: Event) -> _Visit:
    """Where this event's user is; somewhere new if the visit before is over."""
    visit = visits.get(event.user_id)
    if visit is not None and event.session_id is not None:
        over = event.session_id != visit.session
    else:
        over = visit is None or event.ts - visit.ts > PAUSE_MS
    if visit is None or over:
        visit = visits[event.user_id] = _Visit(event.session_id, event.ts, [])
    return visit
