"""Candidate sources: what could this user want next? The first of the two stages.

`propose` walks the neighbours of the user's newest items (co-visitation, transitions) and the items
of recent users who had the same (neighbours): see `online.walk`; adds the most popular and trending
items, and the user's own repeats; keeps what the sources together rate highest; and lets
`online.features` describe each.
"""

from __future__ import annotations

import numpy as np

from online import features
from online.compiled import compiled
from online.features import SUMS, Scratch
from online.history import newest
from online.tables import HOT_LISTS, Tables
from online.walk import walk_pairs, walk_users

CANDIDATES = 256  # rows that a user's list has at most
REPEATS = 24  # of them the user's own
HOT_SHARE = 16  # of them from each hot list
SESSION_MS = 1_800_000  # a pause that ends a session, where events carry no session_id

# How much each sum counts when the touched items are thinned out to CANDIDATES.
FIRST_STAGE = np.array([1, 1, 1, 0.5, 1, 0.5, 0.25, 0.25, 0, 0.5, 1, 0.5, 0.5, 0], np.float32)


@compiled
def _own(s: Scratch, length: int, ts: int, session: np.uint64) -> int:
    """Mark the user's own items; how many of the newest events belong to this session."""
    same, previous, fresh = True, ts, 0
    for p in range(length):
        i = s.items[p]
        if session != 0:
            same = s.sessions[p] == session
        else:
            same = same and previous - s.ts[p] < SESSION_MS
            previous = s.ts[p]
        if same and fresh == p:
            fresh += 1
        if s.own[i] == 0:
            s.own_gap[i] = p + 1
            s.own_session[i] = 1 if same else 0
        s.own[i] += 1
    return fresh


@compiled
def kth_largest(values: np.ndarray, n: int, k: int) -> float:
    """The k-th largest of the first n values, which are reordered (Hoare's quickselect)."""
    lo, hi = 0, n - 1
    k -= 1
    while lo < hi:
        pivot = values[(lo + hi) >> 1]
        i, j = lo, hi
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            hi = j
        elif k >= i:
            lo = i
        else:
            return values[k]
    return values[k]


@compiled
def _take(s: Scratch, j: int, exclude_seen: bool, cand: np.ndarray, n: int) -> int:
    if j < 0 or n == CANDIDATES or s.chosen[j] or (exclude_seen and s.own[j] > 0):
        return n
    s.chosen[j] = 1
    cand[n] = j
    return n + 1


@compiled
def _take_best(s: Scratch, touched: int, exclude_seen: bool, cand: np.ndarray, n: int) -> int:
    """Fill the list up with the touched items that the sources together rate highest."""
    scale = np.zeros(SUMS, np.float32)
    for a in range(touched):
        for k in range(SUMS):
            scale[k] = max(scale[k], s.sums[a, k])
    for k in range(SUMS):
        scale[k] = FIRST_STAGE[k] / scale[k] if scale[k] > 0.0 else np.float32(0.0)
    m = 0
    for a in range(touched):
        j = s.touched[a]
        s.rate[a] = -1.0
        if s.chosen[j] or (exclude_seen and s.own[j] > 0):
            continue
        rate = np.float32(0.0)
        for k in range(SUMS):
            rate += scale[k] * s.sums[a, k]
        s.rate[a] = rate
        s.order[m] = rate
        m += 1
    room = CANDIDATES - n
    if m == 0 or room == 0:
        return n
    bar = kth_largest(s.order, m, room) if m > room else np.float32(0.0)
    for a in range(touched):
        if s.rate[a] >= bar:
            n = _take(s, s.touched[a], exclude_seen, cand, n)
    return n


@compiled
def _take_own_and_hot(
    t: Tables, s: Scratch, length: int, exclude_seen: bool, cand: np.ndarray
) -> tuple[int, int]:
    """The user's own repeats and the hot lists' share; also how many items the user had."""
    own, n = 0, 0
    for p in range(length):
        if s.own_gap[s.items[p]] == p + 1:
            own += 1
            if n < REPEATS:
                n = _take(s, s.items[p], exclude_seen, cand, n)
    for h in range(HOT_LISTS):
        took = 0
        for k in range(t.hot_n[h]):
            if took == HOT_SHARE:
                break
            before = n
            n = _take(s, t.hot[h, k], exclude_seen, cand, n)
            took += n - before
    return n, own


@compiled
def popularity_rank(t: Tables, s: Scratch, target: int, exclude_seen: bool) -> float:
    """Rank of the target in the plain popularity list; inf beyond its end."""
    rank = 1.0
    for k in range(t.hot_n[0]):
        j = t.hot[0, k]
        if j == target:
            return rank
        if not (exclude_seen and s.own[j] > 0):
            rank += 1.0
    return np.inf


@compiled
def propose(
    t: Tables, s: Scratch, user: int, ts: int, session: np.uint64, target: int,
    exclude_seen: bool, cand: np.ndarray, x: np.ndarray,
) -> tuple[int, int, int, int, int, float]:  # fmt: skip
    """Candidates and their features for one user at one moment.

    cand: (≥ CANDIDATES + 1,) i4 slots; x: (≥ CANDIDATES + 1, FEATURES) f4: both are written.
    target: slot of the item that was taken, or -1. Returns how many were proposed; the target's
    row (that number when it was not proposed but is known: its features follow the list; -1 when
    it can't be ranked); how many different items the user had; how many items lie in
    `s.items`, and how many of them, newest first, belong to this session; and the
    target's rank by popularity.
    """
    length = newest(t, user, s.items, s.kinds, s.ts, s.sessions)
    fresh = _own(s, length, ts, session)
    touched = walk_pairs(t, s, length)
    touched = walk_users(t, s, user, length, touched)
    n, own = _take_own_and_hot(t, s, length, exclude_seen, cand)
    n = _take_best(s, touched, exclude_seen, cand, n)
    row = -1
    popular = np.inf
    if target >= 0 and t.known[target] and not (exclude_seen and s.own[target] > 0):
        popular = popularity_rank(t, s, target, exclude_seen)
        row = n
        cand[n] = target
        for c in range(n):
            if cand[c] == target:
                row = c
                break
    rows = n + 1 if row == n else n
    features.write(t, s, length, fresh, ts, cand, rows, x)
    for c in range(n):
        s.chosen[cand[c]] = 0
    for a in range(touched):
        s.at[s.touched[a]] = -1
    for p in range(length):
        s.own[s.items[p]] = 0
    return n, row, own, length, fresh, popular
