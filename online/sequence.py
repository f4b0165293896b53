"""The serving side of the sequence encoder: a user's state moves with every event.

The encoder is a linear recurrence (Orvieto et al. 2023, "Resurrecting recurrent neural networks for
long sequences"; Yue et al. 2024, LRURec) whose decay also depends on the time between events:

    state ← decay[gap] ⊙ state + x · drive            x = item + type + gap + price vectors
    query = head(x of the newest event, state, gap until now), of a learned length
    score of an item = query · its vector + its bias

So one more event costs the same after ten events and after a thousand. `encoders.model` is the same
in PyTorch; it learns, in a process of its own, and hands its weights over as plain arrays. States
live in a cache of bounded size, and one that older weights made is made anew from the history when
it is next needed: by the same additions in the same order, so both ways give the same bits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from online import tables
from online.compiled import brief, compiled
from online.events import EVENT_TYPES
from online.features import Scratch
from online.state import State

GAPS, KINDS, PRICES = 32, len(EVENT_TYPES), 16
SEARCH = EVENT_TYPES.index("search")
NEAR = 32  # nearest items kept of each user
NOWHERE = float(np.float32(-1e30))  # bias of an item that has no vector


class Dense(NamedTuple):
    """Weights that do not belong to an item. D width, M channels of the state, F hidden units."""

    decay: np.ndarray  # (GAPS, M) f4 in (0, 1)
    drive: np.ndarray  # (D, M)
    kind: np.ndarray  # (KINDS, D)
    gap: np.ndarray  # (GAPS, D)
    price: np.ndarray  # (PRICES, D)
    out: np.ndarray  # (M, D)
    out_bias: np.ndarray  # (D,)
    norm: np.ndarray  # (D,)
    up: np.ndarray  # (D, F)
    up_bias: np.ndarray  # (F,)
    down: np.ndarray  # (F, D)
    down_bias: np.ndarray  # (D,)
    last_norm: np.ndarray  # (D,)
    stretch: np.ndarray  # (GAPS, D) by the gap until now: query ∝ stretch ⊙ h + shift
    shift: np.ndarray  # (GAPS, D)
    sharpness: np.ndarray  # (1,) length of a query


class Sequences(NamedTuple):
    """The serving copy: weights, item vectors by slot (I), and a cache of user states (R)."""

    dense: Dense
    version: np.ndarray  # (1,) i8 of the weights; 0: none yet
    vector: np.ndarray  # (I, D) f4
    bias: np.ndarray  # (I,) f4, NOWHERE without a vector
    inverse: np.ndarray  # (I,) f4 1 / |vector|
    row: np.ndarray  # (U,) i4 row of the user's state, -1 none
    owner: np.ndarray  # (R,) i4 slot of the row's user, -1 free
    used: np.ndarray  # (R,) i1 lately
    made: np.ndarray  # (R,) i8 version that made the state, -1 not valid
    state: np.ndarray  # (R, M) f4
    last: np.ndarray  # (R,) i8 ts of the newest event in the state
    near: np.ndarray  # (R, NEAR) i4 keys of the nearest items, -1 none
    hand: np.ndarray  # (1,) i8 where the next row is looked for
    counts: np.ndarray  # (3,) i8 states that were advanced, rebuilt, and taken from another user


ADVANCED, REBUILT, EVICTED = range(3)
BYTES_OF_A_USER = 4 + 1 + 8 + 8 + 4 * NEAR  # besides the state itself


def new_dense(width: int, channels: int, hidden: int) -> Dense:
    d, m, f = width, channels, hidden
    shapes = ((GAPS, m), (d, m), (KINDS, d), (GAPS, d), (PRICES, d), (m, d), (d,), (d,), (d, f),
              (f,), (f, d), (d,), (d,), (GAPS, d), (GAPS, d), (1,))  # fmt: skip
    return Dense(*(np.zeros(shape, np.float32) for shape in shapes))


def new_sequences(
    width: int, channels: int, hidden: int, items: int, users: int, rows: int
) -> Sequences:
    """Nothing learned yet, with room for that many items, users, and states (`rows`)."""
    return Sequences(
        dense=new_dense(width, channels, hidden),
        version=np.zeros(1, np.int64),
        vector=np.zeros((items, width), np.float32),
        bias=np.full(items, NOWHERE, np.float32),
        inverse=np.zeros(items, np.float32),
        row=np.full(users, -1, np.int32),
        owner=np.full(rows, -1, np.int32),
        used=np.zeros(rows, np.int8),
        made=np.full(rows, -1, np.int64),
        state=np.zeros((rows, channels), np.float32),
        last=np.zeros(rows, np.int64),
        near=np.full((rows, NEAR), -1, np.int32),
        hand=np.zeros(1, np.int64),
        counts=np.zeros(3, np.int64),
    )


def resized(q: Sequences, items: int, users: int, rows: int, pause: tables.Pause) -> Sequences:
    """The same with room for more; what is there keeps its place. pause: as in `tables.longer`."""

    def longer(array: np.ndarray, n: int, empty: float) -> np.ndarray:
        return tables.longer(array, n, empty, pause)

    return q._replace(
        vector=longer(q.vector, items, 0),
        bias=longer(q.bias, items, NOWHERE),
        inverse=longer(q.inverse, items, 0),
        row=longer(q.row, users, -1),
        owner=longer(q.owner, rows, -1),
        used=longer(q.used, rows, 0),
        made=longer(q.made, rows, -1),
        state=longer(q.state, rows, 0),
        last=longer(q.last, rows, 0),
        near=longer(q.near, rows, -1),
    )


_ITEMS = ("vector", "bias", "inverse")
_ROWS = ("row", "owner", "used", "made", "state", "last", "near", "hand")


def sequences_state(q: Sequences, items: int, users: int) -> State:
    """Everything of so many items and users: `sequences_restored` takes it back."""
    return {
        "dense": q.dense._asdict(),
        "room": [len(q.bias), len(q.row), len(q.owner)],
        **{name: getattr(q, name)[:items] for name in _ITEMS},
        **{name: getattr(q, name) for name in (*_ROWS, "version", "counts")},
    } | {"row": q.row[:users]}


def sequences_restored(q: Sequences, state: State, rows: int) -> Sequences | None:
    """Sequences as they were when `state` was taken; None when they were of another shape.

    rows: users' states that there is room for now. If it was another number, all are made anew
    when they are next needed.
    """
    dense = state["dense"]
    if any(ours.shape != dense[name].shape for name, ours in q.dense._asdict().items()):
        return None
    shape = q.vector.shape[1], q.state.shape[1], q.dense.up.shape[1]
    items, users, had = state["room"]
    found = new_sequences(*shape, items, users, rows)
    for name, ours in found.dense._asdict().items():
        ours[:] = dense[name]
    for name in (*_ITEMS, *(_ROWS if rows == had else ()), "version", "counts"):
        getattr(found, name)[: len(state[name])] = state[name]
    return found


def rows_within(megabytes: float, channels: int) -> int:
    """How many users' states fit into that many MB (2^20).

    >>> rows_within(1, 96)
    1967
    """
    return max(int(megabytes * 2**20 / (4 * channels + BYTES_OF_A_USER)), 1)


@brief
def gap_bucket(ms: int) -> int:
    """Which of the GAPS a pause falls into: 1 for under a second, one more for each doubling; 0 is
    for an event that none came before.

    >>> gap_bucket(0), gap_bucket(1_000), gap_bucket(86_400_000)
    (1, 2, 17)
    """
    return min(int(math.log2(max(ms, 0) / 1000.0 + 1.0)) + 1, GAPS - 1)


def price_bucket(price: float | None) -> int:
    """One bucket for each doubling, 0 for no price.

    >>> price_bucket(None), price_bucket(0.5), price_bucket(20.0)
    (0, 4, 9)
    """
    if price is None or not price > 0.0:
        return 0
    return min(max(math.floor(math.log2(price)) + 5, 1), PRICES - 1)


@brief
def _add_product(x: np.ndarray, w: np.ndarray, out: np.ndarray) -> None:
    """out += x · w. Shapes: x (A,), w (A, B), out (B,). Always added in the same order."""
    for a in range(len(x)):
        for b in range(len(out)):
            out[b] += x[a] * w[a, b]


@brief
def move(d: Dense, vector: np.ndarray, kind: int, gap: int, price: int, state: np.ndarray) -> None:
    """Advance one state (M,) by one event of the item with this vector (D,)."""
    x = np.empty(len(vector), np.float32)
    for k in range(len(x)):
        x[k] = vector[k] + d.kind[kind, k] + d.gap[gap, k] + d.price[price, k]
    decay = d.decay[gap]
    for k in range(len(state)):
        state[k] *= decay[k]
    _add_product(x, d.drive, state)


@brief
def _normalise(y: np.ndarray, weight: np.ndarray, out: np.ndarray) -> None:
    total = np.float32(0.0)
    for k in range(len(y)):
        total += y[k] * y[k]
    scale = np.float32(1.0) / np.sqrt(total / np.float32(len(y)) + np.float32(1e-6))
    for k in range(len(y)):
        out[k] = y[k] * scale * weight[k]


@brief
def _gelu(x: np.ndarray) -> None:
    c = np.float32(0.7978845608)  # sqrt(2 / pi)
    for k in range(len(x)):
        v = x[k]
        x[k] = (
            np.float32(0.5)
            * v
            * (np.float32(1.0) + np.tanh(c * (v + np.float32(0.044715) * v * v * v)))
        )


@brief
def head(
    d: Dense, vector: np.ndarray, kind: int, gap: int, price: int, state: np.ndarray, now: int,
    out: np.ndarray,
) -> None:  # fmt: skip
    """The query (D,) of a state whose newest event had this vector, type, gap and price.

    now: the bucket of the gap between that event and the moment that is asked about.
    """
    y = np.empty(len(vector), np.float32)
    for k in range(len(y)):
        y[k] = vector[k] + d.kind[kind, k] + d.gap[gap, k] + d.price[price, k] + d.out_bias[k]
    _add_product(state, d.out, y)
    h, hidden = np.empty(len(y), np.float32), d.up_bias.copy()
    _normalise(y, d.norm, h)
    _add_product(h, d.up, hidden)
    _gelu(hidden)
    for k in range(len(y)):
        y[k] += d.down_bias[k]
    _add_product(hidden, d.down, y)
    _normalise(y, d.last_norm, h)
    total = np.float32(1e-12)
    for k in range(len(y)):
        out[k] = h[k] * d.stretch[now, k] + d.shift[now, k]
        total += out[k] * out[k]
    length = d.sharpness[0] / np.sqrt(total)
    for k in range(len(y)):
        out[k] *= length


# -- states --------------------------------------------------------------------------------------


@brief
def release(q: Sequences, user: int) -> None:
    """The user's row is free for another one."""
    row = q.row[user]
    if row >= 0:
        q.owner[row], q.used[row], q.made[row] = -1, 0, -1
        q.row[user] = -1


@brief
def _row_of(q: Sequences, user: int) -> int:
    """The row of the user's state; that of one who was not there lately, if there is none yet.

    "Second chance" (Corbató 1969): what is used gets a mark, and the hand that looks for a row
    takes the first one without.
    """
    row = q.row[user]
    if row < 0:
        while q.used[q.hand[0]]:
            q.used[q.hand[0]] = 0
            q.hand[0] = (q.hand[0] + 1) % len(q.used)
        row = q.hand[0]
        q.hand[0] = (row + 1) % len(q.used)
        if q.owner[row] >= 0:
            q.row[q.owner[row]] = -1
            q.counts[EVICTED] += 1
        q.owner[row], q.row[user] = user, row
        q.made[row] = -1
        q.near[row] = -1
    q.used[row] = 1
    return row


@compiled
def known(q: Sequences) -> bool:
    """Is there an encoder, and has it learned anything?"""
    return len(q.state) > 0 and q.version[0] > 0


@compiled
def state_of(q: Sequences, s: Scratch, user: int, length: int) -> int:
    """The row of the user's state after the `length` events in `s`, newest first."""
    row = _row_of(q, user)
    if q.made[row] != q.version[0]:
        state, d, before, first = q.state[row], q.dense, s.ts[max(length - 1, 0)], True
        state[:] = 0.0
        for p in range(length - 1, -1, -1):
            if s.kinds[p] == SEARCH:  # it never learned from queries
                continue
            gap = 0 if first else gap_bucket(s.ts[p] - before)
            first = False
            move(d, q.vector[s.items[p]], s.kinds[p], gap, s.prices[p], state)
            before = s.ts[p]
        q.made[row], q.last[row] = q.version[0], before
        q.counts[REBUILT] += 1
    return row


@compiled
def follow(q: Sequences, user: int, item: int, kind: int, price: int, ts: int, length: int) -> None:
    """Move the user's state by an event that was just added; they had `length` before."""
    row = _row_of(q, user) if length == 0 else q.row[user]
    if row < 0:
        return
    if length == 0:
        q.state[row] = 0.0
    elif q.made[row] != q.version[0]:
        return
    elif ts < q.last[row]:
        q.made[row] = -1
        return
    gap = 0 if length == 0 else gap_bucket(ts - q.last[row])
    move(q.dense, q.vector[item], kind, gap, price, q.state[row])
    q.made[row], q.last[row], q.used[row] = q.version[0], ts, 1
    q.counts[ADVANCED] += 1


@compiled
def ask(q: Sequences, s: Scratch, user: int, length: int, ts: int, out: np.ndarray) -> int:
    """Fill out (D,) with the user's query at the time ts; the row of the state, -1 for no events.

    `s` holds the user's `length` newest events.
    """
    if user < 0 or not known(q) or newest_item(s, 0, length) == length:
        return -1
    row = state_of(q, s, user, length)
    _query(q, s, row, length, ts, out)
    return row


@compiled
def look(q: Sequences, s: Scratch, user: int, length: int, ts: int, out: np.ndarray) -> int:
    """The same without changing anything: -1, too, when the state would have to be made."""
    if user < 0 or not known(q) or newest_item(s, 0, length) == length:
        return -1
    row = q.row[user]
    if row < 0 or q.made[row] != q.version[0]:
        return -1
    _query(q, s, row, length, ts, out)
    return row


@compiled
def newest_item(s: Scratch, first: int, length: int) -> int:
    """Which of the user's events from `first` on, newest first, is not a search; `length`: none."""
    p = first
    while p < length and s.kinds[p] == SEARCH:
        p += 1
    return p


@compiled
def _query(q: Sequences, s: Scratch, row: int, length: int, ts: int, out: np.ndarray) -> None:
    p = newest_item(s, 0, length)
    before = newest_item(s, p + 1, length)
    gap = 0 if before == length else gap_bucket(s.ts[p] - s.ts[before])
    head(
        q.dense, q.vector[s.items[p]], s.kinds[p], gap, s.prices[p], q.state[row],
        gap_bucket(ts - s.ts[p]), out,
    )  # fmt: skip


def item_vectors(q: Sequences, slots: np.ndarray) -> list[bytes]:
    """Vector and bias of each item (N,), D + 1 numbers; b"" for one without a vector."""
    there = (slots >= 0) & (q.bias[slots] != NOWHERE)
    both = np.concatenate([q.vector[slots], q.bias[slots, None]], axis=1)
    return [row.tobytes() if have else b"" for row, have in zip(both, there, strict=True)]


def publish(
    q: Sequences, version: int, dense: Dense, slots: np.ndarray, vectors: np.ndarray,
    bias: np.ndarray,
) -> None:  # fmt: skip
    """New weights, and new vectors (N, D) and biases (N,) of some items; all states are stale now.

    An item whose bias is NOWHERE has lost its vector.
    """
    for ours, theirs in zip(q.dense, dense, strict=True):
        ours[:] = theirs
    q.vector[slots], q.bias[slots] = vectors, bias
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors)) + np.float32(1e-6)
    q.inverse[slots] = np.float32(1.0) / length
    q.version[0] = version
