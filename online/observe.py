"""What one event changes in the item statistics. The order of events is all that matters."""

from __future__ import annotations

import math

import numpy as np

from online.compiled import compiled
from online.features import stream_time
from online.pairs import add_pairs, forget_item, take_pairs_back
from online.tables import (
    DECAYS,
    HOT,
    HOT_LISTS,
    ITEMS_KNOWN,
    RECENT,
    TICK,
    Tables,
    next_generation,
)

NEGATIVE = np.float32(-0.1)  # a review that says this, or worse, counts against its item
HOT_DECAYS = (0, 1, 5)  # what ranks the hot lists after the first, which is ranked by count


@compiled
def know(t: Tables, item: int) -> None:
    """The item exists from now on."""
    if t.known[item] == 0:
        t.known[item] = 1
        t.first_tick[item] = t.clock[TICK]
        t.clock[ITEMS_KNOWN] += 1


@compiled
def _warm(heats: np.ndarray, hot: np.ndarray, n: int, item: int) -> int:
    """Give the item its place in a hot list (HOT,), sorted hottest first; how many it holds then.

    heats: (I,) what ranks the items.
    """
    heat = heats[item]
    if n == HOT and hot[n - 1] != item and heat <= heats[hot[n - 1]]:
        return n
    at = 0
    while at < n and hot[at] != item:
        at += 1
    if at == n:
        at = n if n < HOT else HOT - 1
        n = at + 1
    while at > 0 and heats[hot[at - 1]] < heat:
        hot[at] = hot[at - 1]
        at -= 1
    hot[at] = item
    return n


@compiled
def _decay(t: Tables, item: int, tick: int, ts: int) -> None:
    """Add one to each decayed count. They are kept as log2 in stream units, so that comparing two
    items needs no clock and nothing has to be decayed in between."""
    for d in range(DECAYS):
        now, old = stream_time(tick, ts, d), t.decayed[item, d]
        high, low = max(now, old), min(now, old)
        t.decayed[item, d] = high + math.log2(1.0 + 2.0 ** (low - high))


@compiled
def _count(t: Tables, user: int, item: int) -> None:
    t.taken[item] += 1.0
    t.rarity[item] = 1.0 / math.sqrt(t.taken[item] + 2.0)
    t.recent[item, t.recent_n[item] % RECENT] = t.user_key[user]
    t.recent_n[item] += 1


@compiled
def search(t: Tables, user: int, query: int) -> None:
    """Count a query. It is never known, so nobody is shown it; what is taken after it goes with it
    as with an item that was taken."""
    _count(t, user, query)


@compiled
def observe(
    t: Tables, user: int, item: int, ts: int, before: np.ndarray, n: int, fresh: int
) -> None:
    """Count one event.

    before: slots of the user's items before it, newest first, `n` of them, the first `fresh` in
    this session.
    """
    know(t, item)
    t.clock[TICK] += 1
    tick = t.clock[TICK]
    _decay(t, item, tick, ts)
    _count(t, user, item)
    if t.first_taken[item] < 0:
        t.first_taken[item] = tick
    t.last_tick[item] = tick
    t.last_ts[item] = max(ts, t.last_ts[item])
    for h in range(HOT_LISTS):
        heats = t.taken if h == 0 else t.decayed[:, HOT_DECAYS[h - 1]]
        t.hot_n[h] = _warm(heats, t.hot[h], t.hot_n[h], item)
    add_pairs(t, before, n, fresh, item)


@compiled
def dislike(t: Tables, item: int, before: np.ndarray, n: int, fresh: int, times: int) -> None:
    """Count a negative review: it makes nothing more popular, and speaks against the item for those
    who have what this user had.

    before, n, fresh: as for `observe`; times: the user's events
    with the item that it takes back, and itself.
    """
    know(t, item)
    t.clock[TICK] += 1
    if t.first_taken[item] < 0:
        t.first_taken[item] = t.clock[TICK]
    take_pairs_back(t, before, n, fresh, item, times)


@compiled
def expire(t: Tables, item: int) -> None:
    """Take everything that is known of an item away and give its slot a new generation."""
    forget_item(t, item)
    for h in range(HOT_LISTS):
        for k in range(t.hot_n[h]):
            if t.hot[h, k] == item:
                for m in range(k, t.hot_n[h] - 1):
                    t.hot[h, m] = t.hot[h, m + 1]
                t.hot_n[h] -= 1
                break
    if t.known[item]:
        t.clock[ITEMS_KNOWN] -= 1
    t.key[item] = next_generation(t.key[item])
    t.taken[item] = 0.0
    t.rarity[item] = math.sqrt(0.5)
    t.decayed[item, :] = -1e300
    t.first_taken[item] = -1
    t.last_tick[item] = 0
    t.last_ts[item] = 0
    t.known[item] = 0
    t.hidden[item] = 0
    t.available[item] = 0
    t.shown[item] = 0
    t.recent_n[item] = 0
    t.recent[item, :] = -1
