"""Walks over what is known: the neighbours of a user's items, and what similar users had.

Both add to `sums`, one row for each item that is touched; `online.candidates` picks from them. The
loops take arrays one by one, since taking them out of a tuple inside costs several times the work,
and their decays come from tables, since a power costs more than the rest of an entry.
"""

from __future__ import annotations

import math

import numpy as np

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
    SHORT,
    SUMS,
    SYMMETRIC,
    TOGETHERS,
    WALK_USERS,
    Scratch,
)
from online.pairs import row_size
from online.tables import (
    BACKWARD_LONG,
    DIRECT,
    FORWARD_LONG,
    FORWARD_SHORT,
    LATEST,
    PAGE,
    RECENT,
    SLOT_MASK,
    TOGETHER,
    Tables,
)
from online.texts import Texts

SEQUENCE = 20  # newest events of the user whose neighbours are walked
DIRECT_ITEMS = 2  # of them whose transitions count: NEXT and NEXT2
FITTING = 8  # items that fit a query whose neighbours are walked
WALK_ITEMS = 5  # newest items whose recent users are walked
WALK_EVENTS = 16  # of each similar user at least; the page that holds the last one is finished

# What a neighbour counts when the user had the item p events ago, (SEQUENCE, 4): columns
# STEEP (short window), MEDIUM, FLAT and FLATTEST (symmetric).
STEEP, MEDIUM, FLAT, FLATTEST = range(4)
FADE = np.array([[base**p for base in (0.6, 0.8, 0.9, 0.95)] for p in range(SEQUENCE)], np.float32)
USER_FADE = np.array([0.95**k for k in range(WALK_EVENTS + PAGE)], np.float32)


@compiled
def _touch(at: np.ndarray, touched: np.ndarray, sums: np.ndarray, item: int, n: int) -> None:
    """Give the item a row of sums, number n."""
    at[item] = n
    touched[n] = item
    for k in range(SUMS):
        sums[n, k] = 0.0


@compiled
def _walk_row(
    first: int, last: int, pair_item: np.ndarray, pair_weight: np.ndarray, keys: np.ndarray,
    at: np.ndarray, touched: np.ndarray, sums: np.ndarray, n: int, fade: np.ndarray,
    share: np.float32, rare: np.float32,
) -> int:  # fmt: skip
    """Add one item's neighbours to the sums; `fade` (4,) is what they count. Returns the touched.

    COSINE still lacks the neighbour's own rarity, which is the same in every row.
    """
    steep, medium, flat, flattest = fade[STEEP], fade[MEDIUM], fade[FLAT], fade[FLATTEST]
    conditional, cosine = medium * share, flat * rare
    best = together = flat * share
    for entry in range(first, last):
        key = pair_item[entry]
        if key < 0:
            continue
        j = key & SLOT_MASK
        if keys[j] != key:  # the slot is another item's by now
            continue
        a = at[j]
        if a < 0:
            a = n
            _touch(at, touched, sums, j, n)
            n += 1
        forward = pair_weight[entry, FORWARD_LONG]
        back = pair_weight[entry, BACKWARD_LONG]
        both = forward + back
        sums[a, COVISIT] += medium * forward
        sums[a, SHORT] += steep * pair_weight[entry, FORWARD_SHORT]
        sums[a, SYMMETRIC] += flattest * both
        sums[a, CONDITIONAL] += conditional * forward
        sums[a, COSINE] += cosine * both
        sums[a, BACK] += flat * back
        sums[a, HITS] += np.float32(1.0)
        sums[a, BEST] = max(sums[a, BEST], best * forward)
        sums[a, TOGETHERS] += together * pair_weight[entry, TOGETHER]
        sums[a, NEWEST] = max(sums[a, NEWEST], pair_weight[entry, LATEST])
    return n


@compiled
def _walk_transitions(
    first: int, last: int, pair_item: np.ndarray, pair_weight: np.ndarray, keys: np.ndarray,
    at: np.ndarray, sums: np.ndarray, column: int, share: np.float32,
) -> None:  # fmt: skip
    """Add what directly followed one item; its row was walked before."""
    for entry in range(first, last):
        key = pair_item[entry]
        direct = pair_weight[entry, DIRECT]
        if key >= 0 and direct > 0.0 and keys[key & SLOT_MASK] == key:
            sums[at[key & SLOT_MASK], column] += direct * share


@compiled
def _walk_fitting(t: Tables, s: Scratch, texts: Texts, query: int, fade: np.ndarray, n: int) -> int:
    """Add the neighbours of the items that fit a query best; returns the touched."""
    for k in range(min(FITTING, texts.near.shape[1])):
        key = texts.near[query, k]
        j = key & SLOT_MASK
        if key < 0 or t.key[j] != key or t.row_start[j] < 0:
            continue
        start, share = t.row_start[j], np.float32(1.0 / (t.taken[j] + 2.0))
        n = _walk_row(
            start, start + row_size(t, j), t.pair_item, t.pair_weight, t.key, s.at, s.touched,
            s.sums, n, fade * (texts.alike[query, k] / np.float32(FITTING)), share, t.rarity[j],
        )  # fmt: skip
    return n


@compiled
def walk_pairs(t: Tables, s: Scratch, texts: Texts, length: int) -> int:
    """Sums over the neighbours of the user's newest items (`s.items`); how many were touched.

    A query leads to the neighbours of the items that fit it best, too.
    """
    n = 0
    for p in range(min(length, SEQUENCE)):
        i = s.items[p]
        if t.known[i] == 0:
            n = _walk_fitting(t, s, texts, i, FADE[p], n)
        start = t.row_start[i]
        if start < 0:
            continue
        end, share = start + row_size(t, i), np.float32(1.0 / (t.taken[i] + 2.0))
        n = _walk_row(
            start, end, t.pair_item, t.pair_weight, t.key, s.at, s.touched, s.sums, n, FADE[p],
            share, t.rarity[i],
        )  # fmt: skip
        if p < DIRECT_ITEMS:
            _walk_transitions(
                start, end, t.pair_item, t.pair_weight, t.key, s.at, s.sums, NEXT + p, share
            )
    for a in range(n):
        s.sums[a, COSINE] *= t.rarity[s.touched[a]]
    return n


@compiled
def _similar_users(
    taken: np.ndarray, recent: np.ndarray, recent_n: np.ndarray, user_key: np.ndarray,
    items: np.ndarray, length: int, user: int, weight: np.ndarray, users: np.ndarray,
) -> int:  # fmt: skip
    """Recent users of this user's newest items, weighted by how much they share."""
    found = 0
    for p in range(min(length, WALK_ITEMS)):
        i = items[p]
        w = np.float32(0.7**p / math.log2(3.0 + taken[i]))
        for r in range(min(recent_n[i], RECENT)):
            key = recent[i, (recent_n[i] - 1 - r) % RECENT]
            v = key & SLOT_MASK
            if key < 0 or v == user or user_key[v] != key:  # the slot may be another user's by now
                continue
            if weight[v] == 0.0:
                if found == WALK_USERS:
                    continue
                users[found] = v
                found += 1
            weight[v] += w
    return found


@compiled
def _walk_user(
    page: int, left: int, page_item: np.ndarray, page_older: np.ndarray, keys: np.ndarray,
    at: np.ndarray, touched: np.ndarray, sums: np.ndarray, n: int, last: int, w: np.float32,
) -> int:  # fmt: skip
    """Add what a similar user had, and what followed the item `last` there."""
    seen, after = 0, -1
    while page >= 0 and left > 0 and seen < WALK_EVENTS:
        fill = (left - 1) % PAGE + 1
        for x in range(fill - 1, -1, -1):
            key = page_item[page, x]
            if key < 0 or keys[key & SLOT_MASK] != key:
                continue
            j = key & SLOT_MASK
            a = at[j]
            if a < 0:
                a = n
                _touch(at, touched, sums, j, n)
                n += 1
            sums[a, NEIGHBOURS] += w * USER_FADE[seen]
            if j == last and after >= 0:
                sums[at[after], FOLLOWS] += w
            after = j
            seen += 1
        left -= fill
        page = page_older[page]
    return n


@compiled
def walk_users(t: Tables, s: Scratch, user: int, length: int, n: int) -> int:
    """The neighbours source. After Ludewig and Jannach (2018), "Evaluation of session-based
    recommendation algorithms" (vector multiplication session kNN)."""
    found = _similar_users(
        t.taken, t.recent, t.recent_n, t.user_key, s.items, length, user, s.user_weight, s.users
    )
    for k in range(found):
        v = s.users[k]
        w = s.user_weight[v]
        s.user_weight[v] = 0.0
        n = _walk_user(
            t.user_page[v], t.user_n[v], t.page_item, t.page_older, t.key, s.at, s.touched, s.sums,
            n, s.items[0], w,
        )  # fmt: skip
    return n
