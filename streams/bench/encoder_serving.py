"""One event more, a state made anew, and whether all forms of the encoder agree.

The compiled form is what the core runs (`online.sequence`); the other ones are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from encoders.devices import Device
from encoders.model import SequenceModel
from online.compiled import compiled
from online.features import Scratch, new_scratch
from online.sequence import (
    Dense,
    Sequences,
    follow,
    gap_bucket,
    head,
    new_sequences,
    publish,
    state_of,
)
from streams.bench.encoder_work import Events
from streams.bench.timing import Timing, timed

PAUSE_MS = 60_000  # between the events that are timed


@compiled
def advance(
    q: Sequences, user: np.ndarray, item: np.ndarray, kind: np.ndarray, price: np.ndarray,
    ts: np.ndarray, now: np.ndarray, length: int, query: np.ndarray,
) -> None:  # fmt: skip
    """One event for each user (B,) who had `length` before; their queries (B, D) after it.

    now: (B,) buckets of the gaps until the moments that the queries are for.
    """
    for e in range(len(user)):
        gap = 0 if length == 0 else gap_bucket(ts[e] - q.last[q.row[user[e]]])
        follow(q, user[e], item[e], kind[e], price[e], ts[e], length)
        state = q.state[q.row[user[e]]]
        head(q.dense, q.vector[item[e]], kind[e], gap, price[e], state, now[e], query[e])


@compiled
def rebuild(q: Sequences, s: Scratch, user: np.ndarray, length: int) -> None:
    """Make the states of users (B,) anew from the `length` events in `s`."""
    for one in user:
        if q.row[one] >= 0:
            q.made[q.row[one]] = -1
        state_of(q, s, one, length)


class Serving:
    """A cache of states with the model's weights, on the processor, for some users."""

    def __init__(self, model: SequenceModel, vectors: np.ndarray, users: int) -> None:
        shape, items = model.shape, len(vectors)
        self._items, self._width = items, shape.width
        self._q = new_sequences(
            shape.width, shape.channels, shape.hidden, items, users=users, rows=users
        )
        bias = np.zeros(items, np.float32)
        publish(self._q, 1, Dense(**model.dense()), np.arange(items), vectors, bias)
        self._user = np.arange(users)
        self._query = np.zeros((users, shape.width), np.float32)

    @property
    def state(self) -> np.ndarray:
        """(B, M), a copy."""
        return self._q.state[self._q.row[self._user]]

    def queries(self, events: Events) -> np.ndarray:
        """(B, T, D): after each event of users who had none before."""
        found = []
        for t in range(events.item.shape[1]):
            item, kind, price, ts, _, now = (column[:, t] for column in events)
            advance(self._q, self._user, item, kind, price, ts, now, t, self._query)
            found.append(self._query.copy())
        return np.stack(found, 1)

    def time_rebuild(self, events: Events, seconds: float) -> Timing:
        """All users' states are made anew from the first user's events."""
        length = events.item.shape[1]
        s = new_scratch(self._items, len(self._user), length, self._width)
        for held, column in zip((s.items, s.kinds, s.prices, s.ts), events, strict=False):
            held[:] = column[0, ::-1]  # newest first
        return timed(lambda: rebuild(self._q, s, self._user, length), seconds)

    def time_advance(self, event: Events, length: int, seconds: float) -> Timing:
        """One event (B, 1) more for every user of `time_rebuild`, again and again."""
        item, kind, price, _, _, now = (column[:, 0].copy() for column in event)
        ts = self._q.last[self._q.row[self._user]]

        def call() -> None:
            ts[:] += PAUSE_MS
            advance(self._q, self._user, item, kind, price, ts, now, length, self._query)

        return timed(call, seconds)


def torch_advance(
    model: SequenceModel, state: np.ndarray, event: Events, vectors: np.ndarray, device: Device
) -> Callable[[], Any]:
    """The same event (B, 1) as a call of PyTorch's step form, in float32; state: (B, M)."""
    x = event.torch_inputs(vectors, device)
    moved = [x[name][:, 0] for name in ("vectors", "kind", "gap", "price")]
    now = x["now"][:, 0]
    before = device.take(state)

    @torch.inference_mode()
    def call() -> torch.Tensor:
        after, of_event = model.step(before, *moved)
        return model.head(of_event, after, now)

    return call


@torch.inference_mode()
def differences(
    model: SequenceModel, events: Events, vectors: np.ndarray, device: Device
) -> dict[str, float]:
    """The largest differences between the forms' queries, all of them in float32.

    On CUDA also that of the whole-sequence form in bfloat16, which training uses there.
    """
    x = events.torch_inputs(vectors, device)
    found = {
        "compiled": Serving(model, vectors, len(events.item)).queries(events),
        "step": _stepwise(model, x).cpu().numpy(),
        "whole": model(**x).cpu().numpy(),
    }
    names = (("compiled", "step"), ("compiled", "whole"), ("step", "whole"))
    apart = {f"{a}/{b}": _largest(found[a], found[b]) for a, b in names}
    apart["largest"] = max(apart.values())
    if device.torch.type == "cuda":
        with device.autocast():
            apart["bfloat16/whole"] = _largest(model(**x).float().cpu().numpy(), found["whole"])
    return apart


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


def _stepwise(model: SequenceModel, x: dict[str, torch.Tensor]) -> torch.Tensor:
    users, length = x["kind"].shape
    state = x["vectors"].new_zeros(users, model.shape.channels)
    found = []
    for t in range(length):
        vectors, kind, gap, price = (x[name][:, t] for name in ("vectors", "kind", "gap", "price"))
        state, of_event = model.step(state, vectors, kind, gap, price)
        found.append(model.head(of_event, state, x["now"][:, t]))
    return torch.stack(found, 1)
