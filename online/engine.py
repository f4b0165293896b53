"""The compiled loop over a batch: deduplicate, propose, remember, count. Event by event.

Statistics move with every event; only the rankers' weights wait for a full block of lists. So the
outcome does not depend on how a batch was cut: a block that is not full is carried over.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from online.candidates import CANDIDATES, SESSION_MS, propose
from online.compiled import compiled
from online.features import FEATURES, MOST_ROWS, Scratch
from online.history import FORGET, NEW, append, drop_user, find, newest, newest_ts, take_back
from online.observe import NEGATIVE, dislike, observe, search
from online.sequence import Sequences, follow, known, release
from online.tables import ITEMS_KNOWN, TICK, Tables, against
from online.texts import Texts

ROWS = CANDIDATES + 1  # rows that one list may take: the candidates and a target none proposed
assert ROWS == MOST_ROWS
INTERACTION, TARGET, SEARCHED = 1, 2, 4  # what an event is: bits of Batch.role


class Batch(NamedTuple):
    """Events as columns, (E,) each."""

    user: np.ndarray  # i4 slot
    item: np.ndarray  # i4 slot; -1: none, or neither an interaction nor a query
    kind: np.ndarray  # i1 index into EVENT_TYPES
    price: np.ndarray  # i1 bucket, 0 none
    role: np.ndarray  # i1 INTERACTION | TARGET, or SEARCHED
    ts: np.ndarray  # i8 epoch ms
    event: np.ndarray  # u8 hash of event_id
    session: np.ndarray  # u8 hash of session_id, 0 none
    sentiment: np.ndarray  # f4 of a review, from -1 to 1, nan none
    status: np.ndarray  # i1 out: NEW, DUPLICATE, FULL, TOO_LATE or FORGOTTEN


class Lists(NamedTuple):
    """Up to L candidate lists, one after another in flat arrays."""

    start: np.ndarray  # (L + 1,) i8
    cand: np.ndarray  # (L * ROWS,) i4
    x: np.ndarray  # (L * ROWS, FEATURES) f4
    proposed: np.ndarray  # (L,) i8
    place: np.ndarray  # (L,) i8 row of the target, -1 none
    unproposed: np.ndarray  # (L,) i8 rankable items that no source proposed
    popular: np.ndarray  # (L,) f8 the target's rank by popularity
    owner: np.ndarray  # (L,) i8 position of the event in its batch


def new_lists(n: int) -> Lists:
    return Lists(
        start=np.zeros(n + 1, np.int64),
        cand=np.zeros(n * ROWS, np.int32),
        x=np.zeros((n * ROWS, FEATURES), np.float32),
        proposed=np.zeros(n, np.int64),
        place=np.zeros(n, np.int64),
        unproposed=np.zeros(n, np.int64),
        popular=np.zeros(n),
        owner=np.zeros(n, np.int64),
    )


@compiled
def add_list(
    t: Tables, s: Scratch, q: Sequences, texts: Texts, out: Lists, n: int, user: int, ts: int,
    session: np.uint64, target: int, exclude_seen: bool, owner: int,
) -> tuple[int, int]:  # fmt: skip
    """Append the list of one user at one moment as number `n`.

    Returns how many items of the user lie in `s.items`, and how many of them are of this session.
    """
    a = out.start[n]
    proposed, row, own, length, fresh, popular = propose(
        t, s, q, texts, user, ts, session, target, exclude_seen, out.cand[a:], out.x[a:]
    )
    out.proposed[n] = proposed
    out.place[n] = a + row if row >= 0 else -1
    out.unproposed[n] = t.clock[ITEMS_KNOWN] - proposed - (own if exclude_seen else 0)
    out.popular[n] = popular
    out.owner[n] = owner
    out.start[n + 1] = a + proposed + (1 if row == proposed else 0)
    return length, fresh


@compiled
def add_lists(
    t: Tables, s: Scratch, q: Sequences, texts: Texts, out: Lists, user: np.ndarray,
    ts: np.ndarray, session: np.ndarray, exclude_seen: bool,
) -> None:  # fmt: skip
    """Fill `out` with one list for each user (E,) at its moment, nothing being taken."""
    for e in range(len(user)):
        add_list(t, s, q, texts, out, e, user[e], ts[e], session[e], -1, exclude_seen, e)


@compiled
def advance(
    t: Tables, s: Scratch, q: Sequences, texts: Texts, batch: Batch, first: int, out: Lists,
    n: int, exclude_seen: bool, limit: int, until: int,
) -> tuple[int, int]:  # fmt: skip
    """Take events from `first` on, until the batch ends, `out` is full or TICK reaches `until`.

    Each is scored from the state that the events before it left, then counted. Returns the next
    event's position and how many lists `out` holds. limit: events kept in a user's history.
    """
    room = len(out.proposed)
    e = first
    while e < len(batch.user) and n < room and t.clock[TICK] < until:
        user, item, ts, session = batch.user[e], batch.item[e], batch.ts[e], batch.session[e]
        batch.status[e] = find(t, user, batch.event[e], batch.kind[e], ts, limit)
        if batch.status[e] != NEW:
            e += 1
            continue
        if batch.role[e] & TARGET:
            length, fresh = add_list(
                t, s, q, texts, out, n, user, ts, session, item, exclude_seen, e
            )
            n += 1
        elif batch.role[e]:
            length = newest(t, user, s.items, s.kinds, s.prices, s.ts, s.sessions)
            fresh = 0
            while fresh < length and _same_session(s, fresh, ts, session):
                fresh += 1
        if batch.kind[e] == FORGET:
            ts = newest_ts(t, user, ts)  # all that came before is forgotten, whatever its time
            drop_user(t, user)
            release(q, user)
        key = t.key[item] if item >= 0 else np.int32(-1)
        batch.status[e] = _append(
            t, user, key, batch.kind[e], batch.price[e], ts, batch.event[e], session,
            batch.sentiment[e], limit,
        )  # fmt: skip
        if batch.role[e] and batch.status[e] == NEW:
            if batch.role[e] & SEARCHED:
                search(t, user, item)
                e += 1
                continue
            back = take_back(t, user, key) if t.dislikes[user] else 0
            if back > 0:
                release(q, user)  # the state knows what is no longer the user's
            if batch.sentiment[e] <= NEGATIVE:
                dislike(t, item, s.items, length, fresh, 1 + back)
            else:
                if known(q) and back == 0:
                    follow(q, user, item, batch.kind[e], batch.price[e], ts, length)
                observe(t, user, item, ts, s.items, length, fresh)
        e += 1
    return e, n


@compiled
def _append(
    t: Tables, user: int, key: int, kind: int, price: int, ts: int, event: np.uint64,
    session: np.uint64, sentiment: np.float32, limit: int,
) -> int:  # fmt: skip
    """`history.append`, of a review too."""
    if sentiment <= NEGATIVE:
        key, t.dislikes[user] = against(key), 1
    return append(t, user, key, kind, price, ts, event, session, limit)


@compiled
def _same_session(s: Scratch, p: int, ts: int, session: np.uint64) -> bool:
    if session != 0:
        return s.sessions[p] == session
    return (s.ts[p - 1] if p > 0 else ts) - s.ts[p] < SESSION_MS


@compiled
def recall(
    t: Tables, user: np.ndarray, item: np.ndarray, kind: np.ndarray, price: np.ndarray,
    ts: np.ndarray, event: np.ndarray, session: np.ndarray, sentiment: np.ndarray, limit: int,
) -> bool:  # fmt: skip
    """Put past events (E,) back into their users' histories; the item statistics know them.

    False when the arena has no page left.
    """
    done = True
    for e in range(len(item)):
        key = t.key[item[e]] if item[e] >= 0 else np.int32(-1)
        status = _append(
            t, user[e], key, kind[e], price[e], ts[e], event[e], session[e], sentiment[e], limit
        )
        if key >= 0 and t.dislikes[user[e]]:
            take_back(t, user[e], key)
        done = done and status == NEW
    return done
