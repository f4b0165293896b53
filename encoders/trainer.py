"""Learning the encoder from the stream: lesson by lesson, on a copy that nobody serves from."""

from __future__ import annotations

import collections
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from encoders.config import Shape, TrainingConfig
from encoders.devices import Device
from encoders.loss import sampled_softmax_loss, softmax_loss
from encoders.model import SequenceModel
from encoders.replay import Replay, Windows
from encoders.table import BETAS, Table

KEPT_LESSONS = 5  # that can be undone
NOWHERE = -1e30  # bias of an item that lost its vector


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
    """Model, item table, optimiser and replay; one caller at a time.

    slot_mask: what of an item's key is its slot, which is given to another item once it is free.
    """

    def __init__(
        self, shape: Shape, config: TrainingConfig, device: Device, slot_mask: int = (1 << 24) - 1
    ) -> None:
        torch.manual_seed(config.seed)
        self.shape, self.config, self.device = shape, config, device
        self._mask = slot_mask
        self.model = SequenceModel(shape, config.dropout, config.sharpness).to(device.torch)
        self._forward = device.compiled(self.model) if config.compiled else self.model
        self.optimizer = torch.optim.Adam(self.model.parameters(), config.rate, betas=BETAS)
        self.table = Table(config.rows, shape.width, device.torch, config.seed)
        self.replay = Replay(config.replay, config.reservoir, config.length + 1, config.seed)
        self._rng = np.random.default_rng(config.seed + 1)
        self._at = 0  # number of the last lesson
        self._touched: list[np.ndarray] = []
        self._undo: collections.deque[_Before] = collections.deque(maxlen=KEPT_LESSONS)

    def learn(
        self, number: int, steps: int, user: np.ndarray, item: np.ndarray, kind: np.ndarray,
        price: np.ndarray, ts: np.ndarray,
    ) -> Learned:  # fmt: skip
        """Take in events (E,) and train for some steps."""
        keys = item.astype(np.int64)
        first = self.replay.events
        self.replay.append(user, keys, kind, price, ts)
        lost = self.table.admit(keys, keys & self._mask, first)
        self._touched = [np.unique(self.table.rows_of(keys, keys & self._mask))]
        self._remember(number)
        self._at = number
        losses, skipped = [], 0
        self.model.train()
        for _ in range(steps):
            loss = self._step()
            if math.isfinite(loss):
                losses.append(loss)
            else:
                skipped += 1
        return self._learned(lost, losses, skipped)

    # -- one step ----------------------------------------------------------------------------

    def _step(self) -> float:
        """Train on one mini-batch; the loss, nan when nothing could be learned from it."""
        config = self.config
        windows = self.replay.draw(config.sequences, config.recent, config.recency)
        rows = self.table.rows_of(windows.item, windows.item & self._mask)
        wanted = windows.valid[:, 1:] & (rows[:, 1:] >= 0) & windows.valid[:, :-1]
        if not wanted.any():
            return math.nan
        used, negative, log_chance = self._choose(rows, rows[:, 1:][wanted])
        values = self.table.values[self.device.take(used)].requires_grad_()
        loss = self._loss(windows, rows, wanted, used, values, negative, log_chance)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        slope = values.grad
        assert slope is not None
        if not (torch.isfinite(loss) and torch.isfinite(norm) and slope.isfinite().all()):
            return math.nan
        self._keep(used)
        self.optimizer.step()
        self.table.learn(self.device.take(used), slope, config.rate)
        self._touched.append(used)
        return float(loss)

    def _choose(
        self, rows: np.ndarray, targets: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Rows that the step uses; the negatives among them, and the log of their chances.

        All rows when there are few items (no chances then); else half of the negatives are items
        of the mini-batch, which come as often as they are taken, and half any items.
        """
        table, n = self.table, self.config.negatives
        given = np.flatnonzero(table.key >= 0)
        if len(given) <= 2 * n:
            return given, given, None
        picked = targets[self._rng.integers(0, len(targets), n // 2)]
        uniform = given[self._rng.integers(0, len(given), n // 2)]
        negative = np.unique(np.concatenate([picked, uniform]))
        used = np.unique(np.concatenate([negative, rows[rows >= 0]]))
        share = table.count[negative] / table.count[given].sum()
        chance = n / 2 * (share + 1.0 / len(given))
        return used, negative, np.log(np.minimum(chance, 1.0)).astype(np.float32)

    def _loss(
        self, windows: Windows, rows: np.ndarray, wanted: np.ndarray, used: np.ndarray,
        values: Tensor, negative: np.ndarray, log_chance: np.ndarray | None,
    ) -> Tensor:  # fmt: skip
        take, place = self.device.take, np.zeros(len(self.table.key), np.int64)
        place[used] = np.arange(len(used))
        there = rows[:, :-1] >= 0
        items = take(place[np.where(there, rows[:, :-1], used[0])])
        vectors = values[:, :-1] * math.sqrt(self.shape.width)
        known = take(there)
        with self.device.autocast():
            queries = self._forward(
                vectors[items] * known[..., None],
                take(windows.kind[:, :-1].astype(np.int64)),
                take(windows.gap[:, :-1].astype(np.int64)),
                take(windows.price[:, :-1].astype(np.int64)),
                take(windows.gap[:, 1:].astype(np.int64)),
                take(windows.valid[:, :-1]),
            )[take(wanted)]
            target = take(place[rows[:, 1:][wanted]])
            if log_chance is None:
                return softmax_loss(queries, values, target)
            others, chance = take(place[negative]), take(log_chance)
            return sampled_softmax_loss(queries, values, target, others, chance)

    # -- lessons -----------------------------------------------------------------------------

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
            np.concatenate([np.zeros((len(lost), self.shape.width), np.float32), vectors]),
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
        """Keep those of these rows that the lesson has not changed yet."""
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
