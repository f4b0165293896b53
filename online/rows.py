"""Slates and vectors as the rows that are written."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from online.columns import INTERACTIONS, item_of
from online.events import Delivery
from online.memory import Memory
from online.sequence import item_vectors
from online.slots import hash64
from online.step import Recommendation, Slate, Step, Vector


def slate_row(d: Delivery, version: str, recommendations: tuple[Recommendation, ...]) -> Slate:
    """What is shown after an event; its id is the same whenever the event is delivered."""
    return Slate(
        slate_id=f"{hash64(d.event.user_id + chr(0) + d.event.event_id):016x}",
        user_id=d.event.user_id,
        ts=d.event.ts,
        produced_ms=d.produced_ms,
        topic=d.topic,
        partition=d.partition,
        offset=d.offset,
        model_version=version,
        recommendations=recommendations,
    )


def vector_rows(
    memory: Memory, version: int, due: list[Delivery], queries: Iterable[bytes], step: Step
) -> list[Vector]:
    """The vectors of the users who get a slate, and of the items that the batch moved.

    queries: of the events `due`, b"" for a user of whom nothing is known.
    """
    users = zip(due, queries, strict=True)
    rows = [("user_vectors", d.event.user_id, values, d) for d, values in users if values]
    newest = {item_of(d.event): d for d in step.accepted if d.event.type in INTERACTIONS}
    slots = np.array([memory.items.get(item) for item in newest], np.int64)
    some = zip(newest.items(), item_vectors(memory.sequences, slots), strict=True)
    rows += [("item_vectors", item, vector, d) for (item, d), vector in some if vector]
    return [
        Vector(table, name, vector, version, d.event.ts, d.produced_ms, *d[1:4])
        for table, name, vector, d in rows
    ]
