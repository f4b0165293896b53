"""Made-up catalogues: as many distinct titles as wanted, of a real shop's words, and queries."""

from __future__ import annotations

import random
from collections.abc import Iterator

from online.events import Event, Item
from streams import sample
from streams.bench.traffic import Traffic
from streams.logfile import ItemFile

CODED = 0.3  # share of titles with a code
ANY_CODE, WRONG, LONGEST = 0.05, 0.1, 3  # queries: for a code, with a misspelt word; words at most
CATEGORIES = ("kitchen", "garden", "paper", "toys", "lights", "bags", "christmas", "bath")


class Catalogue:
    """Items `item-0`, `item-1` …: the head of one title of the sample, the tail of another one, and
    now and then a code. The same seed and number give the same item.

    >>> shop = Catalogue(seed=1)
    >>> shop.item(7).title == Catalogue(seed=1).item(7).title
    True
    """

    def __init__(self, seed: int = 0) -> None:
        titles = [" ".join((item.title or "").split()) for item in ItemFile(sample.ITEMS)]
        parts = [(words[: -(-len(words) // 2)], words[-(-len(words) // 2) :])
                 for title in titles if len(words := title.split()) > 2]  # fmt: skip
        self._rng = random.Random(seed)
        self._heads = sorted({" ".join(head) for head, _ in parts})
        self._tails = sorted({" ".join(tail) for _, tail in parts})
        self._taken: set[str] = set()
        self._titles: list[str] = []
        self._codes: list[str] = []

    def __len__(self) -> int:
        """Items made so far."""
        return len(self._titles)

    def item(self, n: int) -> Item:
        """The n-th; it and those before are made when they are asked for first."""
        while len(self._titles) <= n:
            self._titles.append(self._new_title())
        return Item(
            item_id=f"item-{n}", title=self._titles[n], category=CATEGORIES[n % len(CATEGORIES)],
            price=(1 + n * 7919 % 4000) / 100,
        )  # fmt: skip

    def query(self, rng: random.Random) -> str:
        """What somebody might type who wants an item that was made: some of its words, one of them
        misspelt now and then, or a code."""
        if self._codes and rng.random() < ANY_CODE:
            return rng.choice(self._codes)
        words = rng.choice(self._titles).lower().split()
        some = rng.sample(words, min(rng.randint(1, LONGEST), len(words)))
        if rng.random() < WRONG:
            some[0] = _misspelt(some[0], rng)
        return " ".join(some)

    def _new_title(self) -> str:
        while True:
            title = f"{self._rng.choice(self._heads)} {self._rng.choice(self._tails)}"
            if self._rng.random() < CODED or title in self._taken:
                letters = "".join(self._rng.choices("ABCDEFGHKLMNPRSTX", k=2))
                self._codes.append(f"{letters}-{self._rng.randrange(10_000):04}")
                title = f"{title} {self._codes[-1]}"
            if title not in self._taken:
                self._taken.add(title)
                return title


def shopping(
    catalogue: Catalogue, items: int, users: int, searches: float, start_ms: int, seed: int
) -> Iterator[Event]:
    """An endless stream of events over the first items; a share of them are searches."""
    rng = random.Random(seed)
    traffic = Traffic(users, items, seed, per_s=500)
    for event in traffic.events(start_ms, lambda sent: min(sent / max(users, 1), 1.0)):
        if rng.random() >= searches:
            yield event
        else:
            query = catalogue.query(rng)
            yield Event(
                event_id=event.event_id, type="search", user_id=event.user_id, ts=event.ts,
                query=query,
            )  # fmt: skip


def _misspelt(word: str, rng: random.Random) -> str:
    """Two neighbouring letters in the wrong order, in a word that is long enough."""
    if len(word) < 5 or any(c.isdigit() for c in word):
        return word
    at = rng.randrange(1, len(word) - 1)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
