"""Which items are nearest to a user's query: the candidate source of the sequence encoder.

For a small catalogue the product with every item is exact and quick enough; above `exact_items` an
index answers (`encoders.index` is one). Who is found is kept in the user's row and proposed until
it is looked for again, after the user's next events.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from online.across import WIDE, Across, select
from online.compiled import compiled
from online.features import Scratch
from online.history import newest
from online.sequence import NEAR, NOWHERE, Sequences, ask
from online.tables import Tables

NO_BLOCKS = np.zeros((0, 0, WIDE), np.float32)
SPARE = 4  # an index is asked for this many times NEAR: the user's own items may be among them


class Index(Protocol):
    """Finds items by their product with a query. Biases lie beside the vectors."""

    def update(self, slots: np.ndarray, vectors: np.ndarray, bias: np.ndarray) -> None:
        """New vectors (N, D), of length 1, and biases (N,); NOWHERE: the item has none any more."""
        ...

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Slots (n, k) of about the best for queries (n, D), best first, -1 none."""
        ...


@compiled
def ask_all(
    t: Tables, s: Scratch, q: Sequences, user: np.ndarray, ts: np.ndarray, query: np.ndarray
) -> np.ndarray:
    """Fill query (n, D) for users (n,) at their moments; the rows of their states, -1 none."""
    rows = np.full(len(user), -1, np.int32)
    for e in range(len(user)):
        length = newest(t, user[e], s.items, s.kinds, s.prices, s.ts, s.sessions)
        query[e] = 0.0
        rows[e] = ask(q, s, user[e], length, ts[e], query[e])
    return rows


@compiled
def _take(
    found: np.ndarray, bias: np.ndarray, own: np.ndarray, key: np.ndarray, near: np.ndarray
) -> None:
    n = 0
    for j in found:  # some may have lost their vectors since
        if j >= 0 and bias[j] != NOWHERE and n < NEAR and not (own == j).any():
            near[n] = key[j]
            n += 1
    near[n:] = -1


@compiled
def keep_nearest(
    t: Tables, s: Scratch, q: Sequences, user: np.ndarray, rows: np.ndarray, query: np.ndarray,
    found: np.ndarray, blocks: np.ndarray, items: int, exclude_seen: bool,
) -> None:  # fmt: skip
    """Write the nearest items into the users' rows.

    user, rows: (n,); query: (n, D); found: (n, k) slots that an index found; blocks: all items'
    vectors (see `online.across`), which are looked at where k is 0. A user's own items are left out
    when `exclude_seen`.
    """
    own = np.empty((len(user), len(s.items) if exclude_seen else 0), np.int32)
    owned, which = np.zeros(len(user), np.int64), np.empty(len(user), np.int64)
    n = 0
    for e in range(len(user)):
        if rows[e] < 0 or q.owner[rows[e]] != user[e]:  # gave way to one of the others
            continue
        if exclude_seen:
            owned[n] = newest(t, user[e], s.items, s.kinds, s.prices, s.ts, s.sessions)
            own[n, : owned[n]] = s.items[: owned[n]]
        which[n] = e
        n += 1
    which = which[:n]
    near = np.empty((n, NEAR), np.int32)
    if found.shape[1] == 0:
        select(blocks, q.bias, t.key, items, query[which], own, owned, near)
    else:
        for k in range(n):
            _take(found[which[k]], q.bias, own[k, : owned[k]], t.key, near[k])
    for k in range(n):
        q.near[rows[which[k]]] = near[k]


class Nearest:
    """Looks for the nearest items of users; `index` None: always among all."""

    def __init__(self, index: Index | None, exact_items: int) -> None:
        self._index = index
        self._exact_items = exact_items
        self._across = Across()
        self._follows = False  # the index is told of new vectors: not before it is needed

    def publish(self, q: Sequences, slots: np.ndarray) -> None:
        """The vectors of these items are new."""
        self._across.changed(q.vector, slots)
        if self._index is not None and self._follows:
            self._index.update(slots, q.vector[slots], q.bias[slots])

    def look(
        self, t: Tables, s: Scratch, q: Sequences, items: int, user: np.ndarray, ts: np.ndarray,
        exclude_seen: bool,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Find what is nearest to users (n,) at their moments.

        items: slots in use. Returns the users' queries (n, D) and the rows of their states (n,),
        -1 for those of whom nothing is known.
        """
        query = np.zeros((len(user), q.vector.shape[1]), np.float32)
        rows = ask_all(t, s, q, user, ts, query)
        exact = self._index is None or items <= self._exact_items
        if not exact and not self._follows:
            self._follows = True
            self._across = Across()  # nobody reads it any more
            self.publish(q, np.flatnonzero(q.bias != NOWHERE))
        if exact:
            found, blocks = np.zeros((len(user), 0), np.int64), self._across.blocks(q.vector, items)
        else:
            assert self._index is not None
            found, blocks = self._index.search(query, SPARE * NEAR), NO_BLOCKS
        keep_nearest(t, s, q, user, rows, query, found, blocks, items, exclude_seen)
        return query, rows
