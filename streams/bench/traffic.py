"""Generated traffic: as many users and items as wanted, popular ones among them, seeded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from online.events import Event, EventType

CHUNK = 10_000
TYPES: tuple[EventType, ...] = ("view", "click", "cart", "purchase")
SHARES = (0.55, 0.3, 0.1, 0.05)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Events of `users` users over `items` items, `per_s` of them in a second of event time.

    Some events take users and items in turn, so that all of them have appeared after `all_after`
    events, at a constant pace: every stretch of the traffic is like every other one. The other
    events follow a Zipf law with exponent `zipf`.
    """

    users: int = 1_000_000
    items: int = 200_000
    seed: int = 0
    all_after: int = 1_800_000
    zipf: float = 1.05
    per_s: int = 3_000

    def events(self, start_ms: int) -> Iterator[Event]:
        """An endless stream; the same seed gives the same events.

        >>> a, b = (list(zip(range(3), Traffic(10, 5).events(0))) for _ in "ab"); a == b
        True
        """
        rng = np.random.default_rng(self.seed)
        users, items = _zipf_table(self.users, self.zipf), _zipf_table(self.items, self.zipf)
        sent = turn_user = turn_item = 0
        while True:
            user = np.searchsorted(users, rng.random(CHUNK))
            item = np.searchsorted(items, rng.random(CHUNK))
            in_turn = np.flatnonzero(rng.random(CHUNK) * self.all_after < self.users)
            user[in_turn] = (turn_user + np.arange(len(in_turn))) % self.users
            turn_user += len(in_turn)
            in_turn = np.flatnonzero(rng.random(CHUNK) * self.all_after < self.items)
            item[in_turn] = (turn_item + np.arange(len(in_turn))) % self.items
            turn_item += len(in_turn)
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


def _zipf_table(size: int, exponent: float) -> np.ndarray:
    weights = 1.0 / np.arange(1, size + 1) ** exponent
    cumulated = np.cumsum(weights)
    return cumulated / cumulated[-1]
