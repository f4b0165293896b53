"""Which row of the tables an id has: bounded, and the least recently used gives way."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

from online.state import State


class Slots:
    """Ids to slots 0 .. capacity - 1, remembering which were used last.

    >>> slots = Slots(limit=2)
    >>> slots.take("a"), slots.take("b"), slots.take("a"), slots.full
    (0, 1, 0, True)
    >>> slots.give_up("b"), slots.take("c"), slots.get("b")
    (1, 1, -1)
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._slot: OrderedDict[str, int] = OrderedDict()
        self.ids: list[str] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._slot)

    def __contains__(self, key: str) -> bool:
        return key in self._slot

    @property
    def full(self) -> bool:
        return len(self._slot) >= self.limit

    @property
    def rows(self) -> int:
        """Slots ever used: what the tables must have room for."""
        return len(self.ids)

    def ids_held(self) -> list[str]:
        """Those with a slot, the least recently used first."""
        return list(self._slot)

    def get(self, key: str) -> int:
        """The slot of an id, or -1. Does not count as use."""
        return self._slot.get(key, -1)

    def touch(self, key: str) -> bool:
        """Count a use; whether the id has a slot."""
        held = key in self._slot
        if held:
            self._slot.move_to_end(key)
        return held

    def take(self, key: str) -> int:
        """The slot of an id, a new one if it has none, and count the use. OverflowError if full."""
        slot = self._slot.get(key)
        if slot is not None:
            self._slot.move_to_end(key)
            return slot
        if self.full:
            raise OverflowError(f"all {self.limit} slots are taken: give one up first")
        if self._free:
            slot = self._free.pop()
            self.ids[slot] = key
        else:
            slot = len(self.ids)
            self.ids.append(key)
        self._slot[key] = slot
        return slot

    def state(self) -> State:
        """Everything, as plain values and arrays; `restore` takes it back."""
        return {
            "order": list(self._slot),  # least recently used first
            "slot": np.fromiter(self._slot.values(), np.int64, len(self._slot)),
            "rows": len(self.ids),
            "free": np.array(self._free, np.int64),
        }

    def restore(self, state: State) -> None:
        """Be as when `state` was taken, but for the limit, which may have changed."""
        self._slot = OrderedDict(zip(state["order"], state["slot"].tolist(), strict=True))
        self._free = state["free"].tolist()
        self.ids = [""] * state["rows"]
        for key, slot in self._slot.items():
            self.ids[slot] = key

    def oldest(self) -> str:
        """The id that was used longest ago."""
        return next(iter(self._slot))

    def give_up(self, key: str) -> int:
        """Free the id's slot; which it was."""
        slot = self._slot.pop(key)
        self.ids[slot] = ""
        self._free.append(slot)
        return slot


def hash64(text: str) -> int:
    """A stable 64-bit hash, never 0 (0 stands for "none")."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") or 1


def hashes(texts: Iterable[str]) -> np.ndarray:
    """The hashes of many: (N,) u8, 0 for an empty text."""
    return np.array([hash64(text) if text else 0 for text in texts], np.uint64)
