"""Which items are nearest to a user's query: the candidate source of the sequence encoder.

For a small catalogue the product with every item is exact and quick enough; above `exact_items` an
index answers (`encoders.index` is one). Who is found is kept in the user's row and proposed until
it is looked for again, after the user's next events.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from online.compiled import compiled
from online.features import Scratch
from online.history import newest
from online.sequence import NEAR, NOWHERE, Sequences, ask
from online.tables import Tables

BLOCK = 1_024  # items: 256 kB of vectors
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
def _select(
    products: np.ndarray, bias: np.ndarray, own: np.ndarray, key: np.ndarray, near: np.ndarray
) -> None:
    """Keep the keys of the NEAR best of all items, best first, in near (NEAR,)."""
    score = np.full(NEAR, NOWHERE, np.float32)
    n, least = 0, NOWHERE
    for j in range(len(products)):
        value = products[j] + bias[j]
        if value <= least or own[j] > 0:
            continue
        at = min(n, NEAR - 1)
        while at > 0 and score[at - 1] < value:
            score[at], near[at] = score[at - 1], near[at - 1]
            at -= 1
        score[at], near[at] = value, key[j]
        n = min(n + 1, NEAR)
        least = score[NEAR - 1]
    near[n:] = -1


@compiled
def _take(
    found: np.ndarray, bias: np.ndarray, own: np.ndarray, key: np.ndarray, near: np.ndarray
) -> None:
    n = 0
    for j in found:  # some may have lost their vectors since
        if j >= 0 and bias[j] != NOWHERE and own[j] == 0 and n < NEAR:
            near[n] = key[j]
            n += 1
    near[n:] = -1


@compiled
def keep_nearest(
    t: Tables, s: Scratch, q: Sequences, user: np.ndarray, rows: np.ndarray, found: np.ndarray,
    products: np.ndarray, exact: bool, exclude_seen: bool,
) -> None:  # fmt: skip
    """Write the nearest items into the users' rows.

    user, rows: (n,); found: (n, k) slots that an index found; products: (n, I) with all vectors,
    which counts when `exact`. A user's own items are left out when `exclude_seen`.
    """
    for e in range(len(user)):
        if rows[e] < 0 or q.owner[rows[e]] != user[e]:  # gave way to one of the others
            continue
        length = 0
        if exclude_seen:
            length = newest(t, user[e], s.items, s.kinds, s.prices, s.ts, s.sessions)
        for p in range(length):
            s.own[s.items[p]] = 1
        if exact:
            _select(products[e], q.bias, s.own, t.key, q.near[rows[e]])
        else:
            _take(found[e], q.bias, s.own, t.key, q.near[rows[e]])
        for p in range(length):
            s.own[s.items[p]] = 0


class Nearest:
    """Looks for the nearest items of users; `index` None: always among all."""

    def __init__(self, index: Index | None, exact_items: int, at_once: int) -> None:
        self._index = index
        self._exact_items = exact_items
        self._at_once = at_once
        self._products = np.zeros((at_once, 0), np.float32)
        self._follows = False  # the index is told of new vectors: not before it is needed

    def publish(self, q: Sequences, slots: np.ndarray) -> None:
        """The vectors of these items are new."""
        if self._index is not None and self._follows:
            self._index.update(slots, q.vector[slots], q.bias[slots])

    def look(
        self, t: Tables, s: Scratch, q: Sequences, items: int, user: np.ndarray, ts: np.ndarray,
        exclude_seen: bool,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Find what is nearest to users (n,), at most `at_once`, at their moments.

        items: slots in use. Returns the users' queries (n, D) and the rows of their states (n,),
        -1 for those of whom nothing is known.
        """
        query = np.zeros((len(user), q.vector.shape[1]), np.float32)
        rows = ask_all(t, s, q, user, ts, query)
        exact = self._index is None or items <= self._exact_items
        if not exact and not self._follows:
            self._follows = True
            self.publish(q, np.flatnonzero(q.bias != NOWHERE))
        if exact:
            products, found = self._multiply(q, query, items), np.zeros((len(user), 0), np.int64)
        else:
            assert self._index is not None
            products = np.zeros((len(user), 0), np.float32)
            found = self._index.search(query, SPARE * NEAR)
        keep_nearest(t, s, q, user, rows, found, products, exact, exclude_seen)
        return query, rows

    def _multiply(self, q: Sequences, query: np.ndarray, items: int) -> np.ndarray:
        """Each user's is a product of its own: its bits do not depend on who else is asked for.

        A block of items serves all users while it is in the processor's cache.
        """
        if self._products.shape[1] < items:
            self._products = np.zeros((self._at_once, len(q.bias)), np.float32)
        products = self._products[: len(query), :items]
        for at in range(0, items, BLOCK):
            vectors = q.vector[at : min(at + BLOCK, items)]
            for one, out in zip(query, products, strict=True):
                np.dot(vectors, one, out=out[at : at + BLOCK])
        return products
