"""`freshrec demo`: two months of a real shop through broker, core and warehouse, on one screen.

The demo is a client like any other: it starts `freshrec up` as a child process, produces the
sample to Kafka and reads SQL over HTTP.
"""

from __future__ import annotations

import collections
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live

from infra.address import BrokerAddress
from infra.settings import Settings
from online.events import Event, Item
from streams import demo_results, sample
from streams.demo_feed import Feed
from streams.demo_results import RECOMMENDATIONS, Summary
from streams.demo_watch import Watch, choose_shoppers
from streams.demo_worker import DemoError, DemoWorker, claim_state
from streams.logfile import EventLog, ItemFile
from streams.producer import ItemProducer
from streams.screen import Frame, Screen, plain_line
from streams.sql_client import SqlClient, SqlError

SUBTITLE = "{events:,} purchases of a gift shop, live · UCI Online Retail, CC BY 4.0"
SHOPPERS = 6
FLAT_OUT = "flat out (a backlog is kept)"
STEADY = "steady {:,.0f} events/s"
POLL_S = 0.5
PLAIN_EVERY_S = 3.0  # lines without a terminal
CATALOGUE_S = 60.0  # how long the catalogue may take
METRICS_S = 5.0  # how long the last metrics may take
STALL_S = 60.0  # without a new row: something is wrong


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is replayed: `events`, the last `steady` of them at 500 a second."""

    events: int
    steady: int


FULL = Plan(events=50_000, steady=30_000)
SHORT = Plan(events=5_000, steady=1_500)


def run(
    settings: Settings,
    *,
    short: bool = False,
    stay: bool = False,
    results: Path = Path("results/demo"),
    console: Console | None = None,
) -> int:
    """Run the demo with the state folder and HTTP address of `settings`; the exit code.

    With `stay`, broker and worker stay up until Ctrl-C. Raises DemoError with a cure.
    """
    console = console or Console()
    claim_state(settings)
    demo = Demo(settings, SHORT if short else FULL, console, results)
    with DemoWorker(settings, results / "worker.log") as worker:
        code = demo.play(worker)
        if stay and worker.alive():
            demo.invite(worker)
            worker.wait()
    if not stay and code == 0:
        demo.farewell()
    return code


class Demo:
    """One run: what is replayed, and what it shows and leaves."""

    def __init__(self, settings: Settings, plan: Plan, console: Console, results: Path) -> None:
        self._settings = settings
        self._console = console
        self._results = results
        with EventLog(sample.EVENTS) as log:
            self._events: list[Event] = [e for b in log.batches(limit=plan.events) for e in b]
        self._items: dict[str, Item] = {item.item_id: item for item in ItemFile(sample.ITEMS)}
        self._steady = plan.steady
        self._shoppers = choose_shoppers(self._events, SHOPPERS)
        self._subtitle = SUBTITLE.format(events=len(self._events))
        self._began = time.monotonic()

    def play(self, worker: DemoWorker) -> int:
        """Replay, show, judge and leave the results; 0 if nothing went wrong."""
        summary = Summary(items=len(self._items))
        total = len(self._events)
        with self._display() as show:
            running = worker.await_ready(
                lambda doing: show(Frame(doing, time.monotonic() - self._began, total, 0, 0))
            )
            sql = SqlClient(running.http_url, token=self._settings.http_token)
            watch = Watch(worker.health, sql, self._items, self._shoppers, self._began)
            broker = BrokerAddress.at(running.broker)
            self._announce(broker, watch, show)
            feed = Feed(broker, self._events, self._steady, lambda: watch.written)
            feed.start()
            try:
                last = self._replay(feed, watch, worker, show, summary)
            finally:
                feed.stop()
                feed.join(10)
            summary.seconds = time.monotonic() - self._began
            recommendations = b""
            try:
                self._measure(summary, sql, watch, feed)
                recommendations = sql.text(RECOMMENDATIONS, "CSVWithNames")
            except SqlError as error:  # what was seen until then is still worth showing
                summary.faults.append(str(error))
        if not summary.faults:  # else the rest would only repeat it
            summary.judge()
        paths = demo_results.leave(self._results, summary, last, self._subtitle, recommendations)
        self._conclude(summary, last, paths)
        return 1 if summary.faults else 0

    def _announce(self, broker: BrokerAddress, watch: Watch, show: Callable[[Frame], None]) -> None:
        """The catalogue into the topic `items`; returns when the worker has all of it."""
        with ItemProducer(broker) as producer:
            for item in self._items.values():
                producer.send(item)
            delivered = producer.flush()
        if not delivered.ok:
            raise DemoError(f"the catalogue was not delivered: {delivered.first_error}")
        deadline = time.monotonic() + CATALOGUE_S
        while watch.items() < len(self._items):
            if time.monotonic() > deadline:
                raise DemoError(
                    f"only {watch.items()} of {len(self._items)} items arrived within"
                    f" {CATALOGUE_S:.0f} s: see {self._results / 'worker.log'}"
                )
            show(watch.frame("announcing the catalogue", len(self._events), 0))
            time.sleep(0.2)

    def _replay(
        self,
        feed: Feed,
        watch: Watch,
        worker: DemoWorker,
        show: Callable[[Frame], None],
        summary: Summary,
    ) -> Frame:
        """Poll and draw until all is written or something is wrong; the last frame."""
        moved, written = time.monotonic(), 0
        while True:
            now = time.monotonic()
            with contextlib.suppress(SqlError):  # the worker is gone, or it shows as a standstill
                watch.poll()
            stage = STEADY.format(feed.steady_per_s) if feed.steady_since_ms else FLAT_OUT
            frame = watch.frame(stage, len(self._events), feed.sent)
            show(frame)
            if watch.written != written:
                moved, written = now, watch.written
            if not feed.is_alive() and watch.written >= feed.sent:
                break
            fault = self._fault(feed, worker, now - moved)
            if fault:
                summary.faults.append(fault)
                break
            time.sleep(max(POLL_S - (time.monotonic() - now), 0.05))
        return watch.frame("done", len(self._events), feed.sent)

    def _fault(self, feed: Feed, worker: DemoWorker, still_s: float) -> str | None:
        if feed.error:
            return feed.error
        if not worker.alive():
            return f"the worker ended: see {self._results / 'worker.log'}\n{worker.last_words()}"
        if still_s > STALL_S:
            return f"no new row for {STALL_S:.0f} s: see {self._results / 'worker.log'}"
        return None

    def _measure(self, summary: Summary, sql: SqlClient, watch: Watch, feed: Feed) -> None:
        if feed.error and feed.error not in summary.faults:
            summary.faults.append(feed.error)
        watch.await_metrics(METRICS_S)
        counts = "SELECT count() FROM "
        summary.events = len(self._events)
        summary.rows = int(sql.rows(counts + "live_events")[0][0])
        summary.dead_letters = int(sql.rows(counts + "live_dead_letters")[0][0])
        summary.users = int(sql.rows("SELECT uniq(user_id) FROM live_recommendations")[0][0])
        summary.events_per_second = feed.per_second
        summary.steady_per_second = feed.steady_per_s
        summary.quality = watch.metrics()
        if feed.steady_since_ms is not None:
            summary.freshness = watch.freshness(feed.steady_since_ms)

    @contextlib.contextmanager
    def _display(self) -> Iterator[Callable[[Frame], None]]:
        """How frames are shown: a live screen, or a line every few seconds."""
        if not self._console.is_terminal:
            yield self._plain
            return
        with Live(console=self._console, screen=True, auto_refresh=False) as live:
            yield lambda f: live.update(Screen(f, self._subtitle), refresh=True)

    _said_at = 0.0

    def _plain(self, frame: Frame) -> None:
        if time.monotonic() - self._said_at >= PLAIN_EVERY_S:
            self._said_at = time.monotonic()
            print(plain_line(frame), flush=True)

    def _conclude(self, summary: Summary, last: Frame, paths: list[Path]) -> None:
        say = self._console.print
        if self._console.is_terminal:
            say(Screen(last, self._subtitle))
        say()
        say(demo_results.table(summary))
        say(f"\nResults: {', '.join(str(path) for path in paths)}", highlight=False)
        for fault in summary.faults:
            say(f"wrong: {fault}", style="bold red", markup=False, highlight=False)

    def invite(self, worker: DemoWorker) -> None:
        """Say what can be done while broker and worker stay up."""
        sizes = collections.Counter(event.user_id for event in self._events)
        # of the latest shoppers one with few purchases: there, one more shows at once
        user = min(reversed(self._events[-1000:]), key=lambda e: abs(sizes[e.user_id] - 3)).user_id
        had = {event.item_id for event in self._events if event.user_id == user}
        bought = collections.Counter(event.item_id for event in self._events)
        item = next(item for item, _ in bought.most_common() if item not in had)
        event = {
            "type": "purchase",
            "user_id": user,
            "item_id": item,
            "ts": self._events[-1].ts + 60_000,  # the shop's clock, not ours
        }
        has_token = bool(self._settings.http_token)
        shown = '-H "Authorization: Bearer $FRESHREC_HTTP_TOKEN" ' if has_token else ""
        self._say_lines(
            "Everything stays up until Ctrl-C. In another terminal:",
            f"freshrec recommend {user}",
            f"freshrec produce --event '{json.dumps(event)}'",
            f"freshrec recommend {user}    # changed by that purchase of {self._items[item].title}",
            f"curl {shown}{worker.running.http_url} --data"
            ' "SELECT * FROM live_metrics FORMAT Pretty"',
        )

    def farewell(self) -> None:
        """Say what can be done with what the demo left."""
        self._say_lines(
            "Try next:",
            f"freshrec recommend {self._shoppers[0]}",
            'freshrec query "SELECT * FROM live_metrics"',
            "make demo ARGS=--stay    # stays up: SQL over HTTP, your own events",
            "freshrec up              # the same parts, for good",
        )

    def _say_lines(self, head: str, *lines: str) -> None:
        self._console.print(f"\n{head}")
        for line in lines:  # unwrapped, so that they can be copied
            shown = line if line.startswith(("make", "curl")) else f".venv/bin/{line}"
            self._console.print(f"  {shown}", markup=False, highlight=False, soft_wrap=True)
