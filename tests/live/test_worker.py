"""The worker as an operator meets it: a process, signals, HTTP, rows."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import KafkaConsumer

from infra.address import BrokerAddress
from infra.broker import EmbeddedBroker
from infra.settings import Settings
from online.events import Event, Item
from streams.codec import encode
from streams.producer import EventProducer, ItemProducer, Producer
from streams.status import Running, reachable_broker
from streams.topics import DEAD_LETTERS, EVENTS, RECOMMENDATIONS
from streams.worker import Worker
from tests.streams.worker_process import WorkerProcess

TS = 1_700_000_000_000


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[WorkerProcess]]:
    """Workers put here are ended after the test."""
    made: list[WorkerProcess] = []
    yield made
    for worker in made:
        worker.kill()


def event(n: int, rng: random.Random) -> Event:
    return Event(
        event_id=f"e{n}", type="click", user_id=f"u{rng.randrange(300)}",
        item_id=f"i{rng.randrange(100)}", ts=TS + n,
    )  # fmt: skip


def rubbish(n: int, rng: random.Random) -> bytes:
    """A message that must not be accepted; of 12 kinds."""
    good = {"event_id": f"b{n}", "type": "view", "user_id": "u1", "item_id": "i1", "ts": TS}
    kinds = [
        lambda: rng.randbytes(rng.randrange(200)),
        lambda: json.dumps({**good, "ts": "yesterday"}).encode(),
        lambda: json.dumps({k: v for k, v in good.items() if k != rng.choice(list(good)[:3])}
                           | {"type": 1}).encode(),
        lambda: json.dumps({**good, "user_id": "u" * 5000}).encode(),
        lambda: json.dumps({**good, "price": float("nan")}).encode(),
        lambda: json.dumps({**good, "price": 1e300}).encode(),
        lambda: json.dumps({**good, "ts": TS * 10}).encode(),
        lambda: json.dumps({**good, "ts": -1 - n}).encode(),
        lambda: b'{"a":' * 2000,
        lambda: json.dumps(good).encode().replace(b"u1", b"\xc3\x28"),
        lambda: json.dumps({**good, "text": "x" * 120_000}).encode() if n % 50 == 0 else b"",
        lambda: json.dumps({**good, "context": {"deep": {"er": [1]}}}).encode(),
    ]  # fmt: skip
    return kinds[n % len(kinds)]()


@pytest.mark.timeout(400)  # half a minute on an idle machine
def test_events_items_and_rubbish_end_to_end(tmp_path: Path, workers: list[WorkerProcess]) -> None:
    """Embedded as `freshrec up` runs it: 10,000 good and 10,000 bad messages, mixed."""
    worker = WorkerProcess(tmp_path / "up", max_record_bytes="100000", publish="true")
    workers.append(worker)
    worker.start()
    running = worker.running
    assert running.embedded and running.cluster_id.startswith("embedded-")
    address = BrokerAddress.at(running.broker)
    with ItemProducer(address) as items:
        for n in range(100):
            items.send(Item(item_id=f"i{n}", title=f"Lantern {n}"))
        assert items.flush().ok
    worker.until(lambda health: health["items"] == 100)

    rng = random.Random(5)
    with EventProducer(address) as events, Producer(address, EVENTS) as anything:
        for n in range(10_000):
            events.send(event(n, rng))
            anything.send_raw(None, rubbish(n, rng))
        events.send(event(1, rng))  # again, to another user perhaps: another history
        # a stranger's key, a clock that is far off
        events.send_raw(b"somebody else", encode(event(10_001, rng)), timestamp_ms=2**63 - 1)
        assert events.flush().ok and anything.flush().ok
    health = worker.until(
        lambda h: h["rejects"] >= 10_000 and h["events_total"] + h["duplicates"] >= 10_002
        and not sum(h["lag"].values()),
        within_s=300,
    )  # fmt: skip
    assert health["status"] == "ok"
    assert health["rejects"] == 10_000
    assert health["other_keys"] == 1
    assert health["freshness_ms"]["p50"] is not None and "p99" in health["freshness_ms"]
    assert health["quality"] and health["events_per_second"] >= 0
    page = worker.page("/metrics")
    assert f"freshrec_events_total {float(health['events_total'])}" in page
    assert 'freshrec_lag{partition="0",topic="events"} 0.0' in page

    letters = KafkaConsumer(
        DEAD_LETTERS, RECOMMENDATIONS, **address.client_options(), auto_offset_reset="earliest",
        consumer_timeout_ms=3000,
    )  # fmt: skip
    topics: dict[str, int] = {}
    for record in letters:
        topics[record.topic] = topics.get(record.topic, 0) + 1
        if record.topic == DEAD_LETTERS:
            headers = dict(record.headers)
            assert headers["topic"] == b"events" and headers["reason"]
        if topics.get(DEAD_LETTERS) == 10_000 and topics.get(RECOMMENDATIONS) == health["slates"]:
            break
    letters.close()
    assert topics == {DEAD_LETTERS: 10_000, RECOMMENDATIONS: health["slates"]}

    assert worker.stop(signal.SIGINT) == 0
    assert Running.load(worker.state) is None
    rows, reasons, lanterns, slates = worker.rows(
        "SELECT count(), uniqExact(event_id), countIf(event_id LIKE 'b%') FROM events",
        "SELECT count(), uniqExact(partition, offset), countIf(reason = '') FROM dead_letters",
        "SELECT count() FROM live_items",
        "SELECT count(), uniqExact(user_id) FROM live_recommendations",
    )
    count, distinct, bad = rows.rows[0]
    assert distinct == 10_001 and bad == 0 and count == health["events_total"]
    assert tuple(reasons.rows[0]) == (10_000, 10_000, 0)
    assert lanterns.rows[0][0] == 100
    assert slates.rows[0][1] == 300


def test_a_worker_whose_core_died_ends_without_waiting_for_an_event(
    tmp_path: Path, broker: EmbeddedBroker, workers: list[WorkerProcess]
) -> None:
    worker = WorkerProcess(tmp_path / "w", broker=f"kafka://{broker.address}")
    workers.append(worker)
    worker.start()
    [core] = worker.children("streams.core_child")
    os.kill(core, signal.SIGKILL)
    deadline = time.monotonic() + 15
    while worker.alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not worker.alive() and worker.stop() == 1
    assert "the core's process ended (exit -9)" in worker.words()
    assert "Traceback" not in worker.words()


async def test_health_says_that_the_core_died(tmp_path: Path) -> None:
    worker = Worker(Settings(state=tmp_path), BrokerAddress.at("127.0.0.1:1"), None)
    failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    app = SimpleNamespace(crashed=False, should_stop=False)
    parts: Any = (
        app, SimpleNamespace(failed=failed), SimpleNamespace(owned=asyncio.Event()),
        SimpleNamespace(exit_code=-9), SimpleNamespace(gone=""),
    )  # fmt: skip
    assert await worker._watch(*parts) == 1
    assert worker._status.health()["detail"] == "the core's process ended (exit -9)"


def test_a_state_folder_has_one_worker(
    tmp_path: Path, broker: EmbeddedBroker, workers: list[WorkerProcess]
) -> None:
    first = WorkerProcess(tmp_path / "w", broker=f"kafka://{broker.address}", shutdown_s="3")
    second = WorkerProcess(tmp_path / "w", broker=f"kafka://{broker.address}")
    workers += [first, second]
    first.start()
    with pytest.raises(AssertionError, match="the worker ended"):
        second.start()
        second.until(lambda _: False)
    assert f"another worker (pid {first.running.pid}) uses the state folder" in second.words()
    # when the broker goes away, the worker says so, stays, and still stops in time
    broker.stop()
    first.until(lambda health: health["broker"]["status"] == "away")
    assert first.health()["status"] == "degraded"
    first.stop(within_s=6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch": "many"}, "FRESHREC_BATCH='many'"),
        ({"broker": "embedded:{port}"}, "port {port} of 127.0.0.1 cannot be used"),
        ({"http": "127.0.0.1:{port}"}, "FRESHREC_HTTP=127.0.0.1:{port} cannot be used"),
        ({"state": "/proc/no"}, "FRESHREC_STATE='/proc/no' cannot be used"),
    ],
)
def test_what_cannot_start_says_why_without_a_traceback(
    tmp_path: Path, workers: list[WorkerProcess], settings: dict[str, str], said: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        given = {name: value.format(port=port) for name, value in settings.items()}
        worker = WorkerProcess(Path(given.pop("state", str(tmp_path / "w"))), tmp_path, **given)
        workers.append(worker)
        with pytest.raises(AssertionError, match="the worker ended"):
            worker.start()
    assert said.format(port=port) in worker.words()
    assert "Traceback" not in worker.words()
    assert worker.stop() == 1


def test_clients_find_the_broker(tmp_path: Path) -> None:
    embedded = Settings(state=tmp_path)
    assert reachable_broker(embedded) is None
    own = Settings(state=tmp_path, broker=BrokerAddress.parse("kafka://k:9092"))
    assert reachable_broker(own) == own.broker
