"""The core's memory: flat arrays that compiled code walks, grown on demand up to a bound.

Everything that is counted per item, per pair of items and per user lies here. Rows of items and
users are *slots*; `online.slots` maps ids to slots and decides which slot is given up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from online.compiled import compiled
from online.state import State

Pause = Callable[[], None]

COPIED = 4 << 20  # bytes at once when tables grow: a few ms
PAGE = 16  # events in one page of a user's history
RECENT = 64  # newest users remembered per item
# A stored reference to an item or a user is its slot and, above it, the slot's generation: when a
# slot is given to another one, what still refers to the old one is recognised and passed over.
SLOT_BITS = 24
SLOT_MASK = (1 << SLOT_BITS) - 1
GENERATIONS = 127

PAIR_FIELDS = 6
FORWARD_SHORT, FORWARD_LONG, BACKWARD_LONG, DIRECT, TOGETHER, LATEST = range(PAIR_FIELDS)
ROW_CLASSES = 4  # a row of pairs holds 8, 32, 128 or 512 slots
ROW_FIRST = 8
HOT_LISTS = 4
HOT = 128  # items in one list of the most popular or trending

# Half-lives of the decayed counts: in events of the whole stream ("ticks") and in milliseconds.
# Ticks follow the shop's own pace; event time follows the calendar.
TICK_HALF_LIVES = (250.0, 2_500.0, 25_000.0)
DAY = 86_400_000.0
TIME_HALF_LIVES = (DAY / 4, 3 * DAY, 30 * DAY)
DECAYS = len(TICK_HALF_LIVES) + len(TIME_HALF_LIVES)


class Tables(NamedTuple):
    """Arrays by name; first axis: I items, P pair entries, U users, G pages, or a constant."""

    # per item
    key: np.ndarray  # (I,) i4 slot with its generation
    taken: np.ndarray  # (I,) f8 events
    rarity: np.ndarray  # (I,) f4 1 / sqrt(count + 2)
    decayed: np.ndarray  # (I, DECAYS) f8 log2 of exponentially decayed counts, in stream units
    last_tick: np.ndarray  # (I,) i8
    last_ts: np.ndarray  # (I,) i8
    first_tick: np.ndarray  # (I,) i8 when it became known
    first_taken: np.ndarray  # (I,) i8 tick of its first event, -1 none yet
    known: np.ndarray  # (I,) i1: 1 seen or announced
    hidden: np.ndarray  # (I,) i1: 1 out of stock or withdrawn
    available: np.ndarray  # (I,) i8 event time from which it may be shown
    shown: np.ndarray  # (I,) i1: 1 once it was in a slate
    row_start: np.ndarray  # (I,) i8 first pair entry of the item's row, -1 none
    row_class: np.ndarray  # (I,) i1
    recent: np.ndarray  # (I, RECENT) i4 keys of users, a ring
    recent_n: np.ndarray  # (I,) i8 users ever put into the ring
    # pairs: rows of 8·4^c entries, set-associative
    pair_item: np.ndarray  # (P,) i4 neighbour's key, -1 empty
    pair_weight: np.ndarray  # (P, PAIR_FIELDS) f4
    row_free: np.ndarray  # (ROW_CLASSES, P // 8) i4 freed rows
    row_free_n: np.ndarray  # (ROW_CLASSES,) i8
    # per user: pages of history, newest page first through `page_older`
    user_key: np.ndarray  # (U,) i4 slot with its generation
    user_page: np.ndarray  # (U,) i4 newest page, -1 none
    user_n: np.ndarray  # (U,) i4 events kept
    dislikes: np.ndarray  # (U,) i1: 1 when something was disliked
    # pages
    page_older: np.ndarray  # (G,) i4
    page_item: np.ndarray  # (G, PAGE) i4 key of the item, -1 none, or `against` a disliked one
    page_type: np.ndarray  # (G, PAGE) i1 index into EVENT_TYPES
    page_price: np.ndarray  # (G, PAGE) i1 bucket of the price, 0 none
    page_ts: np.ndarray  # (G, PAGE) i8
    page_event: np.ndarray  # (G, PAGE) u8 hash of event_id
    page_session: np.ndarray  # (G, PAGE) u8 hash of session_id, 0 none
    page_free: np.ndarray  # (G,) i4 stack
    # most popular and trending
    hot: np.ndarray  # (HOT_LISTS, HOT) i4
    hot_n: np.ndarray  # (HOT_LISTS,) i8
    # counters: see the names below
    clock: np.ndarray  # (8,) i8


TICK, PAIRS_USED, PAGES_FREE, ITEMS_KNOWN = range(4)


def new_tables(items: int, users: int, pages: int, pairs: int) -> Tables:
    """Empty tables with room for that many rows each."""
    return Tables(
        key=np.arange(items, dtype=np.int32),
        taken=np.zeros(items),
        rarity=np.full(items, 0.5**0.5, np.float32),
        decayed=np.full((items, DECAYS), -1e300),
        last_tick=np.zeros(items, np.int64),
        last_ts=np.zeros(items, np.int64),
        first_tick=np.zeros(items, np.int64),
        first_taken=np.full(items, -1, np.int64),
        known=np.zeros(items, np.int8),
        hidden=np.zeros(items, np.int8),
        available=np.zeros(items, np.int64),
        shown=np.zeros(items, np.int8),
        row_start=np.full(items, -1, np.int64),
        row_class=np.zeros(items, np.int8),
        recent=np.full((items, RECENT), -1, np.int32),
        recent_n=np.zeros(items, np.int64),
        pair_item=np.full(pairs, -1, np.int32),
        pair_weight=np.zeros((pairs, PAIR_FIELDS), np.float32),
        row_free=np.zeros((ROW_CLASSES, pairs // ROW_FIRST), np.int32),
        row_free_n=np.zeros(ROW_CLASSES, np.int64),
        user_key=np.arange(users, dtype=np.int32),
        user_page=np.full(users, -1, np.int32),
        user_n=np.zeros(users, np.int32),
        dislikes=np.zeros(users, np.int8),
        page_older=np.full(pages, -1, np.int32),
        page_item=np.full((pages, PAGE), -1, np.int32),
        page_type=np.zeros((pages, PAGE), np.int8),
        page_price=np.zeros((pages, PAGE), np.int8),
        page_ts=np.zeros((pages, PAGE), np.int64),
        page_event=np.zeros((pages, PAGE), np.uint64),
        page_session=np.zeros((pages, PAGE), np.uint64),
        page_free=np.arange(pages - 1, -1, -1, dtype=np.int32),
        hot=np.full((HOT_LISTS, HOT), -1, np.int32),
        hot_n=np.zeros(HOT_LISTS, np.int64),
        clock=_clock(pages),
    )


def _clock(pages: int) -> np.ndarray:
    clock = np.zeros(8, np.int64)
    clock[PAGES_FREE] = pages
    return clock


_EMPTY: dict[str, Any] = {
    "rarity": 0.5**0.5,
    "decayed": -1e300,
    "first_taken": -1,
    "row_start": -1,
    "recent": -1,
    "pair_item": -1,
    "user_page": -1,
    "page_older": -1,
    "page_item": -1,
}


def longer(array: np.ndarray, rows: int, empty: float, pause: Pause) -> np.ndarray:
    """The same with room for so many rows; pause: called after each few MB."""
    grown = np.zeros((rows, *array.shape[1:]), array.dtype)  # takes no memory before it is used
    step = max(COPIED // max(grown[:1].nbytes, 1), 1)
    for at in range(0, rows if empty else len(array), step):
        part, old = grown[at : at + step], array[at : at + step]
        part[: len(old)] = old
        if empty:
            part[len(old) :] = empty
        pause()
    return grown


ITEM_TABLES = (
    "taken", "rarity", "decayed", "last_tick", "last_ts", "first_tick", "first_taken", "known",
    "hidden", "available", "shown", "row_start", "row_class", "recent", "recent_n",
)  # fmt: skip
PAIR_TABLES = ("pair_item", "pair_weight")
USER_TABLES = ("user_page", "user_n", "dislikes")
PAGE_TABLES = (
    "page_older", "page_item", "page_type", "page_price", "page_ts", "page_event", "page_session",
)  # fmt: skip


_BY_KIND = {
    "items": ("key", *ITEM_TABLES),
    "users": ("user_key", *USER_TABLES),
    "pages": PAGE_TABLES,
    "pairs": PAIR_TABLES,
}
WHOLE = ("row_free_n", "hot", "hot_n", "clock")  # kept as they are


def state_of(t: Tables, items: int, users: int) -> State:
    """The rows in use, of so many items and users, and how many rows there are."""
    used = np.ones(len(t.page_older), np.bool_)
    used[t.page_free[: t.clock[PAGES_FREE]]] = False
    pages = int(np.flatnonzero(used)[-1]) + 1 if used.any() else 0
    rows = {"items": items, "users": users, "pages": pages, "pairs": int(t.clock[PAIRS_USED])}
    state: State = {"room": [len(t.taken), len(t.user_n), len(t.page_older), len(t.pair_item)]}
    for kind, names in _BY_KIND.items():
        state |= {name: getattr(t, name)[: rows[kind]] for name in names}
    state |= {name: getattr(t, name) for name in WHOLE}
    state["row_free"] = t.row_free[:, : int(t.row_free_n.max())]
    state["page_free"] = t.page_free[: t.clock[PAGES_FREE]]
    return state


def restored(state: State) -> Tables:
    """Tables as they were when `state` was taken."""
    t = new_tables(*state["room"])
    for name in t._fields:
        if name == "first_taken" and name not in state:  # an older freshrec wrote it
            t.first_taken[: len(state["taken"])] = np.where(
                state["taken"] > 0, state["first_tick"], -1
            )
            continue
        if name == "dislikes" and name not in state:  # an older freshrec knew none
            continue
        kept, ours = state[name], getattr(t, name)
        if name == "row_free":
            ours[:, : kept.shape[1]] = kept
        else:
            ours[: len(kept)] = kept
    return t


def _grown(t: Tables, names: tuple[str, ...], rows: int, pause: Pause) -> Tables:
    """pause: called between parts; `t` is what counts until all are there."""
    arrays = {name: (getattr(t, name), rows, _EMPTY.get(name, 0), pause) for name in names}
    return t._replace(**{name: longer(*each) for name, each in arrays.items()})


def _longer_keys(keys: np.ndarray, rows: int) -> np.ndarray:
    grown = np.arange(rows, dtype=np.int32)
    grown[: len(keys)] = keys
    return grown


@compiled
def next_generation(key: int) -> int:
    """The key of the same slot once it belongs to another item or user.

    >>> next_generation(7) & SLOT_MASK, next_generation(7) >> SLOT_BITS
    (7, 1)
    """
    generation = ((key >> SLOT_BITS) + 1) % GENERATIONS
    return (generation << SLOT_BITS) | (key & SLOT_MASK)


@compiled
def against(key: int) -> int:
    """How a history holds an item that the user disliked: whoever looks for items finds none. It is
    its own inverse.

    >>> against(7), against(against(7))
    (-9, 7)
    """
    return -2 - key


def grow_items(t: Tables, rows: int, pause: Pause) -> Tables:
    return _grown(t, ITEM_TABLES, rows, pause)._replace(key=_longer_keys(t.key, rows))


def grow_pairs(t: Tables, rows: int, pause: Pause) -> Tables:
    free = np.zeros((ROW_CLASSES, rows // ROW_FIRST), np.int32)
    free[:, : t.row_free.shape[1]] = t.row_free
    return _grown(t, PAIR_TABLES, rows, pause)._replace(row_free=free)


def grow_users(t: Tables, rows: int, pause: Pause) -> Tables:
    return _grown(t, USER_TABLES, rows, pause)._replace(user_key=_longer_keys(t.user_key, rows))


def grow_pages(t: Tables, rows: int, pause: Pause) -> Tables:
    """More pages; the new ones join the free stack."""
    old, free = len(t.page_older), int(t.clock[PAGES_FREE])
    stack = np.zeros(rows, np.int32)
    stack[: rows - old] = np.arange(rows - 1, old - 1, -1)
    stack[rows - old : rows - old + free] = t.page_free[:free]
    grown = _grown(t, PAGE_TABLES, rows, pause)._replace(page_free=stack)
    grown.clock[PAGES_FREE] = free + rows - old
    return grown
