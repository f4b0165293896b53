"""Load at a fixed rate, and how long a worker takes to answer: a part of `freshrec bench search`.

An open loop: each question has a moment at which it is due, whether or not those before have been
answered, and what it waits counts from then. A worker that stalls for a second is so seen by all
who came in that second (Tene's "coordinated omission" is what other ways of counting do).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np

LOOK_S = 0.1  # between two looks for a new item: more would measure themselves
WITHIN_S = 10.0  # a look that is in vain for longer is given up


@dataclass(slots=True)
class Answers:
    """What came of questions."""

    ms: list[float] = field(default_factory=list)  # from when each was due
    late_ms: list[float] = field(default_factory=list)  # by which we asked after that
    failed: int = 0
    empty: int = 0
    first_fault: str = ""

    def fault(self, said: str) -> None:
        self.failed += 1
        self.first_fault = self.first_fault or said

    def report(self) -> dict[str, Any]:
        return {
            **times(self.ms),
            "asked_late_p99_ms": times(self.late_ms)["p99"],
            "failed": self.failed,
            "empty": self.empty,
            **({"first_fault": self.first_fault} if self.first_fault else {}),
        }


def times(ms: list[float]) -> dict[str, Any]:
    """Median, 99th percentile (the value that 99 of 100 do not exceed) and highest.

    >>> times([3.0, 1.0, 2.0])
    {'count': 3, 'p50': 2.0, 'p99': 3.0, 'max': 3.0}
    >>> times([])
    {'count': 0, 'p50': None, 'p99': None, 'max': None}
    """
    if not ms:
        return {"count": 0, "p50": None, "p99": None, "max": None}
    p50, p99 = np.quantile(ms, [0.5, 0.99], method="inverted_cdf")
    return {"count": len(ms), "p50": round(float(p50), 1), "p99": round(float(p99), 1),
            "max": round(max(ms), 1)}  # fmt: skip


async def at_rate(
    rate: float, seconds: float, act: Callable[[int, float], Awaitable[None] | None]
) -> None:
    """`act(n, due)` at each due time (of time.monotonic()); what it returns is not waited for
    before the next is due, but before this ends."""
    began, waiting = time.monotonic(), set()
    for n in range(int(rate * seconds)):
        due = began + n / rate
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if (coming := act(n, due)) is not None:
            task = asyncio.ensure_future(coming)
            waiting.add(task)
            task.add_done_callback(waiting.discard)
    await asyncio.gather(*waiting)


class Asker:
    """Asks a worker over HTTP; connections are kept."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def ask(self, path: str, **asked: Any) -> list[dict[str, Any]]:
        """The results. Raises aiohttp.ClientError, TimeoutError; ValueError for another answer."""
        async with self._session.get(f"{self._url}{path}", params=asked) as answer:
            found = await answer.json()
            if answer.status != 200:
                raise ValueError(f"HTTP {answer.status}: {str(found)[:200]}")
            return list(found["results"])

    async def counted(self, answers: Answers, due: float, path: str, **asked: Any) -> None:
        """Ask, and count what comes of it."""
        answers.late_ms.append(1000 * (time.monotonic() - due))
        try:
            found = await self.ask(path, **asked)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            answers.fault(f"{path}: {type(error).__name__}: {error}")
        else:
            answers.empty += not found
        answers.ms.append(1000 * (time.monotonic() - due))

    async def until(self, shows: Callable[[], Awaitable[bool]], since: float) -> float | None:
        """Look every LOOK_S until it shows; milliseconds since then, None if given up."""
        while time.monotonic() - since < WITHIN_S:
            if await shows():
                return 1000 * (time.monotonic() - since)
            await asyncio.sleep(LOOK_S)
        return None
