"""What each user did, newest first, in pages of a bounded arena. Sorted by event time."""

from __future__ import annotations

import numpy as np

from online.compiled import brief, compiled
from online.events import EVENT_TYPES
from online.tables import PAGE, PAGES_FREE, SLOT_MASK, Tables, against, next_generation

NEW, DUPLICATE, FULL, TOO_LATE, FORGOTTEN = range(5)
FORGET = EVENT_TYPES.index("forget")


@compiled
def find(t: Tables, user: int, event: np.uint64, kind: int, ts: int, limit: int) -> int:
    """NEW, DUPLICATE, TOO_LATE (older than everything that a full history still keeps), or
    FORGOTTEN: not newer than the `forget` that the history begins with.

    A `forget` is never too late.
    """
    page = t.user_page[user]
    left = t.user_n[user]
    oldest, first = np.int64(1 << 62), -1
    while page >= 0 and left > 0:
        fill = (left - 1) % PAGE + 1
        for i in range(fill - 1, -1, -1):
            if t.page_event[page, i] == event:
                return DUPLICATE
        oldest, first = t.page_ts[page, 0], t.page_type[page, 0]
        left -= fill
        page = t.page_older[page]
    if kind == FORGET:
        return NEW
    if first == FORGET and ts <= oldest:
        return FORGOTTEN
    if ts < oldest and t.user_n[user] >= limit - PAGE:
        return TOO_LATE
    return NEW


@compiled
def _drop_oldest_page(t: Tables, user: int) -> None:
    page = t.user_page[user]
    newer = -1
    while t.page_older[page] >= 0:
        newer = page
        page = t.page_older[page]
    if newer >= 0:
        t.page_older[newer] = -1
    else:
        t.user_page[user] = -1
    _free_page(t, page)
    t.user_n[user] -= PAGE


@compiled
def _free_page(t: Tables, page: int) -> None:
    """What stood in it goes as well: checkpoints hold pages as they are."""
    t.page_older[page] = -1
    t.page_item[page] = -1
    t.page_type[page] = 0
    t.page_price[page] = 0
    t.page_ts[page] = 0
    t.page_event[page] = 0
    t.page_session[page] = 0
    t.page_free[t.clock[PAGES_FREE]] = page
    t.clock[PAGES_FREE] += 1


@compiled
def append(
    t: Tables, user: int, key: int, kind: int, price: int, ts: int, event: np.uint64,
    session: np.uint64, limit: int,
) -> int:  # fmt: skip
    """Add an event at its place in time; NEW, or FULL when the arena has no page left.

    key: the item's (-1: an event without one; `against` it: it was disliked); kind: index into
    EVENT_TYPES; price: its bucket.
    """
    if t.user_n[user] % PAGE == 0:
        if t.user_n[user] >= limit:
            _drop_oldest_page(t, user)
        if t.clock[PAGES_FREE] == 0:
            return FULL
        t.clock[PAGES_FREE] -= 1
        page = t.page_free[t.clock[PAGES_FREE]]
        t.page_older[page] = t.user_page[user]
        t.user_page[user] = page
    page, at = t.user_page[user], t.user_n[user] % PAGE
    t.user_n[user] += 1
    while True:  # late events move newer ones up
        older_page, older = (page, at - 1) if at > 0 else (t.page_older[page], PAGE - 1)
        if older_page < 0 or t.page_ts[older_page, older] <= ts:
            break
        t.page_item[page, at] = t.page_item[older_page, older]
        t.page_type[page, at] = t.page_type[older_page, older]
        t.page_price[page, at] = t.page_price[older_page, older]
        t.page_ts[page, at] = t.page_ts[older_page, older]
        t.page_event[page, at] = t.page_event[older_page, older]
        t.page_session[page, at] = t.page_session[older_page, older]
        page, at = older_page, older
    t.page_item[page, at] = key
    t.page_type[page, at] = kind
    t.page_price[page, at] = price
    t.page_ts[page, at] = ts
    t.page_event[page, at] = event
    t.page_session[page, at] = session
    return NEW


@compiled
def free_user(t: Tables, user: int) -> None:
    """Forget the user's history and give its pages back."""
    page = t.user_page[user]
    while page >= 0:
        older = t.page_older[page]
        _free_page(t, page)
        page = older
    t.user_page[user] = -1
    t.user_n[user] = 0
    t.dislikes[user] = 0


@compiled
def drop_user(t: Tables, user: int) -> None:
    """Free the user's slot; what still refers to the user will not find the next one there."""
    free_user(t, user)
    t.user_key[user] = next_generation(t.user_key[user])


def only_forget(t: Tables, user: int) -> bool:
    """Whether a `forget` is all that is kept of the user (a slot, or -1)."""
    return bool(user >= 0 and t.user_n[user] == 1 and t.page_type[t.user_page[user], 0] == FORGET)


@compiled
def take_back(t: Tables, user: int, key: int) -> int:
    """An item that was disliked is none of the user's that came before; how many these were.

    What the user does with it afterwards counts again.
    """
    page, left, found, disliked = t.user_page[user], t.user_n[user], 0, False
    while page >= 0 and left > 0:
        fill = (left - 1) % PAGE + 1
        for i in range(fill - 1, -1, -1):
            if t.page_item[page, i] == against(key):
                disliked = True
            elif disliked and t.page_item[page, i] == key:
                t.page_item[page, i] = -1
                found += 1
        left -= fill
        page = t.page_older[page]
    return found


@compiled
def disliked(t: Tables, user: int, items: np.ndarray) -> int:
    """Copy the slots of up to len(items) items that the user disliked; how many."""
    if user < 0 or t.dislikes[user] == 0:
        return 0
    page, left, n = t.user_page[user], t.user_n[user], 0
    while page >= 0 and left > 0:
        fill = (left - 1) % PAGE + 1
        for i in range(fill - 1, -1, -1):
            key = against(t.page_item[page, i])
            if key >= 0 and t.key[key & SLOT_MASK] == key and n < len(items):
                items[n] = key & SLOT_MASK
                n += 1
        left -= fill
        page = t.page_older[page]
    return n


@compiled
def newest_ts(t: Tables, user: int, ts: int) -> int:
    """`ts`, or the time of the user's newest event if that is later."""
    if t.user_n[user] > 0:
        return max(ts, t.page_ts[t.user_page[user], (t.user_n[user] - 1) % PAGE])
    return ts


@compiled
def moments(t: Tables, user: np.ndarray, ts: np.ndarray) -> None:
    """Move each time of ts (L,) up to the newest event of its user (L,), -1 unknown."""
    for e in range(len(user)):
        if user[e] >= 0:
            ts[e] = newest_ts(t, user[e], ts[e])


@brief
def newest(
    t: Tables, user: int, items: np.ndarray, kinds: np.ndarray, prices: np.ndarray, ts: np.ndarray,
    sessions: np.ndarray,
) -> int:  # fmt: skip
    """Copy the slots of up to len(items) items that the user had, newest first; how many.

    user: a slot, or -1 for a user of whom nothing is known.
    """
    if user < 0:
        return 0
    page, left, n = t.user_page[user], t.user_n[user], 0
    while page >= 0 and left > 0 and n < len(items):
        fill = (left - 1) % PAGE + 1
        for i in range(fill - 1, -1, -1):
            key = t.page_item[page, i]
            if key < 0 or t.key[key & SLOT_MASK] != key or n == len(items):
                continue
            items[n] = key & SLOT_MASK
            kinds[n] = t.page_type[page, i]
            prices[n] = t.page_price[page, i]
            ts[n] = t.page_ts[page, i]
            sessions[n] = t.page_session[page, i]
            n += 1
        left -= fill
        page = t.page_older[page]
    return n
