"""How much of a thread's time some of its work may take, so that the rest is never kept waiting."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

SHARE = 0.5
SAVED_S = 0.25  # what was left unused is kept up to here: so much may come at once


class Allowance:
    """Seconds that may be spent: half of what passes by the clock, which is the thread's own
    processor time, so that a busy machine takes nothing from it."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._seen = clock()
        self._saved = SAVED_S

    def left(self) -> bool:
        """Whether there is any. Ask in one thread only."""
        now = self._clock()
        self._saved = min(self._saved + SHARE * (now - self._seen), SAVED_S)
        self._seen = now
        return self._saved > 0

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """What the block takes, less the share that came meanwhile.

        A debt is kept up to SAVED_S, or what the block alone left.
        """
        self.left()
        before, began = self._saved, self._seen
        try:
            yield
        finally:
            self._seen = self._clock()
            spent = (1.0 - SHARE) * (self._seen - began)
            self._saved = max(before - spent, min(-SAVED_S, -spent))
