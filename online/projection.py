"""Vectors for items that the sequence encoder has not learned yet, projected from their texts.

A ridge regression from the texts' vectors to the learned ones (cf. Gantner et al. 2010, "Learning
attribute-to-feature mappings for cold-start recommendations"; van den Oord et al. 2013, "Deep
content-based music recommendation"), made anew as items warm up. An item's first learned vectors
are little better than chance, so they are mixed with the projected one as long as it is rarely
taken. All this happens where new weights begin to serve, when users' states are made anew anyway.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from online.sequence import NOWHERE, Sequences
from online.state import State
from online.tables import Tables
from online.texts import Texts

Array = np.ndarray
WARM = 5.0  # times an item was taken from which on the regression learns from it
FEWEST = 200  # warm items without which nothing is projected
MOST = 4_096  # warm items that it learns from, those taken most
RIDGE = 10.0
PART = 1_024  # items that are projected at once: some 5 ms, and 2 MB
EVERY = 4  # sets of weights that one regression serves
PRIOR = 3.0  # times an item was taken at which learned and projected vectors count the same
RARE = 0.1  # the quantile of the learned biases that is a projected item's


class Projection:
    def __init__(self) -> None:
        self._weights = np.zeros((0, 0), np.float32)  # (T + 1, D)
        self._bias = 0.0
        self._age = 0
        self._projected = np.zeros(0, bool)  # (I,) by slot: nothing was learned of it

    def apply(
        self, t: Tables, x: Texts, q: Sequences, rows: int, slots: Array,
        pause: Callable[[], None] = lambda: None,
    ) -> Array:  # fmt: skip
        """Project what has no vector, and mix into those just learned (`slots`); the slots that
        changed besides these.

        rows: slots in use; an empty `slots`: what others learned is mixed already; pause: called
        between parts, where each vector is the old or the new one.
        """
        if not x.vector.shape[1] or not q.vector.shape[1]:
            return np.zeros(0, np.int64)
        self._grow(len(q.bias))
        self.learned(slots)
        said = (x.scale[:rows] != 0.0) & (t.known[:rows] == 1)
        learned = said & (q.bias[:rows] != NOWHERE) & ~self._projected[:rows]
        fitted = self._age % EVERY == 0
        if fitted:
            self._fit(t, x, q, np.flatnonzero(learned & (t.taken[:rows] >= WARM)))
            pause()
        self._age += 1
        if not len(self._weights):
            return np.zeros(0, np.int64)
        some = slots[slots < rows]
        some = some[learned[some]]
        own = t.taken[some].astype(np.float32)[:, None]
        _put(q, some, own * q.vector[some] + PRIOR * self._vectors(x, some))
        cold = np.flatnonzero(said & ~learned & (fitted | ~self._projected[:rows]))
        self._projected[cold] = True
        for at in range(0, len(cold), PART):
            part = cold[at : at + PART]
            q.bias[part] = self._bias
            _put(q, part, self._vectors(x, part))
            pause()
        return cold

    def learned(self, slots: Array) -> None:
        """Of these others have learned."""
        self._grow(int(slots.max(initial=-1)) + 1)
        self._projected[slots] = False

    def is_learned(self, rows: int) -> Array:
        """Of which of so many slots the vectors do not come from texts alone."""
        self._grow(rows)
        return ~self._projected[:rows]

    def _grow(self, items: int) -> None:
        if items > len(self._projected):
            longer = np.zeros(items, bool)
            longer[: len(self._projected)] = self._projected
            self._projected = longer

    def _fit(self, t: Tables, x: Texts, q: Sequences, warm: Array) -> None:
        if len(warm) < FEWEST:
            return
        warm = np.sort(warm[np.argsort(-t.taken[warm], kind="stable")[:MOST]])
        text = _texts(x, warm)
        gram = text.T @ text
        gram[np.diag_indices(len(gram) - 1)] += np.float32(RIDGE)  # the constant is free
        self._weights = np.linalg.solve(gram, text.T @ q.vector[warm]).astype(np.float32)
        self._bias = float(np.quantile(q.bias[warm], RARE))

    def _vectors(self, x: Texts, slots: Array) -> Array:
        """(N, D), each of length 1."""
        made = _texts(x, slots) @ self._weights
        return made / (np.linalg.norm(made, axis=1, keepdims=True) + np.float32(1e-6))

    def state(self) -> State:
        return {"weights": self._weights, "bias": self._bias, "age": self._age,
                "projected": self._projected}  # fmt: skip

    def restore(self, state: State, same: bool) -> None:
        """same: are texts' and items' vectors those of then? If not, the regression begins anew."""
        self._projected = state["projected"].astype(bool)
        if same:
            self._weights, self._bias = state["weights"], state["bias"]
            self._age = state["age"]


def _texts(x: Texts, slots: Array) -> Array:
    """(N, T + 1) f4: the texts' vectors, and 1."""
    made = np.ones((len(slots), x.vector.shape[1] + 1), np.float32)
    made[:, :-1] = x.vector[slots] * x.scale[slots, None]
    return made


def _put(q: Sequences, slots: Array, vectors: Array) -> None:
    length = np.linalg.norm(vectors, axis=1, keepdims=True) + np.float32(1e-6)
    q.vector[slots] = vectors / length
    q.inverse[slots] = np.float32(1.0)
