"""The same encoder three times: over whole sequences, step by step in torch, and as it serves."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
import torch

from encoders.config import GAPS, KINDS, PRICES, Shape
from encoders.model import SequenceModel, scan
from encoders.replay import gap_buckets
from online.features import new_scratch
from online.sequence import (
    BYTES_OF_A_USER,
    Dense,
    ask,
    follow,
    gap_bucket,
    head,
    move,
    new_sequences,
    publish,
    release,
    rows_within,
)
from tests.encoders.streams import SHAPE

CLOSE = 1e-4


def model_with_random_weights(shape: Shape, seed: int) -> SequenceModel:
    torch.manual_seed(seed)
    model = SequenceModel(shape, dropout=0.0)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model.eval()


def sequences(shape: Shape, users: int, length: int, seed: int) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(seed)

    def integers(n: int) -> torch.Tensor:
        return torch.randint(0, n, (users, length), generator=draw)

    first = torch.zeros(users, length, dtype=torch.bool)
    first[:, 0] = True
    return {
        "vectors": torch.randn(users, length, shape.width, generator=draw),
        "kind": integers(KINDS), "gap": integers(GAPS), "price": integers(PRICES),
        "now": integers(GAPS), "first": first, "longest": length,
    }  # fmt: skip


def changed(s: dict[str, Any], change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
    """The sequences with something done to each column."""
    return {k: change(v) if isinstance(v, torch.Tensor) else v for k, v in s.items()}


def served(model: SequenceModel, s: dict[str, Any]) -> np.ndarray:
    """Queries (B, T, D) by the compiled serving form, one event at a time."""
    dense = Dense(**model.dense())
    users, length, width = s["vectors"].shape
    out = np.zeros((users, length, width), np.float32)
    a = changed(s, torch.Tensor.numpy)
    for u in range(users):
        state = np.zeros(model.shape.channels, np.float32)
        for t in range(length):
            event = a["vectors"][u, t], a["kind"][u, t], a["gap"][u, t], a["price"][u, t]
            move(dense, *event, state)
            head(dense, *event, state, a["now"][u, t], out[u, t])
    return out


@pytest.mark.parametrize("shape", [SHAPE, Shape()])
@pytest.mark.parametrize("length", [1, 7, 50])
def test_step_by_step_equals_the_whole_sequence(shape: Shape, length: int) -> None:
    model, s = model_with_random_weights(shape, seed=1), sequences(shape, 5, length, seed=2)
    with torch.no_grad():
        whole = model(**s)
        state = torch.zeros(5, shape.channels)
        for t in range(length):
            state, x = model.step(
                state, s["vectors"][:, t], s["kind"][:, t], s["gap"][:, t], s["price"][:, t]
            )
            torch.testing.assert_close(
                model.head(x, state, s["now"][:, t]), whole[:, t], atol=CLOSE, rtol=CLOSE
            )
    np.testing.assert_allclose(served(model, s), whole.numpy(), atol=CLOSE, rtol=CLOSE)


def test_a_sequence_is_encoded_alike_in_every_batch_and_behind_others() -> None:
    model, s = model_with_random_weights(SHAPE, seed=3), sequences(SHAPE, 9, 12, seed=4)
    with torch.no_grad():
        together = model(**s)
        for batch in (1, 2, 9):
            parts = [changed(s, itemgetter(slice(n, n + batch))) for n in range(0, 9, batch)]
            alone = torch.cat([model(**part) for part in parts])
            torch.testing.assert_close(alone, together, atol=CLOSE, rtol=CLOSE)
        in_one_row = model(**changed(s, lambda v: v.flatten(0, 1)[None]))
        in_one_row = in_one_row.unflatten(1, (9, 12))[0]
        torch.testing.assert_close(in_one_row, together, atol=CLOSE, rtol=CLOSE)


def test_scan_is_the_recurrence_that_it_stands_for() -> None:
    draw = torch.Generator().manual_seed(5)
    decay, drive = torch.rand(3, 13, 4, generator=draw), torch.randn(3, 13, 4, generator=draw)
    state, expected = torch.zeros(3, 4), []
    for t in range(13):
        state = decay[:, t] * state + drive[:, t]
        expected.append(state)
    torch.testing.assert_close(scan(decay, drive, 13), torch.stack(expected, 1))
    decay[:, [0, 5, 9]] = 0.0  # sequences of 5, 4 and 4 steps
    parts = [scan(decay[:, a:b], drive[:, a:b], b - a) for a, b in ((0, 5), (5, 9), (9, 13))]
    torch.testing.assert_close(scan(decay, drive, 5), torch.cat(parts, 1))


def test_both_sides_put_a_gap_into_the_same_bucket() -> None:
    gaps = np.array([-5, 0, 1, 999, 1_000, 1_001, 59_000, 86_400_000, 10**12])
    assert gap_buckets(gaps).tolist() == [gap_bucket(int(gap)) for gap in gaps]


@pytest.mark.parametrize("history", [1, 10, 1_000])
def test_a_state_made_anew_has_the_bits_of_one_that_moved(history: int) -> None:
    rng, users = np.random.default_rng(history), 8
    q = new_sequences(SHAPE.width, SHAPE.channels, SHAPE.hidden, items=50, users=users, rows=4)
    dense = Dense(**model_with_random_weights(SHAPE, seed=6).dense())
    vectors = rng.normal(size=(50, SHAPE.width)).astype(np.float32)
    publish(q, 1, dense, np.arange(50), vectors, np.zeros(50, np.float32))
    item, ts = rng.integers(0, 50, history), np.cumsum(rng.integers(0, 10**7, history))
    for n in range(history):
        follow(q, 3, item[n], 1, 2, ts[n], n)
    scratch = new_scratch(items=50, users=users, history=1024, width=SHAPE.width)
    scratch.items[:history], scratch.ts[:history] = item[::-1], ts[::-1]
    scratch.kinds[:], scratch.prices[:] = 1, 2
    moved, anew = (np.zeros(SHAPE.width, np.float32) for _ in range(2))
    ask(q, scratch, 3, history, ts[-1] + 5, moved)
    kept = q.state[q.row[3]].copy()
    release(q, 3)
    ask(q, scratch, 3, history, ts[-1] + 5, anew)
    assert np.array_equal(q.state[q.row[3]], kept)
    assert np.array_equal(moved, anew)


def test_states_stay_within_their_bytes_and_the_least_used_gives_way() -> None:
    rows = rows_within(0.01, SHAPE.channels)
    q = new_sequences(SHAPE.width, SHAPE.channels, SHAPE.hidden, items=5, users=500, rows=rows)
    a_user = (q.state, q.owner, q.used, q.made, q.last, q.near)
    taken = sum(array.nbytes for array in a_user)
    assert taken == rows * (4 * SHAPE.channels + BYTES_OF_A_USER)
    assert taken <= 0.01 * 2**20
    dense = Dense(**model_with_random_weights(SHAPE, seed=7).dense())
    ones = np.ones((5, SHAPE.width), np.float32)
    publish(q, 1, dense, np.arange(5), ones, np.zeros(5, np.float32))
    for user in range(400):
        follow(q, user, 1, 1, 0, 10, 0)
        follow(q, 7, 1, 1, 0, 20 + user, 1 if user > 7 else 0)  # one who comes all the time
    held = np.flatnonzero(q.row >= 0)
    assert len(held) == rows and 7 in held
    assert sorted(q.owner.tolist()) == held.tolist()
