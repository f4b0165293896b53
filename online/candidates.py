"""Candidate sources: what could this user want next? The first of the two stages.

`propose` walks the neighbours of the user's newest items (co-visitation, transitions), the items of
recent users who had the same (neighbours), the most popular and trending items, and the user's own
repeats; keeps what the sources together rate highest; and lets `online.features` describe each.
"""

from __future__ import annotations

import math

import numpy as np

from online import features
from online.compiled import compiled
from online.features import (
    BACK,
    BEST,
    CONDITIONAL,
    COSINE,
    COVISIT,
    FOLLOWS,
    HITS,
    NEIGHBOURS,
    NEWEST,
    NEXT,
    NEXT2,
    SHORT,
    SUMS,
    SYMMETRIC,
    TOGETHERS,
    Scratch,
)
from online.history import newest
from online.pairs import row_size
from online.tables import (
    BACKWARD_LONG,
    DIRECT,
    FORWARD_LONG,
    FORWARD_SHORT,
    HOT_LISTS,
    LATEST,
    PAGE,
    RECENT,
    SLOT_MASK,
    TOGETHER,
    Tables,
)

SEQUENCE = 20  # newest events of the user whose neighbours are walked
CANDIDATES = 256  # rows that a user's list has at most
REPEATS = 24  # of them the user's own
HOT_SHARE = 16  # of them from each hot list
WALK_ITEMS = 5  # newest items whose recent users are walked
WALK_USERS = 96
WALK_EVENTS = 16
SESSION_MS = 1_800_000  # a pause that ends a session, where events carry no session_id

# How much each sum counts when the touched items are thinned out to CANDIDATES.
FIRST_STAGE = np.array([1, 1, 1, 0.5, 1, 0.5, 0.25, 0.25, 0, 0.5, 1, 0.5, 0.5, 0], np.float32)


@compiled
def _touch(at: np.ndarray, touched: np.ndarray, sums: np.ndarray, item: int, n: int) -> int:
    """Place of the item among the touched; `n` when it is new there."""
    place = at[item]
    if place < 0:
        place = n
        at[item] = n
        touched[n] = item
        for k in range(SUMS):
            sums[n, k] = 0.0
    return place


@compiled
def _walk_row(
    first: int, last: int, pair_item: np.ndarray, pair_weight: np.ndarray, rarity: np.ndarray,
    keys: np.ndarray, at: np.ndarray, touched: np.ndarray, sums: np.ndarray, n: int, p: int,
    share: np.float32, rare: np.float32,
) -> int:  # fmt: skip
    """Add one item's neighbours to the sums; the user had the item p events ago.

    Arrays come one by one: taking them out of a tuple in this loop costs five times the work.
    """
    w8, w6 = np.float32(0.8**p), np.float32(0.6**p)
    w95, w9 = np.float32(0.95**p), np.float32(0.9**p)
    kind = NEXT if p == 0 else NEXT2
    direct = share if p < 2 else np.float32(0.0)
    for entry in range(first, last):
        key = pair_item[entry]
        if key < 0:
            continue
        j = key & SLOT_MASK
        if keys[j] != key:  # the slot is another item's by now
            continue
        a = _touch(at, touched, sums, j, n)
        if a == n:
            n += 1
        forward = pair_weight[entry, FORWARD_LONG]
        back = pair_weight[entry, BACKWARD_LONG]
        both = forward + back
        conditional = forward * share
        sums[a, COVISIT] += w8 * forward
        sums[a, SHORT] += w6 * pair_weight[entry, FORWARD_SHORT]
        sums[a, SYMMETRIC] += w95 * both
        sums[a, CONDITIONAL] += w8 * conditional
        sums[a, COSINE] += w9 * both * rare * rarity[j]
        sums[a, BACK] += w9 * back
        sums[a, HITS] += np.float32(1.0)
        sums[a, BEST] = max(sums[a, BEST], conditional * w9)
        sums[a, TOGETHERS] += w9 * pair_weight[entry, TOGETHER] * share
        sums[a, NEWEST] = max(sums[a, NEWEST], pair_weight[entry, LATEST])
        sums[a, kind] += pair_weight[entry, DIRECT] * direct
    return n


@compiled
def _walk_pairs(t: Tables, s: Scratch, length: int) -> int:
    n = 0
    for p in range(min(length, SEQUENCE)):
        i = s.items[p]
        start = t.row_start[i]
        if start >= 0:
            n = _walk_row(
                start, start + row_size(t, i), t.pair_item, t.pair_weight, t.rarity, t.key, s.at,
                s.touched, s.sums, n, p, np.float32(1.0 / (t.taken[i] + 2.0)), t.rarity[i],
            )  # fmt: skip
    return n


@compiled
def _similar_users(t: Tables, s: Scratch, user: int, length: int) -> int:
    """Recent users of this user's newest items, weighted by how much they share."""
    found = 0
    for p in range(min(length, WALK_ITEMS)):
        i = s.items[p]
        w = np.float32(0.7**p / math.log2(3.0 + t.taken[i]))
        for r in range(min(t.recent_n[i], RECENT)):
            v = t.recent[i, (t.recent_n[i] - 1 - r) % RECENT]
            if v == user or v < 0:
                continue
            if s.user_weight[v] == 0.0:
                if found == WALK_USERS:
                    continue
                s.users[found] = v
                found += 1
            s.user_weight[v] += w
    return found


@compiled
def _walk_user(t: Tables, s: Scratch, user: int, last: int, w: np.float32, n: int) -> int:
    """Add what a similar user had, and what followed the item `last` there."""
    page, left, seen = t.user_page[user], t.user_n[user], 0
    after = -1
    while page >= 0 and left > 0 and seen < WALK_EVENTS:
        fill = (left - 1) % PAGE + 1
        for x in range(fill - 1, -1, -1):
            key = t.page_item[page, x]
            if key < 0 or t.key[key & SLOT_MASK] != key:
                continue
            j = key & SLOT_MASK
            a = _touch(s.at, s.touched, s.sums, j, n)
            if a == n:
                n += 1
            s.sums[a, NEIGHBOURS] += w * np.float32(0.95) ** seen
            if j == last and after >= 0:
                s.sums[s.at[after], FOLLOWS] += w
            after = j
            seen += 1
        left -= fill
        page = t.page_older[page]
    return n


@compiled
def _walk_users(t: Tables, s: Scratch, user: int, length: int, n: int) -> int:
    """The neighbours source. After Ludewig and Jannach (2018), "Evaluation of session-based
    recommendation algorithms" (vector multiplication session kNN)."""
    for k in range(_similar_users(t, s, user, length)):
        v = s.users[k]
        w = s.user_weight[v]
        s.user_weight[v] = 0.0
        n = _walk_user(t, s, v, s.items[0], w, n)
    return n


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
    touched = _walk_pairs(t, s, length)
    touched = _walk_users(t, s, user, length, touched)
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
