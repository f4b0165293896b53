"""What was learned and waits to be written, bounded by what it weighs."""

from __future__ import annotations

import asyncio

from streams.learning import Learned
from streams.writing import Work

# Bytes that each takes while it waits, as tracemalloc said. A message is there as Faust's event,
# which waits to be acknowledged, and as our event or dead letter.
MESSAGE_BYTES = 2_000
RECOMMENDATION_BYTES = 360


class Waiting(asyncio.Queue[Work]):
    """A queue with room while less than `limit` bytes wait: then for one batch of any weight.

    A bound in batches would not do: one may hold a few events, or a hundred megabytes of letters.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self.weight = 0

    def full(self) -> bool:
        return self.weight >= self._limit

    def get_all(self) -> list[Work]:
        """All that waits now."""
        return [self.get_nowait() for _ in range(self.qsize())]

    # These two asyncio.Queue leaves to subclasses; `put` and `get` call them.

    def _put(self, work: Work) -> None:
        self.weight += weight(work.learned)
        super()._put(work)

    def _get(self) -> Work:
        work: Work = super()._get()
        self.weight -= weight(work.learned)
        return work


def weight(learned: Learned) -> int:
    """About the bytes that a learned batch takes until it is acknowledged."""
    shown = sum(len(slate.recommendations) for slate in learned.step.slates)
    came = 2 * learned.raw_bytes + MESSAGE_BYTES * learned.messages
    return came + RECOMMENDATION_BYTES * shown
