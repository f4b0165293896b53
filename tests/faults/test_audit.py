"""`freshrec audit`: it finds what is missing and what is there twice, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from infra.rows import DEAD_LETTERS
from streams.audit import Audit, Auditor
from streams.producer import EventProducer
from streams.reader import ServerReader
from tests.faults.shop import Shop, events


def audit(shop: Shop) -> Audit:
    warehouse = shop.warehouse()
    try:
        reader = ServerReader(warehouse)
        return Auditor(shop.address, warehouse.broker_id, reader, 1_000_000).run()
    finally:
        warehouse.close()


@pytest.mark.timeout(240)
def test_every_message_is_accounted_for(open_shop: Callable[[int], Shop]) -> None:
    shop = open_shop(2)
    some = list(events(600, seed=8))
    shop.produce(some)
    shop.produce(some[:20])  # again
    producer = EventProducer(shop.address)
    for _ in range(7):
        producer.send_raw(b"?", b"rubbish")
    assert producer.close().ok
    worker = shop.worker(encoder="off")
    worker.start()
    worker.until(lambda h: h["events_total"] + h["duplicates"] + h["rejects"] == 627)
    assert worker.stop() == 0

    found = audit(shop)
    assert found.whole
    assert (found.messages, found.counted, found.refused, found.repeated) == (627, 600, 7, 20)

    warehouse = shop.warehouse()
    warehouse.query("ALTER TABLE events DELETE WHERE event_id = 'e155' OR event_id = 'e77'")
    ((partition, offset),) = warehouse.query(
        "SELECT partition, offset FROM events WHERE event_id = 'e9' LIMIT 1"
    ).rows
    row = [warehouse.broker_id, "events", partition, offset, 1, "x", b"x", 1]
    warehouse.insert("dead_letters", DEAD_LETTERS, [row])
    for _ in range(100):  # a deletion takes a moment
        if not warehouse.query("SELECT count() FROM system.mutations WHERE NOT is_done").rows[0][0]:
            break
        time.sleep(0.1)
    warehouse.close()
    found = audit(shop)
    assert not found.whole and (found.lost, found.double) == (2, 1)
    assert found.doubled == [f"events/{partition}/{offset}"]
