"""Item vectors: a table of fixed capacity with an optimiser that only touches the rows in use.

Rows are given to items when they are first seen, never shared (no hashing, no collisions), and
taken back by last use and frequency (Liu et al. 2022, "Monolith"). An item that comes back starts
anew. Adam's moments lie beside the vectors and move with the rows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from encoders.loss import vectors_of

BETAS = 0.9, 0.98
FREED_AT_ONCE = 64  # a 64th of the rows, when the table is full


class Table:
    """Vectors and biases of items, rows of `values` (R, D + 1): the last column is the bias."""

    def __init__(self, rows: int, width: int, device: torch.device, seed: int) -> None:
        self.width, self.rows = width, rows
        self.device = device
        self._random = torch.Generator().manual_seed(seed)
        start = min(rows, 1024)
        self.values = torch.zeros(start, width + 1, device=device)
        self.mean = torch.zeros_like(self.values)
        self.square = torch.zeros_like(self.values)
        self.steps = torch.zeros(start, device=device)  # in which the row took part
        self.key = np.full(start, -1, np.int64)  # of the row's item, -1 free
        self.count = np.zeros(start)  # events
        self.last = np.zeros(start, np.int64)  # event that used it last
        self._row_of_slot = np.full(1024, -1, np.int64)
        self._free = list(range(start - 1, -1, -1))

    def __len__(self) -> int:
        return len(self.key) - len(self._free)

    def rows_of(self, keys: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """Rows of items, -1 for none. keys, slots: any shape; keys below 0 are no item."""
        inside = (keys >= 0) & (slots < len(self._row_of_slot))
        rows = np.where(inside, self._row_of_slot[np.where(inside, slots, 0)], -1)
        return np.where((rows >= 0) & (self.key[rows] == keys), rows, -1)

    def admit(self, keys: np.ndarray, slots: np.ndarray, first: int) -> np.ndarray:
        """Count events of items; those without a row get one. Returns keys that lost theirs.

        keys, slots: (E,); first: number of the first of these events.
        """
        self._reach(int(slots.max()) + 1)
        lost: list[int] = []
        rows = self.rows_of(keys, slots)
        for n in np.flatnonzero(rows < 0).tolist():
            key, slot = int(keys[n]), int(slots[n])
            row = self._row_of_slot[slot]
            if row >= 0 and self.key[row] == key:
                continue  # an earlier event of these admitted it
            if row >= 0:  # the slot is another item's now
                self._take_back(int(row), slot)
            if not self._free:
                lost += self._make_room(first)
            self._give(self._free.pop(), key, slot, first)
        rows = self.rows_of(keys, slots)
        there = rows >= 0
        np.add.at(self.count, rows[there], 1.0)
        np.maximum.at(self.last, rows[there], first + np.flatnonzero(there))
        return np.array(lost, np.int64)

    def _reach(self, slots: int) -> None:
        if slots > len(self._row_of_slot):
            grown = np.full(max(slots, 2 * len(self._row_of_slot)), -1, np.int64)
            grown[: len(self._row_of_slot)] = self._row_of_slot
            self._row_of_slot = grown

    def _give(self, row: int, key: int, slot: int, now: int) -> None:
        self.key[row], self.count[row], self.last[row] = key, 0.0, now
        self._row_of_slot[slot] = row
        first = torch.randn(self.width, generator=self._random) * 0.02
        self.values[row, :-1] = first.to(self.device)

    def _take_back(self, row: int, slot: int) -> None:
        self.key[row] = -1
        self._row_of_slot[slot] = -1
        for state in (self.values, self.mean, self.square, self.steps):
            state[row] = 0.0
        self._free.append(row)

    def _make_room(self, now: int) -> list[int]:
        """Double, or take rows back from the items that were used longest ago and least often."""
        old = len(self.key)
        if old < self.rows:
            self._grow(min(2 * old, self.rows))
            return []
        # each doubling of an item's events makes up for half a table's worth of events without it
        worth = self.last + 0.5 * self.rows * np.log2(1.0 + self.count)
        worst = np.argpartition(worth, max(old // FREED_AT_ONCE, 1) - 1)
        slot_of = {int(row): slot for slot, row in enumerate(self._row_of_slot) if row >= 0}
        lost = []
        for row in worst[: max(old // FREED_AT_ONCE, 1)].tolist():
            lost.append(int(self.key[row]))
            self._take_back(row, slot_of[row])
        return lost

    def _grow(self, rows: int) -> None:
        old = len(self.key)

        def longer(state: Tensor) -> Tensor:
            return torch.cat([state, state.new_zeros(rows - old, *state.shape[1:])])

        self.values, self.mean = longer(self.values), longer(self.mean)
        self.square, self.steps = longer(self.square), longer(self.steps)
        self.key = np.concatenate([self.key, np.full(rows - old, -1, np.int64)])
        self.count = np.concatenate([self.count, np.zeros(rows - old)])
        self.last = np.concatenate([self.last, np.zeros(rows - old, np.int64)])
        self._free += range(rows - 1, old - 1, -1)

    def restore(self, state: dict[str, np.ndarray], keys: np.ndarray, slots: np.ndarray) -> None:
        """Take over the rows of a checkpoint, empty before; see `Learner.restore`."""
        wanted = np.flatnonzero(keys >= 0)[: self.rows]
        while len(self.key) < len(wanted):
            self._grow(min(2 * len(self.key), self.rows))
        self._reach(int(slots[wanted].max(initial=0)) + 1)
        for n in wanted.tolist():
            self._give(self._free.pop(), int(keys[n]), int(slots[n]), 0)
        rows = self.rows_of(keys[wanted], slots[wanted])
        at = torch.from_numpy(rows).to(self.device)
        for name in ("values", "mean", "square", "steps"):
            theirs = torch.from_numpy(state[f"table.{name}"][wanted]).to(self.device)
            getattr(self, name)[at] = theirs
        self.count[rows] = state["table.count"][wanted]

    def clear(self) -> None:
        """Take all rows back."""
        for slot, row in enumerate(self._row_of_slot.tolist()):
            if row >= 0:
                self._take_back(row, slot)

    def learn(self, rows: Tensor, slope: Tensor, rate: float) -> None:
        """One step of Adam (Kingma and Ba 2015) for these rows (N,) alone; slope: (N, D + 1)."""
        slow, fast = BETAS
        steps = self.steps[rows] + 1.0
        mean = self.mean[rows] * slow + slope * (1 - slow)
        square = self.square[rows] * fast + slope * slope * (1 - fast)
        self.steps[rows], self.mean[rows], self.square[rows] = steps, mean, square
        size = (square / (1 - fast**steps)[:, None]).sqrt() + 1e-8
        self.values[rows] -= rate * mean / (1 - slow**steps)[:, None] / size

    def vectors(self, rows: Tensor) -> Tensor:
        """(N, D): the items' vectors as the model takes them."""
        return vectors_of(self.values[rows])
