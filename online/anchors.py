"""Which of a user's own items a reason may name: one that the recommendation really rests on."""

from __future__ import annotations

import numpy as np

from online.compiled import compiled
from online.features import SOURCES, Scratch
from online.history import newest
from online.pairs import WINDOW, held, strength
from online.tables import DIRECT, Tables
from online.walk import DIRECT_ITEMS, WALK_ITEMS

TRANSITION, NEIGHBOURS = SOURCES.index("transition"), SOURCES.index("neighbours")


@compiled
def _weight(t: Tables, item: int, to: int, at: int, direct: bool) -> float:
    """How much the user's item, `at` events ago, speaks for another one."""
    entry = held(t.pair_item, t.row_start, t.row_class, item, t.key[to])
    if entry < 0 or item == to:
        return 0.0
    if direct:
        return t.pair_weight[entry, DIRECT]
    return 0.9**at * strength(t.pair_weight, entry) * t.rarity[item]


@compiled
def _strongest(t: Tables, items: np.ndarray, n: int, to: int, direct: bool) -> int:
    best, found = 0.0, -1
    for p in range(n):
        weight = _weight(t, items[p], to, p, direct)
        if weight > best:
            best, found = weight, p
    return found


@compiled
def find_anchors(
    t: Tables, s: Scratch, user: np.ndarray, chosen: np.ndarray, cand: np.ndarray,
    source: np.ndarray, item: np.ndarray, kind: np.ndarray, direct: np.ndarray,
) -> None:  # fmt: skip
    """For each chosen row, which of the user's own items speaks most for it.

    user: (L,) slots, -1 unknown; chosen: (L, k) rows of `cand`, -1 none; source: (L, k) indices
    into SOURCES. Fills item (L, k) with the slot of that item, -1 none, kind (L, k) with what the
    user did with it, and direct (L, k): whether the recommendation often directly followed it,
    which is looked for where transitions are the source.
    """
    for e in range(len(user)):
        length = newest(
            t, user[e], s.items[:WINDOW], s.kinds[:WINDOW], s.ts[:WINDOW], s.sessions[:WINDOW]
        )
        for k in range(chosen.shape[1]):
            item[e, k], kind[e, k], direct[e, k] = -1, -1, False
            if chosen[e, k] < 0 or length == 0:
                continue
            to, p = cand[chosen[e, k]], -1
            if source[e, k] == TRANSITION:
                p = _strongest(t, s.items, min(length, DIRECT_ITEMS), to, True)
                direct[e, k] = p >= 0
            elif source[e, k] == NEIGHBOURS:  # they are shoppers of the newest items
                p = max(_strongest(t, s.items, min(length, WALK_ITEMS), to, False), 0)
            if p < 0:
                p = _strongest(t, s.items, length, to, False)
            if p >= 0:
                item[e, k], kind[e, k] = s.items[p], s.kinds[p]
