"""What the core takes and gives: histories in; slates, rejects and metrics out. Plain records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec

from online.events import Delivery, Item
from online.told import Rankers, Weights


class PastEvent(NamedTuple):
    """What is kept of one event in a user's history."""

    event_id: str
    type: str
    item_id: str
    ts: int
    session_id: str = ""
    price: float | None = None
    sentiment: float | None = None  # of a review


Histories = dict[str, list[PastEvent]]  # by user, oldest event first


class History(Protocol):
    """Where the histories of users that the core does not hold come from.

    Live it is the warehouse's table `events`; in a backtest it is memory.
    """

    def read(self, users: list[str], before: dict[tuple[str, int], int], limit: int) -> Histories:
        """The newest `limit` events of each user, oldest first; ties in the order of arrival.

        `before` maps (topic, partition) to an offset: events of that partition at or after it
        are left out, so that a redelivered event does not find itself in the past.
        Users without events may be missing from the answer.
        """
        ...


class Core(Protocol):
    """What drivers need of `online.core.Recommender`, wherever it runs."""

    @property
    def history_limit(self) -> int: ...
    def announce(self, items: Iterable[Item]) -> None: ...
    def withdraw(self, item_ids: Iterable[str]) -> None: ...
    def missing(self, batch: list[Delivery]) -> list[str]: ...
    def restore(self, histories: Mapping[str, list[PastEvent]]) -> None: ...
    def step(self, batch: list[Delivery], now_ms: int) -> Step: ...
    def quality(self) -> dict[str, Any]: ...


# Structs, because reading them from another process takes a tenth of a NamedTuple's time.
class Recommendation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    item_id: str
    score: float
    reason: str  # for people: "because you bought WHITE METAL LANTERN"
    source: str  # the candidate source that contributed most
    propensity: float  # probability of this item at this position; 1 while the policy is greedy


class Slate(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The recommendations of one user, made after learning from the event `slate_id` names."""

    slate_id: str  # derived from the event, never from the clock: replaying gives the same id
    user_id: str
    ts: int  # event time of the event that it was made after, epoch ms
    produced_ms: int  # Kafka's timestamp of that event
    topic: str
    partition: int
    offset: int  # place of that event in the log; newest slate = highest (produced_ms, offset)
    model_version: str
    recommendations: tuple[Recommendation, ...]


class Vector(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A user's or an item's vector as it was after an event.

    The product of a user's with an item's is the score that the sequence encoder gives.
    """

    table: str  # "user_vectors" or "item_vectors"
    id: str
    values: bytes  # f4: a user's query and 1, or an item's vector and its bias
    encoder: int  # version of the weights
    ts: int  # of the event, as are these
    produced_ms: int
    topic: str
    partition: int
    offset: int


class Turn(NamedTuple):
    """What was decided at a turn of the encoder's: to be decided again in a replay."""

    at: int  # events
    activated: bool
    began: bool


# Why an event is refused that belongs to a forgotten past: it names its user, so it is not kept.
OF_A_FORGOTTEN_PAST = "too_late: not newer than a `forget` of this user"


class Reject(NamedTuple):
    delivery: Delivery
    reason: str  # starts with a code: "invalid: …", "too_late: …", "full: …"


@dataclass(frozen=True, slots=True)
class Metric:
    """One measurement, at an event time. Rows of the table `metrics`."""

    name: str  # "hr@10", "ndcg@10", "mrr@10", "popularity_hr@10", …
    value: float
    count: int  # how many targets it covers
    ts: int  # event time of the last of them, epoch ms


@dataclass(slots=True)
class Step:
    """What one batch did. Everything that the driver must write, and nothing else."""

    accepted: list[Delivery] = field(default_factory=list)  # rows of `events`, in order
    slates: list[Slate] = field(default_factory=list)  # one for each user of the batch
    rejects: list[Reject] = field(default_factory=list)  # go to dead letters
    duplicates: int = 0  # already in the history: dropped and counted
    metrics: list[Metric] = field(default_factory=list)
    vectors: list[Vector] = field(default_factory=list)  # of the batch's users and items
    turns: list[Turn] = field(default_factory=list)  # the encoder's, for the journal
    rankers: Rankers | None = None  # for other workers, as is `weights`
    weights: Weights | None = None
    ranks: list[tuple[Delivery, float]] = field(
        default_factory=list
    )  # of each target; inf: unknown
