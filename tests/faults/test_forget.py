"""People who asked to be forgotten are, under load and whatever happens to the worker meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from infra.checkpoints import Checkpoints
from infra.warehouse import Warehouse
from online.events import Event
from streams.topics import EVENTS
from tests.faults.shop import TS, Shop, events
from tests.streams.worker_process import WorkerProcess

TABLES = ("events", "slates", "recommendations", "user_vectors")
USER_S = 60.0  # within which everything must be gone


def of(user: str, count: int, first: int = 0) -> list[Event]:
    return [
        Event(event_id=f"{user}-{n}", type="click", user_id=user, item_id=f"i{n % 30}",
              ts=TS + 1000 * n)
        for n in range(first, first + count)
    ]  # fmt: skip


def forget(user: str, n: int = 0) -> Event:
    return Event(event_id=f"bye-{user}-{n}", type="forget", user_id=user, ts=TS + 5_000_000 + n)


def mixed(some: Iterable[Event], others: Iterable[Event], seed: int) -> list[Event]:
    rng, left, right = random.Random(seed), list(some), list(others)
    out: list[Event] = []
    while left or right:
        one = left if left and (not right or rng.random() < len(left) / 3000) else right
        out.append(one.pop(0))
    return out


def rows_of(warehouse: Warehouse, user: str) -> dict[str, int]:
    counts = {
        table: warehouse.query(
            f"SELECT count() FROM {table} WHERE user_id = %(user)s", {"user": user}
        ).rows[0][0]
        for table in TABLES
    }
    named = "SELECT count() FROM dead_letters WHERE position(raw, %(user)s) > 0"
    return counts | {"dead_letters": warehouse.query(named, {"user": f'"{user}"'}).rows[0][0]}


def files_naming(folder: Path, user: str) -> list[str]:
    found = []
    for root, _, names in os.walk(folder):  # folders may go meanwhile
        for path in (Path(root) / name for name in names):
            with contextlib.suppress(FileNotFoundError):
                if user.encode() in path.read_bytes():
                    found.append(str(path))
    return found


def audited(warehouse: Warehouse) -> int:
    return int(warehouse.query("SELECT count() FROM live_erasures WHERE done_ms > 0").rows[0][0])


def until_gone(shop: Shop, warehouse: Warehouse, user: str, within_s: float = USER_S) -> float:
    """How long it took until nothing of the user was left."""
    started = time.monotonic()
    left: object = None
    while time.monotonic() - started < within_s:
        left = (
            {k: n for k, n in rows_of(warehouse, user).items() if n},
            files_naming(shop.folder / "checkpoints", user),
        )
        if left == ({}, []):
            return time.monotonic() - started
        time.sleep(0.2)
    raise AssertionError(f"after {within_s} s there is still {left}; {shop.workers[0].words()}")


def caught_up(worker: WorkerProcess) -> None:
    worker.until(lambda h: h.get("status") == "ok" and not sum(h["lag"].values()), 150)


def test_a_forgotten_user_is_gone_and_does_not_come_back(open_shop: Callable[[int], Shop]) -> None:
    shop = open_shop(1)
    past = of("victim", 60)
    shop.produce(mixed(past, events(3000, seed=1), seed=1))
    broken = '{"user_id": "victim", "type": "stare"}'
    send_raw(shop, "victim", broken)
    send_raw(shop, "victims-brother", broken.replace("victim", "victims-brother"))
    worker = shop.worker(checkpoint_events="1000").start()
    caught_up(worker)
    warehouse = shop.warehouse()
    for n in range(20):  # a busy machine's encoder has weights only after a while
        if rows_of(warehouse, "victim")["user_vectors"]:
            break
        past += of("victim", 1, first=60 + n)
        shop.produce([*of(f"filler{n}", 600), past[-1]])
        caught_up(worker)
        time.sleep(1.0)
    until(lambda: all(rows_of(warehouse, "victim").values()), 30)
    others = rows_of(warehouse, "u1")

    load = threading.Thread(target=shop.produce, args=(list(events(8000, seed=2, users=300)),))
    load.start()
    shop.produce([forget("victim")])
    took = until_gone(shop, warehouse, "victim")
    load.join()
    assert took < USER_S
    until(lambda: audited(warehouse) == 1, 5)
    ((user_hash, *counts),) = warehouse.query(
        "SELECT user_hash, events, slates, recommendations, dead_letters FROM live_erasures"
    ).rows
    assert (
        len(user_hash) == 64 and counts[0] == len(past) and counts[1] > 0 and counts[2:] == [1, 1]
    )
    assert rows_of(warehouse, "victims-brother")["dead_letters"] == 1
    assert rows_of(warehouse, "u1")["events"] >= others["events"]

    def come_back() -> None:
        """The past is delivered again: as new messages, so that no offset tells."""
        rejected = letters(warehouse)
        shop.produce(past)
        until(lambda: letters(warehouse) >= rejected + len(past), 30)
        assert not any(rows_of(warehouse, "victim").values())

    come_back()
    assert worker.stop() == 0
    worker.start()  # from the state that was kept
    come_back()
    assert worker.stop() == 0
    checkpoints = Checkpoints(shop.folder / "checkpoints")
    checkpoints.set_aside()  # as --fresh does
    checkpoints.close()
    worker.start()
    come_back()
    assert not files_naming(shop.folder / "checkpoints", "victim")

    shop.produce(of("victim", 3, first=9000))
    until(lambda: rows_of(warehouse, "victim")["events"] == 3, 30)
    until(lambda: rows_of(warehouse, "victim")["recommendations"] > 0, 30)  # one a batch
    assert worker.stop() == 0
    warehouse.close()


@pytest.mark.timeout(400)
def test_other_workers_let_go_of_the_user_as_well(open_shop: Callable[[int], Shop]) -> None:
    shop = open_shop(2)
    shop.produce(mixed(of("victim", 60), events(3000, seed=4), seed=4))
    workers = [shop.worker(f"worker-{n}", checkpoint_events="500").start() for n in range(2)]
    for worker in workers:
        caught_up(worker)
    shop.produce(mixed(of("victim", 60, first=100), events(3000, seed=5), seed=5))
    checkpoints = shop.folder / "checkpoints"
    until(lambda: {Path(p).parts[-3] for p in files_naming(checkpoints, "victim")} ==
          {"shard-0", "shard-1"}, 60)  # fmt: skip
    warehouse = shop.warehouse()
    shop.produce([forget("victim")])
    until_gone(shop, warehouse, "victim")
    for worker in workers:
        assert worker.stop() == 0
    assert not files_naming(checkpoints, "victim")
    warehouse.close()


@pytest.mark.timeout(600)
def test_a_kill_in_the_middle_of_an_erasure(open_shop: Callable[[int], Shop]) -> None:
    shop, rng = open_shop(1), random.Random(3)
    users = [f"victim{n}" for n in range(6)]
    shop.produce(mixed((e for u in users for e in of(u, 20)), events(2000, seed=3), seed=3))
    worker = shop.worker(checkpoint_events="500").start()
    caught_up(worker)
    warehouse = shop.warehouse()
    for user in users:
        shop.produce([forget(user)])
        time.sleep(rng.random() * 4.0)
        worker.kill()
        worker.start()
    for user in users:
        until_gone(shop, warehouse, user)
        assert not files_naming(shop.folder / "checkpoints", user)
    until(lambda: audited(warehouse) == len(users), 30)
    events_of = warehouse.query("SELECT events FROM live_erasures").rows
    assert events_of == [(20,)] * len(users)
    queue = "SELECT count() FROM events WHERE type = 'forget'"
    until(lambda: warehouse.query(queue).rows == [(0,)], 30)
    worker.kill()
    shop.produce([e for u in users for e in of(u, 20)])
    worker.start()
    caught_up(worker)
    until(lambda: letters(warehouse) >= 120, 30)
    assert not any(sum(rows_of(warehouse, user).values()) for user in users)
    warehouse.close()


def letters(warehouse: Warehouse) -> int:
    sql = "SELECT count() FROM live_dead_letters WHERE reason LIKE 'too_late%' AND raw = ''"
    return int(warehouse.query(sql).rows[0][0])


def send_raw(shop: Shop, key: str, value: str) -> None:
    from streams.producer import Producer

    with Producer(shop.address, EVENTS) as producer:
        producer.send_raw(key.encode(), value.encode())


def until(holds: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.1)
