"""Items like one: by what is said of them, by what is done with them, or by both."""

from __future__ import annotations

import numpy as np

from online.memory import Memory
from online.pairs import row_size, strength
from online.reasons import shared_words
from online.step import Recommendation
from online.tables import SLOT_MASK
from online.texts import most_alike

WAYS = ("text", "behaviour", "both")
LOOKED_AT = 100  # of each kind
RANK = 60.0  # what reciprocal ranks are shifted by


def similar(
    memory: Memory, item_id: str, by: str, now_ms: int, k: int
) -> tuple[Recommendation, ...]:
    """The k items most like one, best first; () for an item that is not held.

    "both" adds reciprocal ranks (Cormack et al. 2009, "Reciprocal rank fusion"). Raises ValueError
    for another way than WAYS.
    """
    if by not in WAYS:
        raise ValueError(f"by={by!r}: use one of {', '.join(WAYS)}")
    slot = memory.items.get(item_id)
    if slot < 0 or not memory.tables.known[slot]:
        return ()
    texts = _by_text(memory, slot) if by != "behaviour" else {}
    acts = _by_behaviour(memory, slot) if by != "text" else {}
    scores = texts or acts if by != "both" else _fused(texts, acts)
    t = memory.tables
    known = [s for s in scores if s != slot and t.known[s]]
    shown = [s for s in known if not t.hidden[s] and t.available[s] <= now_ms]
    best = sorted(shown, key=lambda s: (-scores[s], s))[:k]
    return tuple(_row(memory, item_id, s, scores[s], texts, acts) for s in best)


def _by_text(memory: Memory, slot: int) -> dict[int, float]:
    x, rows = memory.texts, memory.items.rows
    if not x.vector.shape[1] or x.scale[slot] == 0.0:
        return {}
    slots, values = np.empty(LOOKED_AT, np.int32), np.empty(LOOKED_AT, np.float32)
    n = most_alike(
        memory.tables, x, rows, x.vector[slot], x.scale[slot], np.empty(rows, np.int32), slots,
        values,
    )  # fmt: skip
    return dict(zip(slots[:n].tolist(), values[:n].tolist(), strict=True))


def _by_behaviour(memory: Memory, slot: int) -> dict[int, float]:
    """Cosines of co-visitation."""
    t = memory.tables
    if t.row_start[slot] < 0:
        return {}
    first = int(t.row_start[slot])
    found: dict[int, float] = {}
    for entry in range(first, first + int(row_size(t, slot))):
        key = int(t.pair_item[entry])
        other = key & SLOT_MASK
        if key >= 0 and t.key[other] == key:
            both = strength(t.pair_weight, entry)
            found[other] = float(both * t.rarity[slot] * t.rarity[other])
    best = sorted(found, key=lambda s: (-found[s], s))[:LOOKED_AT]
    return {other: found[other] for other in best}


def _fused(*lists: dict[int, float]) -> dict[int, float]:
    total: dict[int, float] = {}
    for one in lists:
        for rank, slot in enumerate(sorted(one, key=lambda s: (-one[s], s))):
            total[slot] = total.get(slot, 0.0) + 1.0 / (RANK + rank)
    return total


def _row(
    memory: Memory, item_id: str, slot: int, score: float, texts: dict[int, float],
    acts: dict[int, float],
) -> Recommendation:  # fmt: skip
    name = memory.items.ids[slot]
    said = []
    if slot in texts:
        words = shared_words(memory.title(name), memory.title(item_id))
        said.append(f"similar text ({', '.join(words)})" if words else "similar in meaning")
    if slot in acts:
        said.append("taken by the same shoppers")
    source = "text" if slot in texts else "co-visitation"
    return Recommendation(name, score, " and ".join(said), source, 1.0)
