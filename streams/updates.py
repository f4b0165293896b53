"""The topic `model-updates`: what a worker tells the others, as records.

Key: the shard that speaks, so that its words stay in order. Value: MessagePack of a `Word`. Words
are about journalled batches only. A word that comes twice says the same, and is known by the
batch's number, so readers skip what they have; encoder weights come in chunks below a megabyte.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from online.columns import INTERACTIONS
from online.events import Item
from online.told import SHADOW, Told, Weights
from streams.writing import Work

FORMAT = 2  # the rankers have weights for texts
CHUNK = 600_000  # bytes of vectors in one record
EVENTS_AT_ONCE = 2_000
_TOLD = INTERACTIONS | {"forget"}

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


class Word(msgspec.Struct, array_like=True):
    """One record of the topic."""

    format: int
    group: str  # workers of other groups are strangers
    shard: int
    batch: int  # the newest that it is about
    kind: str  # events, items, rankers or weights
    body: bytes


class Who(NamedTuple):
    """Who speaks, or listens."""

    group: str
    shard: int


class OneBatch(NamedTuple):
    """What one batch did to the items."""

    batch: int
    events: list[Told]


class Announced(msgspec.Struct, array_like=True):
    items: list[Item]
    withdrawn: list[str]


class Chunk(msgspec.Struct, array_like=True):
    """A part of new weights."""

    part: int
    parts: int
    weights: Weights


def words_of(works: Sequence[Work], who: Who) -> list[bytes]:
    """What these batches, in order, have to say."""
    if not works:
        return []
    newest = works[-1].batch.batch
    words = [*_events(works, who), *_items(works, who)]
    rankers = [w.learned.step.rankers for w in works if w.learned.step.rankers is not None]
    if rankers:  # the newest says all
        words.append(Word(FORMAT, who.group, who.shard, newest, "rankers", encode(rankers[-1])))
    for work in works:
        weights = work.learned.step.weights
        if weights is not None:
            chunks = _chunks(weights)
            words += [
                Word(FORMAT, who.group, who.shard, work.batch.batch, "weights", encode(c))
                for c in chunks
            ]
    return [encode(word) for word in words]


def read(value: bytes) -> Word | None:
    """The word of a record; None when it is none, or of another format."""
    try:
        word = decode(value, type=Word)
    except msgspec.MsgspecError:
        return None
    return word if word.format == FORMAT else None


def _events(works: Sequence[Work], who: Who) -> Iterator[Word]:
    waiting: list[OneBatch] = []
    size = 0
    for work in works:
        told = [
            Told(
                e.event_id,
                e.type,
                SHADOW + e.user_id,
                e.item_id,
                e.ts,
                e.session_id,
                e.price,
                e.sentiment,
            )  # fmt: skip
            for e in (d.event for d in work.learned.step.accepted)
            if e.type in _TOLD
        ]
        if told:
            waiting.append(OneBatch(work.batch.batch, told))
            size += len(told)
        if size >= EVENTS_AT_ONCE:
            yield Word(FORMAT, who.group, who.shard, waiting[-1].batch, "events", encode(waiting))
            waiting, size = [], 0
    if waiting:
        yield Word(FORMAT, who.group, who.shard, waiting[-1].batch, "events", encode(waiting))


def _items(works: Sequence[Work], who: Who) -> Iterator[Word]:
    for work in works:
        announced = work.learned.announcements
        if announced:
            newest = {a.item_id: a.item for a in announced}  # the order is lost on the way
            items = [item for item in newest.values() if item is not None]
            gone = [item_id for item_id, item in newest.items() if item is None]
            body = encode(Announced(items, gone))
            yield Word(FORMAT, who.group, who.shard, work.batch.batch, "items", body)


def _chunks(weights: Weights) -> list[Chunk]:
    """Each with the dense weights, and some of the items."""
    n = len(weights.items)
    width = len(weights.vectors) // max(n, 1)
    each = max(CHUNK // max(width + 4, 1), 1)
    starts = list(range(0, max(n, 1), each))
    return [
        Chunk(
            part,
            len(starts),
            Weights(
                weights.version,
                weights.dense,
                weights.items[a : a + each],
                weights.vectors[a * width : (a + each) * width],
                weights.bias[4 * a : 4 * (a + each)],
            ),
        )
        for part, a in enumerate(starts)
    ]


def joined(chunks: Sequence[Chunk]) -> Weights:
    """The weights whose chunks these all are, in order."""
    parts = [chunk.weights for chunk in chunks]
    return Weights(
        parts[0].version,
        parts[0].dense,
        [item for part in parts for item in part.items],
        b"".join(part.vectors for part in parts),
        b"".join(part.bias for part in parts),
    )
