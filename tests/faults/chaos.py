"""`make chaos`: everything goes wrong at random for ten minutes (two with --short); then an audit.

A producer sends events, repeats some, lets some come late and sends some rubbish, while workers are
killed, stopped and frozen, ClickHouse is stopped, frozen, cut off and slow, the broker is frozen,
and checkpoints are damaged. In the end all is well again, and `freshrec audit` has to find every
message of the log, once; every worker has to have counted every event, once.

The seed decides what happens and in which order; how it meets the machine's own timing differs.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from infra.broker import EmbeddedBroker
from online.events import Event
from streams.codec import decode_event
from streams.producer import EventProducer
from tests.clickhouse_server import ClickhouseServer
from tests.faults.proxy import Proxy
from tests.faults.shop import Shop, events
from tests.faults.test_workers import counts, settle
from tests.streams.worker_process import ROOT, WorkerProcess

EVENTS_A_SECOND = 150
REPEATED, LATE, RUBBISH = 0.05, 0.05, 0.01
CALM_S = (1.0, 5.0)  # between two faults
CATCH_UP_S = 240.0


class Traffic(threading.Thread):
    """Sends events until told to stop."""

    def __init__(self, shop: Shop, seed: int) -> None:
        super().__init__(daemon=True)
        self._shop = shop
        self._rng = random.Random(seed)
        self._stopping = threading.Event()
        self._events = events(10_000_000, seed, users=2_000)
        self.counted: Counter[str] = Counter()  # by item: events that count
        self.sent = self.rubbish = 0
        self.error = ""

    def run(self) -> None:
        try:
            self._send_all()
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"

    def stop(self) -> None:
        self._stopping.set()
        self.join(120)

    def _send_all(self) -> None:
        producer = EventProducer(self._shop.address, delivery_timeout_s=100.0)
        recent: collections.deque[Event] = collections.deque(maxlen=50)
        late: list[Event] = []
        while not self._stopping.is_set():
            for _ in range(EVENTS_A_SECOND // 10):
                event = next(self._events)
                self.counted[event.item_id] += 1
                if self._rng.random() < LATE:
                    late.append(event)
                    continue
                self._send(producer, event)
                recent.append(event)
                if self._rng.random() < REPEATED:
                    self._send(producer, self._rng.choice(recent))
                if self._rng.random() < RUBBISH:
                    producer.send_raw(b"?", self._rng.randbytes(30))
                    self.sent += 1
                    self.rubbish += 1
            if len(late) > 30:
                self._send(producer, late.pop(self._rng.randrange(len(late))))
            self._stopping.wait(0.1)
        for event in late:
            self._send(producer, event)
        outcome = producer.close(60)
        if not outcome.ok:
            self.error = f"not all was sent: {outcome}"

    def _send(self, producer: EventProducer, event: Event) -> None:
        producer.send(event)
        self.sent += 1


class Chaos:
    """The faults, by name; each heals before the next one begins."""

    def __init__(self, shop: Shop, proxy: Proxy, workers: list[WorkerProcess], seed: int) -> None:
        self._shop, self._proxy, self._workers = shop, proxy, workers
        self._rng = random.Random(seed)
        self.happened: Counter[str] = Counter()
        self._damaged: set[tuple[Path, int]] = set()  # states, with their inodes: names come again
        self._faults: list[Callable[[], None]] = [
            self.worker_killed, self.worker_killed, self.worker_stopped, self.worker_frozen,
            self.all_workers_killed, self.checkpoint_damaged, self.warehouse_stopped,
            self.warehouse_frozen, self.warehouse_cut_off, self.warehouse_slow,
            self.answers_lost, self.broker_frozen,
        ]  # fmt: skip

    def next(self) -> str:
        """Let something happen, and heal it; what it was."""
        fault = self._rng.choice(self._faults)
        self.happened[fault.__name__] += 1
        fault()
        self.revive()
        return fault.__name__

    def revive(self) -> None:
        for worker in self._workers:
            if not worker.alive():
                worker.launch()

    def _pause(self, low: float, high: float) -> None:
        time.sleep(self._rng.uniform(low, high))

    def _one(self) -> WorkerProcess:
        return self._rng.choice(self._workers)

    def worker_killed(self) -> None:
        self._one().kill()
        self._pause(0.0, 2.0)

    def all_workers_killed(self) -> None:
        for worker in self._workers:
            worker.kill()

    def worker_stopped(self) -> None:
        worker = self._one()
        if worker.alive():
            worker.stop(signal.SIGTERM, 20.0)

    def worker_frozen(self) -> None:
        worker = self._one()
        worker.signal(signal.SIGSTOP)
        self._pause(1.0, 4.0)  # below the group's session timeout: a longer one loses partitions
        worker.signal(signal.SIGCONT)

    def checkpoint_damaged(self) -> None:
        worker = self._one()
        worker.kill()
        for folder in sorted((self._shop.folder / "checkpoints").glob("shard-*")):
            states = sorted(folder.glob("state-*"))
            whole = [s for s in states if (s, s.stat().st_ino) not in self._damaged]
            if len(whole) > 1:  # one whole state is left
                self._damaged.add((whole[-1], whole[-1].stat().st_ino))
                path = whole[-1] / "core.safetensors"
                with path.open("r+b") as file:
                    file.seek(path.stat().st_size // 2)
                    file.write(b"\xff\x00\xff")

    def warehouse_stopped(self) -> None:
        self._shop.server.stop()
        self._pause(1.0, 8.0)
        self._shop.server.start()

    def warehouse_frozen(self) -> None:
        self._shop.server.signal(signal.SIGSTOP)
        self._pause(1.0, 8.0)
        self._shop.server.signal(signal.SIGCONT)

    def warehouse_cut_off(self) -> None:
        self._proxy.refuse()
        self._pause(1.0, 8.0)
        self._proxy.accept()

    def warehouse_slow(self) -> None:
        self._proxy.insert_s = 1.0
        self._pause(2.0, 8.0)
        self._proxy.insert_s = 0.0

    def answers_lost(self) -> None:
        self._proxy.answers_lost = self._rng.randrange(1, 6)
        self._pause(1.0, 4.0)
        self._proxy.answers_lost = 0

    def broker_frozen(self) -> None:
        pid = self._shop.broker.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        self._pause(1.0, 5.0)
        os.kill(pid, signal.SIGCONT)


def wait_until_caught_up(shop: Shop, chaos: Chaos, workers: list[WorkerProcess]) -> None:
    """All is learned and written; workers that end meanwhile are started again."""
    deadline = time.monotonic() + CATCH_UP_S
    calm = 0
    while calm < 5:
        if time.monotonic() > deadline:
            raise SystemExit(f"not caught up in {CATCH_UP_S:g} s: {[w.health() for w in workers]}")
        time.sleep(1.0)
        chaos.revive()
        healths = [worker.health() for worker in workers]
        well = all(h.get("status") == "ok" and not sum(h["lag"].values()) for h in healths)
        calm = calm + 1 if well else 0
    settle(shop, workers)


def audited(shop: Shop, out: Path) -> bool:
    """`freshrec audit`, as an operator runs it."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "FRESHREC_STATE": str(shop.folder / "none")}
    environ |= {f"FRESHREC_{k.upper()}": v for k, v in shop.settings().items()}
    command = [sys.executable, "-m", "streams.cli", "audit", "--json", str(out)]
    return subprocess.run(command, env=environ, cwd=shop.folder, check=False).returncode == 0


def run(minutes: float, seed: int, folder: Path) -> bool:
    """Returns whether everything is accounted for."""
    console = Console(highlight=False)
    server = ClickhouseServer(folder / "clickhouse")
    server.start()
    broker = EmbeddedBroker()
    broker.start()
    proxy = Proxy(server.tcp)
    shop = Shop(folder, broker, server, "chaos", partitions=4)
    through_proxy = f"clickhouse://default:@127.0.0.1:{proxy.port}/chaos?timeout=10"
    workers = [
        shop.worker(f"worker-{n}", memory_mb="1024", encoder="off", checkpoint_events="2000",
                    batch="256", warehouse=through_proxy)
        for n in range(2)
    ]  # fmt: skip
    traffic = Traffic(shop, seed)
    chaos = Chaos(shop, proxy, workers, seed)
    try:
        for worker in workers:
            worker.start()
        traffic.start()
        end = time.monotonic() + 60 * minutes
        calm = random.Random(seed + 1)
        while time.monotonic() < end:
            time.sleep(calm.uniform(*CALM_S))
            began = time.monotonic()
            what = chaos.next()
            left = max(0, round(end - time.monotonic()))
            console.print(f"{left:4d} s left  {what} ({time.monotonic() - began:.1f} s), "
                          f"{traffic.sent:,} messages sent")  # fmt: skip
        traffic.stop()
        console.print("no more faults: catching up")
        wait_until_caught_up(shop, chaos, workers)
        whole = audited(shop, folder / "audit.json") and not traffic.error
        for worker in workers:
            whole &= worker.stop() == 0
        expected = traffic.counted - refused_as_late(shop)
        found = [_otherwise(counts(shop, n), expected) for n in range(len(workers))]
        _report(console, chaos, traffic, found)
        return whole and not any(found)
    finally:
        shop.close()
        proxy.close()
        server.stop()
        broker.stop()


def refused_as_late(shop: Shop) -> Counter[str]:
    """By item: good events that came when their user's kept history was newer, and never else.

    They are in dead_letters with that reason: accounted for, but not counted.
    """
    warehouse = shop.warehouse()
    try:
        letters = warehouse.query(
            "SELECT raw FROM dead_letters FINAL WHERE startsWith(reason, 'too_late')"
        ).rows
        events = (decode_event(raw.encode(), 1 << 20) for (raw,) in letters)
        late = {e.event_id: e.item_id for e in events if isinstance(e, Event)}
        sql = "SELECT DISTINCT event_id FROM events WHERE event_id IN %(ids)s"
        rows = warehouse.query(sql, {"ids": tuple(late)}).rows if late else []
        for (event_id,) in rows:
            del late[event_id]
        return Counter(late.values())
    finally:
        warehouse.close()


def _otherwise(counted: dict[str, int], sent: Counter[str]) -> dict[str, tuple[int, int]]:
    """Items whose events were not counted once."""
    items = sorted(counted.keys() | sent.keys())
    pairs = {item: (counted.get(item, 0), sent[item]) for item in items}
    return {item: pair for item, pair in pairs.items() if pair[0] != pair[1]}


def _report(
    console: Console, chaos: Chaos, traffic: Traffic, found: list[dict[str, tuple[int, int]]]
) -> None:
    table = Table("fault", "times")
    for name, times in sorted(chaos.happened.items()):
        table.add_row(name.replace("_", " "), str(times))
    console.print(table)
    console.print(f"sent {traffic.sent:,} messages, {traffic.rubbish:,} of them rubbish")
    if traffic.error:
        console.print(f"[red]the producer failed: {traffic.error}")
    for shard, same in enumerate(found):
        said = (
            f"[red]counted otherwise (item: counted, sent): {same}" if same else "counted all once"
        )
        console.print(f"worker of shard {shard}: {said}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Everything goes wrong; then an audit.")
    parser.add_argument("--short", action="store_true", help="two minutes instead of ten")
    parser.add_argument("--minutes", type=float, help="how long (default 10)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    asked = parser.parse_args()
    minutes = asked.minutes or (2.0 if asked.short else 10.0)
    folder = Path(tempfile.mkdtemp(prefix="freshrec-chaos-"))
    print(f"chaos of {minutes:g} minutes, seed {asked.seed}, in {folder}", flush=True)
    whole = run(minutes, asked.seed, folder)
    if whole and not asked.keep:
        shutil.rmtree(folder, ignore_errors=True)
    print("everything is accounted for, once" if whole else f"NOT accounted for: see {folder}")
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()
