"""Candidate sources: what could this user want next? The first of the two stages.

`propose` walks the neighbours of the user's newest items (co-visitation, transitions) and the items
of recent users who had the same (neighbours): see `online.walk`; adds the most popular and trending
items, the user's own repeats, and what is nearest to the user's query (`online.sequence`); keeps
what the sources together rate highest; and lets `online.features` describe each.
"""

from __future__ import annotations

import numpy as np

from online import features, likeness, nearness
from online.compiled import compiled
from online.features import SUMS, Scratch
from online.history import disliked, newest
from online.sequence import Sequences, ask, look
from online.tables import HOT_LISTS, SLOT_MASK, Tables
from online.texts import Texts
from online.walk import walk_pairs, walk_users

CANDIDATES = 256  # rows that a user's list has at most
REPEATS = 24  # of them the user's own
NEAR_SHARE = 24  # of them the nearest to the user's query
HOT_SHARE = 16  # of them from each hot list
SESSION_MS = 1_800_000  # a pause that ends a session, where events carry no session_id

BUCKETS, BUCKET_SHIFT = 256, 18  # 2^18: a 32nd of a factor of two, in the bits of a float
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
def _take(s: Scratch, j: int, exclude_seen: bool, cand: np.ndarray, n: int) -> int:
    if j < 0 or n == CANDIDATES or s.chosen[j] or (exclude_seen and s.own[j] > 0):
        return n
    s.chosen[j] = 1
    cand[n] = j
    return n + 1


@compiled
def _rate(
    touched: np.ndarray, n: int, sums: np.ndarray, known: np.ndarray, chosen: np.ndarray,
    own: np.ndarray, exclude_seen: bool, rate: np.ndarray,
) -> np.float32:  # fmt: skip
    """Rate the n touched items, -1 for those that cannot be taken; the highest rate. Arrays come
    one by one, as in `online.walk`."""
    scale = np.zeros(SUMS, np.float32)
    for a in range(n):
        for k in range(SUMS):
            scale[k] = max(scale[k], sums[a, k])
    for k in range(SUMS):
        scale[k] = FIRST_STAGE[k] / scale[k] if scale[k] > 0.0 else np.float32(0.0)
    top = np.float32(-1.0)
    for a in range(n):
        j = touched[a]
        total = np.float32(0.0)
        for k in range(SUMS):
            total += scale[k] * sums[a, k]
        if known[j] == 0 or chosen[j] or (exclude_seen and own[j] > 0):  # unknown: a query
            total = np.float32(-1.0)
        rate[a] = total
        top = max(top, rate[a])
    return top


@compiled
def _bucket(highest: int, bits: int) -> int:
    """Steps below the highest. Bounded at both ends: -0.0 has the bits of a very low number."""
    return max(0, min((highest - bits) >> BUCKET_SHIFT, BUCKETS - 1))


@compiled
def best(rate: np.ndarray, n: int, top: np.float32, room: int, out: np.ndarray) -> int:
    """Positions of the `room` highest of the first n rates (those below 0 do not count); how many.

    Rates are compared by bucket, 32 to a factor of two below the highest (`top`), and within the
    last bucket the first come first. A partial sort would cost twice the rest of the selection,
    nearly all of it in branches that no processor can predict.
    """
    bits, highest = rate.view(np.int32), np.array([top], np.float32).view(np.int32)[0]
    size = np.zeros(BUCKETS, np.int32)
    for a in range(n):
        if rate[a] >= 0.0:
            size[_bucket(highest, bits[a])] += 1
    last, left = 0, room
    while last < BUCKETS - 1 and size[last] <= left:
        left -= size[last]
        last += 1
    found = 0
    for a in range(n):
        if rate[a] < 0.0:
            continue
        bucket = _bucket(highest, bits[a])
        if bucket < last or (bucket == last and left > 0):
            left -= 1 if bucket == last else 0
            out[found] = a
            found += 1
    return found


@compiled
def _take_best(
    t: Tables, s: Scratch, touched: int, exclude_seen: bool, cand: np.ndarray, n: int
) -> int:
    """Fill the list up with the touched items that the sources together rate highest."""
    top = _rate(s.touched, touched, s.sums, t.known, s.chosen, s.own, exclude_seen, s.rate)
    found = best(s.rate, touched, top, CANDIDATES - n, s.order)
    for k in range(found):
        cand[n + k] = s.touched[s.order[k]]
        s.chosen[cand[n + k]] = 1
    return n + found


@compiled
def _take_own_and_hot(
    t: Tables, s: Scratch, length: int, exclude_seen: bool, cand: np.ndarray
) -> tuple[int, int]:
    """The user's own repeats and the hot lists' share; also how many items the user had."""
    own, n = 0, 0
    for p in range(length):
        if s.own_gap[s.items[p]] == p + 1 and t.known[s.items[p]]:
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
def _shun(t: Tables, s: Scratch, user: int, length: int, exclude_seen: bool) -> int:
    """Let no source propose what the user disliked and did not take again; how many items these
    are. They lie in `s.items` after the `length` of the user's own."""
    found, n = s.items[length:], 0
    for k in range(disliked(t, user, found)):
        i = found[k]
        if s.own[i] == 0 and s.chosen[i] == 0:
            s.chosen[i] = 1
            found[n] = i
            n += 1
    if exclude_seen:
        for k in range(n):
            s.own[found[k]] = 1
    return n


@compiled
def _take_near(
    t: Tables, s: Scratch, near: np.ndarray, exclude_seen: bool, cand: np.ndarray, n: int
) -> int:
    """The items that were nearest to the user's query when it was last looked for them."""
    last = n + NEAR_SHARE
    for k in range(len(near)):
        j = near[k] & SLOT_MASK
        if n < last and near[k] >= 0 and t.key[j] == near[k] and t.known[j]:
            n = _take(s, j, exclude_seen, cand, n)
    return n


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
def _clean(marks: np.ndarray, items: np.ndarray, n: int, value: int) -> None:
    for k in range(n):
        marks[items[k]] = value


@compiled
def _walk(
    t: Tables, s: Scratch, texts: Texts, user: int, ts: int, session: np.uint64
) -> tuple[int, int, int]:
    """Put the user's events into `s` and walk from them; how many there are, how many of this
    session, and how many items were touched."""
    length = newest(t, user, s.items, s.kinds, s.prices, s.ts, s.sessions)
    fresh = _own(s, length, ts, session)
    touched = walk_pairs(t, s, texts, length)
    return length, fresh, walk_users(t, s, user, length, touched)


@compiled
def _describe(
    t: Tables, s: Scratch, q: Sequences, texts: Texts, length: int, fresh: int, m: int, ts: int,
    asked: bool, cand: np.ndarray, rows: int, x: np.ndarray,
) -> None:  # fmt: skip
    """The features of candidates, after `_walk`; m: texts in `s.text`."""
    features.write(t, s, length, fresh, ts, cand, rows, x)
    likeness.write(t, texts, s, length, m, ts, cand, rows, x)
    nearness.write(q, s, asked, length, cand, rows, x)


@compiled
def _clean_up(s: Scratch, length: int, touched: int, cand: np.ndarray, n: int) -> None:
    _clean(s.chosen, cand, n, 0)
    _clean(s.at, s.touched, touched, -1)
    _clean(s.own, s.items, length, 0)


@compiled
def describe(
    t: Tables, s: Scratch, q: Sequences, texts: Texts, user: int, ts: int, session: np.uint64,
    vector: np.ndarray, scale: np.float32, cand: np.ndarray, n: int, x: np.ndarray,
) -> None:  # fmt: skip
    """Features x (≥ n, FEATURES) of n given candidates for a user who just searched for `vector`
    (T,) i1, with its scale."""
    length, fresh, touched = _walk(t, s, texts, user, ts, session)
    asked = look(q, s, user, length, ts, s.query) >= 0
    m = likeness.put_first(s, likeness.gather(texts, s, length), vector, scale)
    _describe(t, s, q, texts, length, fresh, m, ts, asked, cand, n, x)
    _clean_up(s, length, touched, cand, 0)


@compiled
def propose(
    t: Tables, s: Scratch, q: Sequences, texts: Texts, user: int, ts: int, session: np.uint64,
    target: int, exclude_seen: bool, cand: np.ndarray, x: np.ndarray,
) -> tuple[int, int, int, int, int, float]:  # fmt: skip
    """Candidates and their features for one user at one moment.

    cand: (≥ CANDIDATES + 1,) i4 slots; x: (≥ CANDIDATES + 1, FEATURES) f4: both are written.
    target: slot of the item that was taken, or -1. Returns how many were proposed; the target's
    row (that number when it was not proposed but is known: its features follow the list; -1 when
    it can't be ranked); how many different items the user had; how many items lie in
    `s.items`, and how many of them, newest first, belong to this session; and the
    target's rank by popularity.
    """
    length, fresh, touched = _walk(t, s, texts, user, ts, session)
    bad = _shun(t, s, user, length, exclude_seen)
    n, own = _take_own_and_hot(t, s, length, exclude_seen, cand)
    own += bad
    row = ask(q, s, user, length, ts, s.query)
    if row >= 0:
        n = _take_near(t, s, q.near[row], exclude_seen, cand, n)
    n = likeness.take_alike(t, texts, s, length, exclude_seen, cand, n, CANDIDATES)
    n = _take_best(t, s, touched, exclude_seen, cand, n)
    asked, row = row >= 0, -1
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
    m = likeness.gather(texts, s, length)
    _describe(t, s, q, texts, length, fresh, m, ts, asked, cand, rows, x)
    _clean_up(s, length + bad, touched, cand, n)
    _clean(s.chosen, s.items[length:], bad, 0)
    return n, row, own, length, fresh, popular
