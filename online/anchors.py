"""Which of a user's own items a reason may name: one that the recommendation really rests on."""

from __future__ import annotations

import numpy as np

from online.compiled import compiled
from online.features import NEWEST_TEXTS, SOURCES, Scratch
from online.history import newest
from online.likeness import FADE
from online.pairs import WINDOW, held, strength
from online.tables import DIRECT, Tables
from online.texts import Texts
from online.walk import DIRECT_ITEMS, WALK_ITEMS

TRANSITION, NEIGHBOURS = SOURCES.index("transition"), SOURCES.index("neighbours")
SEQUENCE, TEXT, CATEGORY = map(SOURCES.index, ("sequence", "text", "category"))


@compiled
def _strongest(
    pair_item: np.ndarray, pair_weight: np.ndarray, row_start: np.ndarray, row_class: np.ndarray,
    rarity: np.ndarray, items: np.ndarray, n: int, to: int, key: int, direct: bool,
) -> int:  # fmt: skip
    """Which of the user's n newest items speaks most for the item `to` with this key, -1 none.

    direct: only for what directly followed. Arrays come one by one, as in `online.walk`.
    """
    best, found, fade = 0.0, -1, 1.0
    for p in range(n):
        i = items[p]
        entry = held(pair_item, row_start, row_class, i, key)
        if entry >= 0 and i != to:
            weight = pair_weight[entry, DIRECT]
            if not direct:
                weight = fade * strength(pair_weight, entry) * rarity[i]
            if weight > best:
                best, found = weight, p
        fade *= 0.9
    return found


@compiled
def _most_alike(vector: np.ndarray, scale: np.ndarray, items: np.ndarray, n: int, to: int) -> int:
    """Which of the user's n newest items and queries resembles the item `to` most, -1 none."""
    best, found = np.float32(0.0), -1
    for p in range(min(n, NEWEST_TEXTS)):
        i, total = items[p], np.int32(0)
        if i == to:
            continue
        for k in range(vector.shape[1]):
            total += np.int32(vector[i, k]) * np.int32(vector[to, k])
        value = np.float32(total) * (scale[i] * scale[to]) * FADE[p]
        if value > best:
            best, found = value, p
    return found


@compiled
def _same_kind(texts: Texts, items: np.ndarray, n: int, to: int) -> int:
    """The newest of the user's items of the same category as the item `to`, or brand; -1 none."""
    for p in range(n):
        i = items[p]
        if texts.category[to] > 0 and texts.category[i] == texts.category[to]:
            return p
    for p in range(n):
        if texts.brand[to] > 0 and texts.brand[items[p]] == texts.brand[to]:
            return p
    return -1


@compiled
def find_anchors(
    t: Tables, s: Scratch, texts: Texts, user: np.ndarray, chosen: np.ndarray, cand: np.ndarray,
    source: np.ndarray, item: np.ndarray, kind: np.ndarray, direct: np.ndarray,
) -> None:  # fmt: skip
    """For each chosen row, which of the user's own items speaks most for it.

    user: (L,) slots, -1 unknown; chosen: (L, k) rows of `cand`, -1 none; source: (L, k) indices
    into SOURCES. Fills item (L, k) with the slot of that item, -1 none, kind (L, k) with what the
    user did with it, and direct (L, k): whether the recommendation often directly followed it,
    which is looked for where transitions are the source.
    """
    pair_item, weight, start, size = t.pair_item, t.pair_weight, t.row_start, t.row_class
    rarity, keys, items = t.rarity, t.key, s.items
    for e in range(len(user)):
        length = newest(
            t, user[e], s.items[:WINDOW], s.kinds[:WINDOW], s.prices[:WINDOW], s.ts[:WINDOW],
            s.sessions[:WINDOW],
        )  # fmt: skip
        for k in range(chosen.shape[1]):
            item[e, k], kind[e, k], direct[e, k] = -1, -1, False
            if chosen[e, k] < 0 or length == 0:
                continue
            to, n, p = cand[chosen[e, k]], length, -1
            if source[e, k] == TRANSITION:
                n = min(length, DIRECT_ITEMS)
                p = _strongest(pair_item, weight, start, size, rarity, items, n, to, keys[to], True)
                direct[e, k], n = p >= 0, length
            elif source[e, k] == NEIGHBOURS:  # they are shoppers of the newest items
                n = min(length, WALK_ITEMS)
            if source[e, k] == SEQUENCE:
                p = 0
            elif source[e, k] == TEXT:
                p = _most_alike(texts.vector, texts.scale, items, length, to)
            elif source[e, k] == CATEGORY:
                p = _same_kind(texts, items, length, to)
            if p < 0 and source[e, k] < SEQUENCE:
                p = _strongest(
                    pair_item, weight, start, size, rarity, items, n, to, keys[to], False
                )
            if p < 0 and source[e, k] == NEIGHBOURS:
                p = 0
            if p >= 0:
                item[e, k], kind[e, k] = items[p], s.kinds[p]
