"""What workers tell each other, as plain records."""

from __future__ import annotations

import msgspec

SHADOW = "\0"  # before the name of a user whom another worker serves


class Told(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event that another worker learned: as much of it as counts for the items."""

    event_id: str
    type: str
    user_id: str  # with SHADOW before it
    item_id: str
    ts: int
    session_id: str | None = None
    price: float | None = None
    sentiment: float | None = None


class Rankers(msgspec.Struct, array_like=True):
    """All that a worker ever added to the rankers' weights, and what its scaler has seen."""

    weights: bytes  # f4, as `Contest.flat`
    rows: float  # that the scaler has seen
    mean: bytes  # f8, by feature
    variance: bytes


class Weights(msgspec.Struct, array_like=True):
    """New weights of the sequence encoder, and vectors of items by id."""

    version: int
    dense: list[bytes]  # f4, in the order of Dense
    items: list[str]
    vectors: bytes  # (N, D) f4
    bias: bytes  # (N,) f4
