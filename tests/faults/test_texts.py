"""A worker that understands texts, with real processes: publish, search, change, kill, go on."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.address import BrokerAddress
from online.events import Event, Item
from streams.producer import EventProducer, ItemProducer
from streams.sql_client import SqlClient
from tests.streams.worker_process import WorkerProcess

ITEMS = [
    Item(item_id="pot", title="RED CERAMIC TEAPOT", category="KITCHEN", price=12.0),
    Item(item_id="blue", title="BLUE CERAMIC TEAPOT", category="KITCHEN", price=13.0),
    Item(item_id="wool", title="KNITTED WOOL BLANKET", category="HOME", price=40.0),
    Item(item_id="hose", title="GARDEN HOSE 10 METRES", category="GARDEN", price=30.0),
]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[WorkerProcess]:
    made = WorkerProcess(tmp_path / "up", encoder="off", text="on")
    made.start()
    yield made
    made.kill()


class Client:
    def __init__(self, worker: WorkerProcess) -> None:
        self.worker = worker
        self._n = 0

    def announce(self, *items: Item) -> None:
        with ItemProducer(BrokerAddress.at(self.worker.running.broker)) as producer:
            for item in items:
                producer.send(item)
            assert producer.flush().ok

    def event(self, kind: str, user: str, item: str = "", query: str | None = None) -> None:
        self._n += 1
        now = time.time_ns() // 1_000_000
        event = Event(event_id=f"{now}-{self._n}", type=kind, user_id=user, item_id=item,
                      query=query, ts=now)  # fmt: skip
        with EventProducer(BrokerAddress.at(self.worker.running.broker)) as producer:
            producer.send(event)
            assert producer.flush().ok

    def ask(self, path: str, **asked: Any) -> list[dict[str, Any]]:
        url = f"{self.worker.running.http_url}{path}?{urllib.parse.urlencode(asked)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return list(json.load(answer)["results"])

    def refused(self, path: str, **asked: Any) -> tuple[int, str]:
        with pytest.raises(urllib.error.HTTPError) as refusal:
            self.ask(path, **asked)
        return refusal.value.code, str(json.load(refusal.value)["error"])

    def slate(self, user: str) -> dict[str, str]:
        """Reasons by item."""
        sql = f"SELECT item_id, reason FROM live_recommendations WHERE user_id = '{user}'"
        rows = self.sql(sql)
        return {str(item): str(reason) for item, reason in rows}

    def sql(self, sql: str) -> list[list[Any]]:
        return SqlClient(self.worker.running.http_url).rows(sql)

    def found(self, query: str, **asked: Any) -> list[str]:
        return [one["item_id"] for one in self.ask("/search", q=query, **asked)]


def until(true: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.timeout(300)
def test_what_is_published_is_understood_and_stays_so(up: WorkerProcess) -> None:
    shop = Client(up)
    shop.announce(*ITEMS)
    until(lambda: len(shop.ask("/similar", item="pot", by="text")) == 3)
    until(lambda: shop.found("something to keep warm")[:1] == ["wool"])
    assert shop.found("teapots")[:2] in (["pot", "blue"], ["blue", "pot"])
    assert shop.found("hose")[0] == "hose" and shop.found("gardn")[0] == "hose"

    shop.event("view", "ann", "pot")
    until(lambda: "blue" in shop.slate("ann"))
    assert shop.slate("ann")["blue"].startswith("similar to RED CERAMIC TEAPOT, which you viewed")
    shop.event("search", "bob", query="cosy and warm for the evening")
    until(lambda: "wool" in shop.slate("bob"))
    assert "“cosy and warm for the evening”" in shop.slate("bob")["wool"]

    assert shop.refused("/search", q=" ")[0] == 400
    assert shop.refused("/search", q="x", k="0") == (400, "k='0': 1 to 100 are allowed")
    assert shop.refused("/similar", item="pot", by="magic")[0] == 400
    assert shop.ask("/similar", item="unknown") == []

    shop.announce(Item(item_id="blue", title="BLUE CERAMIC TEAPOT", stock=0))
    until(lambda: "blue" not in shop.found("teapots"))
    shop.event("view", "ann", "pot")
    until(lambda: "blue" not in shop.slate("ann"))

    sql = "SELECT count(), max(written_ms) FROM text_vectors"
    until(lambda: shop.sql(sql)[0][0] == 6)  # four items, a query, and what is said of blue now
    read, before = shop.sql(sql), shop.found("teapots")
    up.kill()
    up.start()
    until(lambda: shop.found("teapots") == before)
    shop.event("view", "ann", "wool")
    until(lambda: bool(shop.slate("ann")))
    assert shop.sql(sql) == read  # nothing was read twice
    assert up.stop() == 0, up.words()


def test_a_model_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    worker = WorkerProcess(tmp_path / "up", encoder="off", text="on", text_model=str(tmp_path))
    said = worker.refused()
    assert "FRESHREC_TEXT_MODEL=" in said and "--no-text" in said and "Traceback" not in said
