"""`freshrec bench search`: how long shoppers wait for `/search`, and a new item for its shoppers.

A worker learns a catalogue and some events. Then, all at once and at fixed rates: events; questions
to /search, half of them of users with events, who send the event `search` as well; and new items.
How soon a new item counts is seen two ways:

    rows    of all: `written_ms` of the row that its text is read, which is written after the core
            was told, less `produced_ms` of the announcement
    client  of one a second at most: until GET /similar?by=text finds what is like it (the core has
            its vector), and until GET /search for its title finds it; asked every 100 ms
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp

from infra.address import BrokerAddress
from infra.broker import EmbeddedBroker
from infra.settings import Settings
from online.events import Event
from streams.bench.asking import Answers, Asker, at_rate, times
from streams.bench.catalogue import Catalogue, shopping
from streams.bench.child import BenchWorker
from streams.bench.freshness import refuse_lost
from streams.bench.machine import cpu_s_by_part, machine
from streams.producer import EventProducer, ItemProducer
from streams.sql_client import SqlClient
from streams.topics import ensure_topics

LIMITS = {"search_p50_ms": 40.0, "search_p99_ms": 120.0, "item_p99_ms": 1000.0}
SEARCHES = 0.02  # of the events before
WARM_S, WARM_SHARE = 5.0, 0.5  # load that does not count: at most, of what is measured
TICK_S = 0.02  # events are sent in portions
ANSWER_S = 10.0
READ_PER_S, LEAST_S = 50.0, 120.0  # how slow reading a catalogue may be before it is given up
SWITCH_S = 0.0005  # who produces and who asks share an interpreter: nobody waits 5 ms for it

# the last vectors of a text may have been there before: the first row of each new item counts
_ITEMS = """
SELECT count(), quantileExact(0.5)(ms), quantileExact(0.99)(ms), max(ms) FROM (
    SELECT min(t.written_ms) - min(i.produced_ms) AS ms
    FROM (SELECT item_id, produced_ms FROM items WHERE produced_ms >= {since:Int64}) AS i
    ANY INNER JOIN (SELECT item_id, written_ms FROM TABLE) AS t USING (item_id)
    GROUP BY item_id
)
"""

Say = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """What to measure."""

    items: int = 50_000
    history: int = 20_000  # events before the measuring begins
    users: int = 5_000  # whom these are of
    rate: int = 500  # events/s
    searches: float = 20.0  # questions/s
    new_items: float = 20.0  # a second
    seconds: float = 60.0
    seed: int = 0


@dataclass(slots=True)
class Seen:
    """What was measured in the seconds that count."""

    known: Answers = field(default_factory=Answers)
    unknown: Answers = field(default_factory=Answers)
    alike_ms: list[float] = field(default_factory=list)
    found_ms: list[float] = field(default_factory=list)
    unseen: int = 0
    published: int = 0
    events: int = 0
    seconds: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)


def run(plan: SearchPlan, settings: Settings, say: Say) -> dict[str, Any]:
    """Measure. Raises BenchError."""
    with (
        tempfile.TemporaryDirectory(prefix="freshrec-bench-") as folder,
        EmbeddedBroker() as broker,
    ):
        address = BrokerAddress.at(broker.address)
        ensure_topics(address, settings.partitions)
        with BenchWorker(Path(folder), address, "search") as worker:
            say("starting the worker", 0, 1)
            worker.await_ready()
            return SearchBench(plan, settings, address, worker, say).measure()


class SearchBench:
    """One worker that is ready, and all that is asked of it."""

    def __init__(
        self, plan: SearchPlan, settings: Settings, address: BrokerAddress, worker: BenchWorker,
        say: Say,
    ) -> None:  # fmt: skip
        self._plan, self._settings, self._address = plan, settings, address
        self._worker, self._say = worker, say
        self._catalogue = Catalogue(plan.seed)
        self._rng = random.Random(plan.seed)
        self._since_ms = 0
        self._newest = 0, 0.0  # number of the newest item that was published, and when
        self._probing = False
        self._searches = 0

    def measure(self) -> dict[str, Any]:
        began = time.monotonic()
        self._announce()
        reading_s = time.monotonic() - began
        events = self._learned()
        before = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        try:
            seen = asyncio.run(self._loaded(events))
        finally:
            sys.setswitchinterval(before)
        return self._report(seen, reading_s)

    def _announce(self) -> None:
        """The catalogue, until all of it is read."""
        total, what = self._plan.items, "reading texts"
        with ItemProducer(self._address) as producer:
            for n in range(total):
                producer.send(self._catalogue.item(n))
            refuse_lost(producer.flush())

        def read(health: dict[str, Any]) -> bool:
            texts = health.get("texts") or {}
            done = texts.get("read", 0) if self._settings.text else health.get("items", 0)
            self._say(what, min(done, total), total)
            return bool(done >= total and not texts.get("waiting"))

        self._worker.until(read, LEAST_S + total / READ_PER_S, "the catalogue is read")

    def _learned(self) -> Iterator[Event]:
        """Learn what users did before; what they do next."""
        plan, total = self._plan, self._plan.history
        start_ms = time.time_ns() // 1_000_000 - 86_400_000
        events = shopping(self._catalogue, plan.items, plan.users, SEARCHES, start_ms, plan.seed)
        with EventProducer(self._address) as producer:
            for event in islice(events, total):
                producer.send(event)
            refuse_lost(producer.flush())
        done = partial(self._say, "learning what users did")
        self._worker.rate_until(total, lambda count: done(min(count, total), total))
        return (event for event in events if event.type != "search")

    async def _loaded(self, events: Iterator[Event]) -> Seen:
        """Everything at once, first to warm up, then for what counts."""
        url = self._worker.http_url
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=ANSWER_S),
            connector=aiohttp.TCPConnector(limit=0),
        ) as session:
            asker = Asker(session, url)
            with EventProducer(self._address) as sends, ItemProducer(self._address) as publishes:
                warm_s = min(WARM_S, WARM_SHARE * self._plan.seconds)
                await self._load(asker, sends, publishes, events, warm_s, Seen())
                self._since_ms = time.time_ns() // 1_000_000
                seen, before, began = Seen(), self._cpu_s(), time.monotonic()
                await self._load(asker, sends, publishes, events, self._plan.seconds, seen)
                seen.seconds = time.monotonic() - began
                after = self._cpu_s()
                seen.cpu_s = {name: after[name] - before.get(name, 0.0) for name in after}
                refuse_lost(sends.flush())
                refuse_lost(publishes.flush())
        return seen

    async def _load(
        self, asker: Asker, sends: EventProducer, publishes: ItemProducer,
        events: Iterator[Event], seconds: float, seen: Seen,
    ) -> None:  # fmt: skip
        plan = self._plan

        def send(n: int, _: float) -> None:
            some = int((n + 1) * plan.rate * TICK_S) - int(n * plan.rate * TICK_S)
            for event in islice(events, some):
                sends.send(event)
            seen.events += some

        def publish(_: int, due: float) -> None:
            number = len(self._catalogue)
            publishes.send(self._catalogue.item(number))
            self._newest = number, time.monotonic()
            seen.published += 1

        def search(n: int, due: float) -> Any:
            user = f"user-{self._rng.randrange(plan.users)}" if n % 2 else f"stranger-{n}"
            answers = seen.known if n % 2 else seen.unknown
            query = self._catalogue.query(self._rng)
            if n % 2:
                sends.send(self._asked(user, query))
            return asker.counted(answers, due, "/search", q=query, user=user)

        def look(n: int, _: float) -> Any:
            self._say("measuring", n, int(seconds))
            return None if self._probing or not seen.published else self._probe(asker, seen)

        await asyncio.gather(
            at_rate(1 / TICK_S, seconds, send),
            at_rate(plan.new_items, seconds, publish),
            at_rate(plan.searches, seconds, search),
            at_rate(1.0, seconds, look),
        )

    async def _probe(self, asker: Asker, seen: Seen) -> None:
        """See the newest item come: its vector in the core, and the answer for its title."""
        number, since = self._newest
        item = self._catalogue.item(number)

        async def alike() -> bool:
            return bool(await asker.ask("/similar", item=item.item_id, by="text", k=1))

        async def found() -> bool:
            answer = await asker.ask("/search", q=item.title, k=10)
            return any(one["item_id"] == item.item_id for one in answer)

        self._probing = True
        for shows, ms in ((alike, seen.alike_ms), (found, seen.found_ms)):
            if shows is alike and not self._settings.text:
                continue
            if (took := await asker.until(shows, since)) is None:
                seen.unseen += 1
                break
            ms.append(took)
        self._probing = False

    def _asked(self, user: str, query: str) -> Event:
        self._searches += 1
        ts = time.time_ns() // 1_000_000
        return Event(
            event_id=f"search-{self._searches}", type="search", user_id=user, ts=ts, query=query
        )

    def _cpu_s(self) -> dict[str, float]:
        return cpu_s_by_part(self._worker.pid)

    def _rows(self, published: int) -> dict[str, Any]:
        """How soon new items were read, of their rows; waits until all are there."""
        table = "item_texts" if self._settings.text else "items"
        sql = SqlClient(self._worker.http_url)
        deadline = time.monotonic() + LEAST_S
        while True:
            row = sql.rows(_ITEMS.replace("TABLE", table), since=self._since_ms)[0]
            if row[0] >= published or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        count, p50, p99, most = row
        return {"count": count, "unread": published - count,
                "p50": p50 if count else None, "p99": p99 if count else None,
                "max": most if count else None}  # fmt: skip

    def _report(self, seen: Seen, reading_s: float) -> dict[str, Any]:
        plan, both = self._plan, Answers()
        for some in (seen.known, seen.unknown):
            both.ms += some.ms
            both.late_ms += some.late_ms
            both.failed += some.failed
            both.empty += some.empty
            both.first_fault = both.first_fault or some.first_fault
        rows = self._rows(seen.published)
        search = both.report()
        found = {"search_p50_ms": search["p50"], "search_p99_ms": search["p99"],
                 "item_p99_ms": rows["p99"]}  # fmt: skip
        return {
            "benchmark": "search",
            "plan": {name: getattr(plan, name) for name in plan.__slots__},
            "items_read_per_second": round(plan.items / reading_s, 1),
            "search_ms": search,
            "search_ms_of": {"users with events": seen.known.report(),
                             "others": seen.unknown.report()},
            "new_item_ms": {"rows": rows, "client: like it": times(seen.alike_ms),
                            "client: its title": times(seen.found_ms), "unseen": seen.unseen},
            "events_per_second": round(seen.events / plan.seconds, 1),
            "processors": {name: round(s / seen.seconds, 3) for name, s in seen.cpu_s.items()},
            "peak_rss_mb": round(self._worker.peak_mb, 1),
            "bound_mb": self._settings.memory_mb,
            "limits": LIMITS,
            "ratios": {name: round(value / LIMITS[name], 3)
                       for name, value in found.items() if value is not None},
            "machine": machine(),
        }  # fmt: skip
