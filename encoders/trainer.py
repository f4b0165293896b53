"""Learning the encoder from the stream: lesson by lesson, on a copy that nobody serves from."""

from __future__ import annotations

import collections
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from encoders.config import NOWHERE, Shape, TrainingConfig
from encoders.devices import Device
from encoders.kept import (
    chance,
    plain,
    replay_state,
    restore_replay,
    restore_table,
    set_chance,
    table_state,
    tensors,
)
from encoders.learner import Learner
from encoders.replay import Replay

KEPT_LESSONS = 8  # that can be undone


class Learned(NamedTuple):
    """What came of a lesson, as plain arrays: copies, nothing of it moves later."""

    dense: dict[str, np.ndarray]  # see SequenceModel.dense
    item: np.ndarray  # (N,) keys of items whose vectors are new
    vector: np.ndarray  # (N, D)
    bias: np.ndarray  # (N,), NOWHERE for one that lost its row
    loss: float  # mean of the steps; nan without any
    skipped: int  # steps left out because loss or gradient was not finite


class _Before(NamedTuple):
    """What a lesson changed, as it was."""

    number: int
    previous: int  # the lesson that it went on from
    model: dict[str, Tensor]
    optimizer: Any
    kept: set[int]  # rows that lie in `rows`
    rows: list[tuple[np.ndarray, np.ndarray, tuple[Tensor, ...]]]  # rows, keys, states


class Trainer:
    """A learner and its replay; one caller at a time.

    slot_mask: what of an item's key is its slot, which is given to another item once it is free.
    """

    def __init__(
        self, shape: Shape, config: TrainingConfig, device: Device, slot_mask: int = (1 << 24) - 1
    ) -> None:
        self.config, self.device = config, device
        self.learner = Learner(shape, config, device)
        self.model, self.table = self.learner.model, self.learner.table
        self.optimizer = self.learner.optimizer
        self.replay = Replay(config.replay, config.reservoir, config.length + 1, config.seed)
        self._mask = slot_mask
        self._at = 0  # number of the last lesson
        self._touched: list[np.ndarray] = []
        self._undo: collections.deque[_Before] = collections.deque(maxlen=KEPT_LESSONS)

    def learn(
        self, number: int, steps: int, user: np.ndarray, item: np.ndarray, kind: np.ndarray,
        price: np.ndarray, ts: np.ndarray,
    ) -> Learned:  # fmt: skip
        """Take in events (E,) and train for some steps."""
        keys, config = item.astype(np.int64), self.config
        first = self.replay.events
        self.replay.append(user, keys, kind, price, ts)
        lost = self.table.admit(keys, keys & self._mask, first)
        self._touched = [np.unique(self.table.rows_of(keys, keys & self._mask))]
        self._remember(number)
        self._at = number
        losses, skipped = [], 0
        self.model.train()
        for _ in range(steps):
            windows = self.replay.draw(config.sequences, config.recent, config.recency)
            rows = self.table.rows_of(windows.item, windows.item & self._mask)
            loss = self.learner.step(windows, rows, self._keep)
            if math.isfinite(loss):
                losses.append(loss)
            else:
                skipped += 1
        return self._learned(lost, losses, skipped)

    # -- lessons -----------------------------------------------------------------------------

    def restore(self, state: dict[str, np.ndarray], keys: np.ndarray) -> Learned:
        """Start from a checkpoint, whose items, in order, have these keys here (below 0: none).

        Raises ValueError when it is of another shape.
        """
        keys = keys.astype(np.int64)
        self.learner.restore(state, keys, np.where(keys >= 0, keys & self._mask, -1))
        self._touched = [np.flatnonzero(self.table.key >= 0)]
        self._at = 1
        return self._learned(np.zeros(0, np.int64), [], 0)

    def state(self) -> dict[str, Any]:
        """Everything that learning goes on from, as plain values and arrays, some of them ours."""
        learner = self.learner
        undo = [
            {
                "number": before.number,
                "previous": before.previous,
                "model": plain(before.model),
                "optimizer": plain(before.optimizer["state"]),
                "kept": sorted(before.kept),
                "rows": plain(before.rows),
            }
            for before in self._undo
        ]
        return {
            "at": self._at,
            "model": plain(self.model.state_dict()),
            "optimizer": plain(self.optimizer.state_dict()["state"]),
            "slowed": learner.slowed,
            "chance": chance(learner._rng),
            "random": torch.get_rng_state().numpy(),
            "table": table_state(self.table),
            "replay": replay_state(self.replay),
            "undo": undo,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Be as when `state` was taken. Raises ValueError when it is of another shape."""
        learner, device = self.learner, self.device.torch
        try:
            self.model.load_state_dict(tensors(state["model"], device))
        except RuntimeError as fault:  # torch's word for other shapes
            raise ValueError(f"the state kept is of another encoder: {fault}") from None
        self.optimizer.load_state_dict(self._optimizer_with(state["optimizer"]))
        self._at, learner.slowed = state["at"], state["slowed"]
        set_chance(learner._rng, state["chance"])
        torch.set_rng_state(torch.from_numpy(state["random"]))
        restore_table(self.table, state["table"])
        restore_replay(self.replay, state["replay"])
        self._undo.clear()
        for kept in state["undo"]:
            rows = [(row, key, tuple(tensors(s, device))) for row, key, s in kept["rows"]]
            optimizer = self._optimizer_with(kept["optimizer"])
            model = tensors(kept["model"], device)
            before = _Before(kept["number"], kept["previous"], model, optimizer,
                             set(kept["kept"]), rows)  # fmt: skip
            self._undo.append(before)

    def _optimizer_with(self, state: dict[int, Any]) -> dict[str, Any]:
        moments = {int(n): tensors(each, self.device.torch) for n, each in state.items()}
        return {**self.optimizer.state_dict(), "state": moments}

    def _learned(self, lost: np.ndarray, losses: list[float], skipped: int) -> Learned:
        rows = np.unique(np.concatenate(self._touched))
        rows = rows[(rows >= 0) & (self.table.key[rows] >= 0)]
        at = self.device.take(rows)
        vectors = self.table.vectors(at).float().cpu().numpy()
        bias = self.table.values[at, -1].float().cpu().numpy()
        gone = np.full(len(lost), NOWHERE, np.float32)
        return Learned(
            self.model.dense(),
            np.concatenate([lost, self.table.key[rows]]).astype(np.int32),
            np.concatenate([np.zeros((len(lost), self.table.width), np.float32), vectors]),
            np.concatenate([gone, bias]),
            float(np.mean(losses)) if losses else math.nan,
            skipped,
        )

    def _remember(self, number: int) -> None:
        """Note how the model is now; `_keep` adds the rows as they are touched."""
        model = {name: value.clone() for name, value in self.model.state_dict().items()}
        optimizer = _cloned(self.optimizer.state_dict())
        self._undo.append(_Before(number, self._at, model, optimizer, set(), []))

    def _keep(self, used: np.ndarray) -> None:
        """Keep those of these rows that the lesson has not changed yet, as they are."""
        self._touched.append(used)
        before, table = self._undo[-1], self.table
        new = np.array([row for row in used.tolist() if row not in before.kept], np.int64)
        if len(new):
            before.kept.update(new.tolist())
            at = self.device.take(new)
            states = tuple(s[at] for s in (table.values, table.mean, table.square, table.steps))
            before.rows.append((new, table.key[new], states))

    def roll_back(self, number: int) -> None:
        """Be again as after lesson `number`; the events since stay in the replay.

        Raises ValueError when that lies more than KEPT_LESSONS lessons back.
        """
        if number == self._at:
            return
        later = [before for before in self._undo if before.number > number]
        if not later or later[0].previous != number:
            held = [before.previous for before in self._undo]
            raise ValueError(f"lesson {number} cannot be returned to: only {held} can")
        self.model.load_state_dict(later[0].model)
        self.optimizer.load_state_dict(later[0].optimizer)
        for undone in reversed(later):
            for rows, key, states in undone.rows:
                self._put_back(rows, key, states)
        self._undo = collections.deque(
            (kept for kept in self._undo if kept.number <= number), KEPT_LESSONS
        )
        self._at = number

    def _put_back(self, rows: np.ndarray, key: np.ndarray, states: tuple[Tensor, ...]) -> None:
        table = self.table
        same = table.key[rows] == key  # the others are other items' by now
        at, kept = self.device.take(rows[same]), self.device.take(np.flatnonzero(same))
        now = (table.values, table.mean, table.square, table.steps)
        for state, old in zip(now, states, strict=True):
            state[at] = old[kept]


def _cloned(state: Any) -> Any:
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {name: _cloned(value) for name, value in state.items()}
    if isinstance(state, list):
        return [_cloned(value) for value in state]
    return state
