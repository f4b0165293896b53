"""Two backtests of the same log, target by target: the same event, ranked twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streams.logformat import LogError

SAME = ("user_id", "item_id", "ts")
CIRCUMSTANCES = ("user_events", "item_events", "gap_ms", "same_time")


@dataclass(frozen=True)
class Pairs:
    """N targets of U users, in A's order.

    user: (N,) numbers from 0 to U - 1.
    a, b: (N,) ranks from 1; inf for an item that was not known.
    user_events, item_events, gap_ms, same_time: (N,) see `streams.targets.SCHEMA`; A's.
    moved: how many targets have other circumstances in B (ties in another order).
    """

    user: np.ndarray
    a: np.ndarray
    b: np.ndarray
    user_events: np.ndarray
    item_events: np.ndarray
    gap_ms: np.ndarray
    same_time: np.ndarray
    moved: int = 0


def pair(a: pa.Table, b: pa.Table, names: tuple[str, str] = ("A", "B")) -> Pairs:
    """Join two tables of targets by event_id. Raises LogError if they are not of the same targets.

    `names` are those of the files. Ids that a file has twice are paired in its order.
    """
    _refuse_other_targets(a, b, names)
    order = np.empty(a.num_rows, np.int64)
    order[pc.sort_indices(a.column("event_id"))] = pc.sort_indices(b.column("event_id"))
    b = b.take(pa.array(order))
    odd = [name for name in SAME if not a.column(name).equals(b.column(name))]
    if odd:
        raise LogError(
            f"{names[0]} and {names[1]} have the same event ids with different {', '.join(odd)}:"
            " run both backtests on the same LOG"
        )
    ours, theirs = ({n: t.column(n).to_numpy() for n in CIRCUMSTANCES} for t in (a, b))
    moved = np.any([ours[n] != theirs[n] for n in CIRCUMSTANCES], axis=0)
    return Pairs(
        user=_numbers(a.column("user_id")),
        a=a.column("rank").to_numpy(),
        b=b.column("rank").to_numpy(),
        moved=int(moved.sum()),
        **ours,
    )


def _refuse_other_targets(a: pa.Table, b: pa.Table, names: tuple[str, str]) -> None:
    ours, theirs = (Counter(t.column("event_id").to_pylist()) for t in (a, b))
    if ours == theirs:
        return
    raise LogError(
        f"{names[0]} and {names[1]} have different targets: {(ours - theirs).total():,} are only in"
        f" {names[0]} and {(theirs - ours).total():,} only in {names[1]}; run both backtests on the"
        " same LOG with the same --limit, --targets and --map"
    )


def _numbers(users: pa.ChunkedArray) -> np.ndarray:
    """(N,) the users' numbers by first appearance."""
    return pa.array(users.to_pylist()).dictionary_encode().indices.to_numpy()
