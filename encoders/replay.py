"""What training sequences are drawn from: the newest events, and a sample of all before them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from encoders.config import GAPS

_FIELDS = {"item": np.int64, "kind": np.int8, "price": np.int8, "ts": np.int64, "older": np.int64}
_KEPT = {"item": np.int64, "kind": np.int8, "price": np.int8, "gap": np.int8, "valid": np.bool_}


class Windows(NamedTuple):
    """B sequences of T events, oldest first; those shorter than T lie at the end."""

    item: np.ndarray  # (B, T) keys
    kind: np.ndarray  # (B, T)
    price: np.ndarray  # (B, T)
    gap: np.ndarray  # (B, T) bucket of the gap from the event before
    valid: np.ndarray  # (B, T)


def gap_buckets(ms: np.ndarray) -> np.ndarray:
    """The buckets of `online.sequence.gap_bucket`, for many gaps at once."""
    return np.minimum(np.log2(np.maximum(ms, 0) / 1000.0 + 1.0).astype(np.int64) + 1, GAPS - 1)


class Replay:
    """A ring of the newest `size` events, linked by user, and a reservoir of sequences.

    The reservoir is a uniform sample of all sequences that ever ended (Vitter 1985, "Random
    sampling with a reservoir"): against forgetting what the ring has lost.
    """

    def __init__(self, size: int, reservoir: int, length: int, seed: int) -> None:
        self._size, self._length = size, length
        start = min(size, 4096)
        self._ring: dict[str, np.ndarray] = {
            name: np.zeros(start, kind) for name, kind in _FIELDS.items()
        }
        self._last: dict[int, int] = {}  # by user: the number of the newest event
        self._kept: dict[str, np.ndarray] = {
            name: np.zeros((reservoir, length), kind) for name, kind in _KEPT.items()
        }
        self._rng = np.random.default_rng(seed)
        self.events = 0  # ever

    def append(
        self, user: np.ndarray, item: np.ndarray, kind: np.ndarray, price: np.ndarray,
        ts: np.ndarray,
    ) -> None:  # fmt: skip
        """Add events (E,), in order."""
        most = min(self._size, 4096)  # the ring must still hold what the reservoir samples
        for at in range(0, len(user), most):
            part = slice(at, at + most)
            self._append(user[part], item[part], kind[part], price[part], ts[part])

    def _append(self, user: np.ndarray, *columns: np.ndarray) -> None:
        self._grow(len(user))
        numbers = np.arange(self.events, self.events + len(user))
        older = np.empty(len(user), np.int64)
        for n, one in enumerate(user.tolist()):
            older[n] = self._last.get(one, -1)
            self._last[one] = self.events + n
        at = numbers % len(self._ring["item"])
        for name, column in zip(_FIELDS, (*columns, older), strict=True):
            self._ring[name][at] = column
        self.events += len(user)
        self._sample(numbers)
        if len(self._last) > 2 * self._size:
            oldest = self.events - len(self._ring["item"])
            self._last = {u: n for u, n in self._last.items() if n >= oldest}

    def _grow(self, events: int) -> None:
        have = len(self._ring["item"])
        if self.events + events > have and have < self._size:
            more = min(max(2 * have, self.events + events), self._size)
            self._ring = {
                name: np.concatenate([old, np.zeros(more - have, old.dtype)])
                for name, old in self._ring.items()
            }

    def _sample(self, numbers: np.ndarray) -> None:
        """Each of these sequences takes its chance in the reservoir."""
        places = self._rng.integers(0, numbers + 1)
        places = np.where(numbers < len(self._kept["item"]), numbers, places)
        chosen = places < len(self._kept["item"])
        if chosen.any():
            found = self.windows(numbers[chosen])
            for name, kept in self._kept.items():
                kept[places[chosen]] = getattr(found, name)

    def windows(self, ends: np.ndarray) -> Windows:
        """The sequences that end with the events of these numbers (B,), which the ring holds."""
        size, oldest = len(self._ring["item"]), self.events - len(self._ring["item"])
        numbers = np.full((len(ends), self._length), -1, np.int64)
        at = ends
        for t in range(self._length - 1, -1, -1):
            numbers[:, t] = at
            older = self._ring["older"][at % size]
            at = np.where((at >= 0) & (older >= oldest), older, -1)
            if (at < 0).all():
                break
        valid = numbers >= 0
        there = np.where(valid, numbers % size, 0)
        ring = self._ring
        before = ring["older"][there]
        linked = valid & (before >= max(oldest, 0))
        gap = ring["ts"][there] - ring["ts"][np.where(linked, before % size, 0)]
        return Windows(
            np.where(valid, ring["item"][there], -1),
            np.where(valid, ring["kind"][there], 0),
            np.where(valid, ring["price"][there], 0),
            np.where(linked, gap_buckets(gap), 0),
            valid,
        )

    def draw(self, sequences: int, recent: float, recency: float) -> Windows:
        """Sequences to learn from: the share `recent` ends with an event of about that mean age,
        the others with any event that ever was."""
        held = min(self.events, len(self._ring["item"]))
        some = round(sequences * recent)
        age = self._rng.exponential(recency, some).astype(np.int64)
        anywhere = self._rng.integers(0, self.events, sequences - some)
        from_ring = anywhere >= self.events - held
        ends = np.concatenate([self.events - 1 - np.minimum(age, held - 1), anywhere[from_ring]])
        found = self.windows(ends)
        old = int((~from_ring).sum())
        if old:
            rows = self._rng.integers(0, min(self.events, len(self._kept["item"])), old)
            kept = Windows(*(self._kept[name][rows] for name in _KEPT))
            found = Windows(*(np.concatenate(each) for each in zip(found, kept, strict=True)))
        return found
