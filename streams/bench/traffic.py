"""Generated traffic: as many users and items as wanted, popular ones among them, seeded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from online.events import Event, EventType

CHUNK = 2_000
TYPES: tuple[EventType, ...] = ("view", "click", "cart", "purchase")
SHARES = (0.55, 0.3, 0.1, 0.05)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Events of `users` users over `items` items, `per_s` of them in a second of event time.

    They take users and items by a Zipf law with exponent `zipf`, but for as many as are due: these
    take them in turn, so that all appear at the pace that the caller sets. When it is constant,
    every stretch of the traffic is like every other one.
    """

    users: int = 1_000_000
    items: int = 200_000
    seed: int = 0
    zipf: float = 1.05
    per_s: int = 3_000

    def events(self, start_ms: int, appeared: Callable[[int], float]) -> Iterator[Event]:
        """An endless stream; the same seed and pace give the same events.

        appeared: of the number of events so far: the share of all users and items that shall have
        appeared in turn by now; above 1 they come round again.

        >>> pace = lambda sent: sent / 10_000
        >>> a, b = (list(zip(range(3), Traffic(10, 5).events(0, pace))) for _ in "ab"); a == b
        True
        """
        rng = np.random.default_rng(self.seed)
        users, items = _zipf_table(self.users, self.zipf), _zipf_table(self.items, self.zipf)
        sent = turn_user = turn_item = 0
        while True:
            user = np.searchsorted(users, rng.random(CHUNK))
            item = np.searchsorted(items, rng.random(CHUNK))
            share = appeared(sent + CHUNK)
            turn_user = _in_turn(user, turn_user, share, self.users, rng)
            turn_item = _in_turn(item, turn_item, share, self.items, rng)
            kind = np.searchsorted(np.cumsum(SHARES), rng.random(CHUNK) * 0.999_999)
            for u, i, k in zip(user.tolist(), item.tolist(), kind.tolist(), strict=True):
                yield Event(
                    event_id=f"g{sent}",
                    type=TYPES[k],
                    user_id=f"user-{u}",
                    item_id=f"item-{i}",
                    ts=start_ms + sent * 1000 // self.per_s,
                )
                sent += 1


def _in_turn(
    drawn: np.ndarray, turn: int, share: float, size: int, rng: np.random.Generator
) -> int:
    """Replace as many of the drawn as are due by those whose turn it is; whose turn comes next."""
    due = min(max(int(share * size) - turn, 0), len(drawn))
    drawn[rng.permutation(len(drawn))[:due]] = (turn + np.arange(due)) % size
    return turn + due


def _zipf_table(size: int, exponent: float) -> np.ndarray:
    weights = 1.0 / np.arange(1, size + 1) ** exponent
    cumulated = np.cumsum(weights)
    return cumulated / cumulated[-1]
