"""Which items go together: decayed co-visitation and transitions, sparse and bounded.

An item's neighbours lie in one row, a small set-associative cache: a neighbour may sit in one of
WAYS entries; when they are full the row grows fourfold, and at its largest the weakest of them
gives way. So memory is bounded per item, an update touches one cache line or two, and no N×N
matrix exists. The idea of keeping the heavy hitters: Metwally et al. (2005), "Space-Saving".
"""

from __future__ import annotations

import numpy as np

from online.compiled import compiled
from online.tables import (
    BACKWARD_LONG,
    DIRECT,
    FORWARD_LONG,
    FORWARD_SHORT,
    LATEST,
    PAIR_FIELDS,
    PAIRS_USED,
    ROW_CLASSES,
    ROW_FIRST,
    SLOT_MASK,
    TICK,
    TOGETHER,
    Tables,
)

WAYS = 8
WINDOW = 20  # events of a user back
# what a pair counts when its items lie 1, 2, … WINDOW events of a user apart
SHORT_DECAY = np.array([0.6**gap for gap in range(WINDOW)], np.float32)
LONG_DECAY = np.array([0.9**gap for gap in range(WINDOW)], np.float32)


@compiled
def _place(key: int) -> int:
    """Where the search for a neighbour starts (a multiplicative hash)."""
    return (key * 2654435761) & 0x7FFFFFFF


@compiled
def row_size(t: Tables, item: int) -> int:
    return ROW_FIRST << (2 * t.row_class[item])


@compiled
def _keep_free(t: Tables, size_class: int, start: int) -> None:
    if t.row_free_n[size_class] < t.row_free.shape[1]:
        t.row_free[size_class, t.row_free_n[size_class]] = start
        t.row_free_n[size_class] += 1


@compiled
def _new_row(t: Tables, size_class: int) -> int:
    """First entry of an empty row of that class, or -1 when the arena is full."""
    size = ROW_FIRST << (2 * size_class)
    if t.row_free_n[size_class] > 0:
        t.row_free_n[size_class] -= 1
        return t.row_free[size_class, t.row_free_n[size_class]]
    start = t.clock[PAIRS_USED]
    if start + size <= len(t.pair_item):
        t.clock[PAIRS_USED] = start + size
        return start
    for larger in range(size_class + 1, ROW_CLASSES):  # split a freed larger row
        if t.row_free_n[larger] > 0:
            t.row_free_n[larger] -= 1
            start = t.row_free[larger, t.row_free_n[larger]]
            for c in range(larger - 1, size_class - 1, -1):
                part = ROW_FIRST << (2 * c)
                for k in range(1, 4):
                    _keep_free(t, c, start + k * part)
            return start
    return -1


@compiled
def free_row(t: Tables, item: int) -> None:
    """Give the item's row back, empty."""
    start = t.row_start[item]
    if start < 0:
        return
    for entry in range(start, start + row_size(t, item)):
        t.pair_item[entry] = -1
    _keep_free(t, t.row_class[item], start)
    t.row_start[item] = -1
    t.row_class[item] = 0


@compiled
def strength(pair_weight: np.ndarray, entry: int) -> float:
    return pair_weight[entry, FORWARD_LONG] + pair_weight[entry, BACKWARD_LONG]


@compiled
def _search(pair_item: np.ndarray, start: int, size: int, key: int) -> int:
    """Entry of the neighbour; -1 - entry of a free one; or -2**40 when all its ways are taken."""
    at = _place(key)
    empty = -1
    for way in range(WAYS):
        entry = start + ((at + way) & (size - 1))
        if pair_item[entry] == key:
            return entry
        if empty < 0 and pair_item[entry] < 0:
            empty = entry
    return -1 - empty if empty >= 0 else -(1 << 40)


@compiled
def _weakest(pair_weight: np.ndarray, start: int, size: int, key: int) -> int:
    """The entry that gives way to a neighbour whose ways are all taken."""
    at = _place(key)
    entry = start + (at & (size - 1))
    for way in range(1, WAYS):
        other = start + ((at + way) & (size - 1))
        if strength(pair_weight, other) < strength(pair_weight, entry):
            entry = other
    return entry


@compiled
def _grow_row(t: Tables, item: int) -> bool:
    if t.row_class[item] + 1 >= ROW_CLASSES:
        return False
    start = _new_row(t, t.row_class[item] + 1)
    if start < 0:
        return False
    old, old_size = t.row_start[item], row_size(t, item)
    size = old_size << 2
    for entry in range(old, old + old_size):
        if t.pair_item[entry] >= 0:
            to = _search(t.pair_item, start, size, t.pair_item[entry])
            if to > -(1 << 40):
                to = -1 - to
                t.pair_item[to] = t.pair_item[entry]
                t.pair_weight[to] = t.pair_weight[entry]
    new_class = t.row_class[item] + 1
    free_row(t, item)
    t.row_start[item] = start
    t.row_class[item] = new_class
    return True


@compiled
def _entry(t: Tables, item: int, neighbour: int) -> int:
    """The entry for a neighbour, made when there is none; -1 when the arena is full."""
    if t.row_start[item] < 0:
        t.row_class[item] = 0
        t.row_start[item] = _new_row(t, 0)
        if t.row_start[item] < 0:
            return -1
    for _ in range(ROW_CLASSES):
        size = row_size(t, item)
        start = t.row_start[item]
        found = _search(t.pair_item, start, size, t.key[neighbour])
        if found >= 0:
            return found
        if found > -(1 << 40):
            entry = -1 - found
            break
        if not _grow_row(t, item):
            entry = _weakest(t.pair_weight, start, size, t.key[neighbour])
            break
    t.pair_item[entry] = t.key[neighbour]
    for f in range(PAIR_FIELDS):
        t.pair_weight[entry, f] = 0.0
    return entry


@compiled
def held(
    pair_item: np.ndarray, row_start: np.ndarray, row_class: np.ndarray, item: int, key: int
) -> int:
    """The item's entry for a neighbour's key, or a negative number. Takes arrays one by one: each
    call with the whole tuple counts thirty references, which costs more than the search."""
    if row_start[item] < 0:
        return -1
    return _search(pair_item, row_start[item], ROW_FIRST << (2 * row_class[item]), key)


@compiled
def add_pairs(t: Tables, before: np.ndarray, n: int, fresh: int, after: int) -> None:
    """Count that a user went from each item of `before` to the item `after`.

    before: (≥ n,) the user's items, newest first, the first `fresh` of them in this session.
    """
    pair_item, weight, key = t.pair_item, t.pair_weight, t.key
    row_start, row_class = t.row_start, t.row_class
    tick, one = np.float32(t.clock[TICK]), np.float32(1.0)
    for p in range(min(n, WINDOW)):
        other = before[p]
        if other == after:
            continue
        together = one if p < fresh else np.float32(0.0)
        entry = held(pair_item, row_start, row_class, other, key[after])
        if entry < 0:
            entry = _entry(t, other, after)
        if entry >= 0:
            weight[entry, FORWARD_SHORT] += SHORT_DECAY[p]
            weight[entry, FORWARD_LONG] += LONG_DECAY[p]
            weight[entry, TOGETHER] += together
            weight[entry, LATEST] = tick
            if p == 0:
                weight[entry, DIRECT] += one
        if t.known[other] == 0:  # a query leads to items, and nothing leads to it
            continue
        entry = held(pair_item, row_start, row_class, after, key[other])
        if entry < 0:
            entry = _entry(t, after, other)
        if entry >= 0:
            weight[entry, BACKWARD_LONG] += LONG_DECAY[p]
            weight[entry, TOGETHER] += together
            weight[entry, LATEST] = tick


@compiled
def take_pairs_back(
    t: Tables, before: np.ndarray, n: int, fresh: int, item: int, times: int
) -> None:
    """The opposite of `add_pairs`, by so many events: the user's items lead to this one less, and
    not at all where nothing else spoke for it. What the item leads to stays."""
    key, weight = t.key[item], t.pair_weight
    for p in range(min(n, WINDOW)):
        other = before[p]
        if other == item:
            continue
        entry = held(t.pair_item, t.row_start, t.row_class, other, key)
        if entry < 0:
            continue
        weight[entry, FORWARD_SHORT] -= times * SHORT_DECAY[p]
        weight[entry, FORWARD_LONG] -= times * LONG_DECAY[p]
        weight[entry, BACKWARD_LONG] -= times * LONG_DECAY[p]
        weight[entry, DIRECT] -= times if p == 0 else 0.0
        weight[entry, TOGETHER] -= times if p < fresh else 0.0
        for f in range(LATEST):
            weight[entry, f] = max(weight[entry, f], np.float32(0.0))
        if strength(weight, entry) <= 0.0:
            t.pair_item[entry] = -1


@compiled
def forget_item(t: Tables, item: int) -> None:
    """Remove the item from its neighbours' rows, and give its row back."""
    start = t.row_start[item]
    if start < 0:
        return
    for entry in range(start, start + row_size(t, item)):
        key = t.pair_item[entry]
        if key >= 0 and t.key[key & SLOT_MASK] == key:
            other = key & SLOT_MASK
            if t.row_start[other] >= 0:
                found = _search(t.pair_item, t.row_start[other], row_size(t, other), t.key[item])
                if found >= 0:
                    t.pair_item[found] = -1
    free_row(t, item)


@compiled
def free_entries(t: Tables) -> int:
    """Entries that rows can still take: the arena's unused end, and what was freed."""
    free = len(t.pair_item) - t.clock[PAIRS_USED]
    for c in range(ROW_CLASSES):
        free += t.row_free_n[c] * (ROW_FIRST << (2 * c))
    return free
