"""Learning from a historical log in epochs: a warm start, and the field's offline protocol."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from encoders.average import Average
from encoders.config import Shape, TrainingConfig
from encoders.devices import Device
from encoders.learner import Learner
from encoders.loss import logits
from encoders.replay import Windows, gap_buckets

EVALUATED_AT_ONCE = 512
SLOWEST = 0.05  # of the learning rate, in the last epoch


@dataclass(frozen=True)
class OfflineConfig:
    epochs: int = 60
    patience: int = 8  # evaluations without a better one, after which learning ends
    every: int = 2  # epochs between evaluations
    average: float = 0.998  # of the averaged weights, what is kept at each step
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            sequences=128,
            negatives=4_000,
            popular=0.0,
            dense=True,
            rate=1e-3,
            row_rate=1e-3,
            dropout=0.5,
        )
    )


class Log(NamedTuple):
    """Events (E,) of all users, one user after another, each user's in order."""

    start: np.ndarray  # (U + 1,) where each user's begin
    item: np.ndarray  # rows from 0, the most frequent item first
    kind: np.ndarray
    price: np.ndarray
    ts: np.ndarray  # epoch ms


class Score(NamedTuple):
    hr: float
    ndcg: float
    targets: int


class OfflineTraining:
    """Trains on all but each user's last `held` events; those are for validation and test."""

    def __init__(
        self, shape: Shape, config: OfflineConfig, device: Device, log: Log, held: int
    ) -> None:
        self.config, self.log, self.held = config, log, held
        training = config.training
        self.learner = Learner(shape, training, device)
        self._device = device
        self._rng = np.random.default_rng(training.seed)
        length = np.diff(log.start)
        items = int(log.item.max()) + 1
        kept = np.concatenate(
            [np.arange(a, b - held) for a, b in zip(log.start, log.start[1:], strict=False)]
        ).astype(np.int64)
        slots = np.arange(items)
        self.learner.table.admit(slots, slots, 0)
        self.learner.table.count[:items] = np.bincount(log.item[kept], minlength=items)
        gap = np.zeros(len(log.ts), np.int64)
        gap[1:] = gap_buckets(np.diff(log.ts))
        gap[log.start[:-1][length > 0]] = 0
        weights = [*self.learner.model.parameters(), self.learner.table.values]
        self._average = Average(weights, config.average)
        self._gap = gap
        self._ends = self._all_ends(length)
        self._best: tuple[Score, dict[str, np.ndarray]] | None = None

    @property
    def steps(self) -> int:
        """Mini-batches of an epoch."""
        return -(-len(self._ends) // self.config.training.sequences)

    def _all_ends(self, length: np.ndarray) -> np.ndarray:
        """(W, 2) user and last event of each training sequence: each event is learned once."""
        found = []
        for user, n in enumerate(length.tolist()):
            end = n - self.held
            while end >= 2:
                found.append((user, end))
                end -= self.config.training.length
        return np.array(found, np.int64).reshape(-1, 2)

    def windows(self, users: np.ndarray, ends: np.ndarray) -> tuple[Windows, np.ndarray]:
        """The sequences of users (B,) up to their first `ends` (B,) events; and their rows."""
        log, t = self.log, self.config.training.length + 1
        at = log.start[users][:, None] + ends[:, None] - np.arange(t, 0, -1)[None, :]
        valid = at >= log.start[users][:, None]
        there = np.where(valid, at, 0)
        rows = np.where(valid, log.item[there], -1)
        gap = np.where(valid, self._gap[there], 0)
        kind, price = np.where(valid, log.kind[there], 0), np.where(valid, log.price[there], 0)
        return Windows(rows, kind, price, gap, valid), rows

    def epoch(self, number: int) -> Iterator[float]:
        """Train on every sequence once, in random order; the loss of each step."""
        done = number / max(self.config.epochs, 1)
        self.learner.slowed = max(1.0 - done, SLOWEST)
        self.learner.model.train()
        order, size = self._rng.permutation(len(self._ends)), self.config.training.sequences
        for at in range(0, len(order), size):  # mini-batches of one length learned worse
            user, end = self._ends[order[at : at + size]].T
            loss = self.learner.step(*self.windows(user, end))
            self._average.update()
            yield loss

    def try_out(self, back: int) -> tuple[Score, bool]:
        """How the averaged weights score (see `evaluate`), and whether nothing did better so far.

        If so they are kept.
        """
        with self._average.in_place():
            score = self.evaluate(back)
            better = self._best is None or score.ndcg > self._best[0].ndcg
            if better:
                self._best = score, copy.deepcopy(self.learner.state())
        return score, better

    @torch.no_grad()
    def evaluate(self, back: int) -> Score:
        """Rank each user's event number `back` from the end (1: the last) among all items.

        Those that the user had before it are left out; full ranking, no sampled negatives.
        """
        self.learner.model.eval()
        length = np.diff(self.log.start)
        users = np.flatnonzero(length > back)
        ranks = [
            self._ranks(part, length[part] - back + 1)
            for part in np.array_split(users, max(-(-len(users) // EVALUATED_AT_ONCE), 1))
            if len(part)
        ]
        rank = np.concatenate(ranks) if ranks else np.zeros(0)
        gain = np.where(rank <= 10, 1.0 / np.log2(1.0 + rank), 0.0)
        n = max(len(rank), 1)
        return Score(float((rank <= 10).sum() / n), float(gain.sum() / n), len(rank))

    def _ranks(self, users: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Ranks (B,) of the newest of each user's first `ends` events; ties count half."""
        table, take = self.learner.table, self._device.take
        windows, rows = self.windows(users, ends)
        items = int(self.log.item.max()) + 1
        at = table.rows_of(np.arange(items), np.arange(items))
        values = table.values[take(at)]
        queries = self.learner.queries(windows, rows, values, np.arange(items))
        newest = take(np.cumsum(windows.valid[:, :-1].sum(1)) - 1)
        scores = logits(queries[newest], values).float()
        target = rows[:, -1]
        owner, had = self._before(users, ends)
        seen = had != target[owner]
        scores[take(owner[seen]), take(had[seen])] = -torch.inf
        own = scores.gather(1, take(target)[:, None])
        better, ties = (scores > own).sum(1), (scores == own).sum(1) - 1
        found: np.ndarray = (1.0 + better + 0.5 * ties).cpu().numpy()
        return found

    def _before(self, users: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place in the batch and item of each event before the target."""
        counts = ends - 1
        owner = np.repeat(np.arange(len(users)), counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        at = self.log.start[users][owner] + np.arange(len(owner)) - first
        return owner, self.log.item[at]

    def back_to_best(self) -> None:
        """The weights that scored best."""
        if self._best is not None:
            keys = np.arange(int(self.log.item.max()) + 1)
            self.learner.table.clear()
            self.learner.restore(self._best[1], keys, keys)
