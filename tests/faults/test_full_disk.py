"""A disk with no room for checkpoints, when a worker starts and while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from streams.topics import connect_admin
from tests.faults.disk import Disk, disk
from tests.faults.load import Load, journal, nothing_lost_or_doubled
from tests.faults.shop import Shop
from tests.streams.worker_process import WorkerProcess

__all__ = ["disk"]


def acknowledged(shop: Shop) -> dict[str, int]:
    admin = connect_admin(shop.address)
    try:
        groups = admin.list_group_offsets({"freshrec": None})
    finally:
        admin.close()
    return {f"{tp.topic}/{tp.partition}": at.offset for tp, at in groups["freshrec"].items()}


def until_paused(worker: WorkerProcess, within_s: float = 30.0) -> int:
    """Wait until nothing more is taken for a second; how many messages were."""
    deadline = time.monotonic() + within_s
    taken = -1
    while time.monotonic() < deadline:
        now = worker.health()["messages_taken"]
        if now == taken:
            return int(now)
        taken = now
        time.sleep(1.0)
    raise AssertionError(f"it goes on: {worker.words()}")


@pytest.mark.timeout(240)
def test_a_full_disk_is_refused_or_waited_for(open_shop: Callable[[int], Shop], disk: Disk) -> None:
    shop = open_shop(1)
    folder = str(disk.folder / "checkpoints")
    worker = shop.worker(encoder="off", checkpoints=folder, kind="narrow")
    disk.fill()
    said = worker.refused()
    assert "cannot be written" in said and "make room" in said and str(disk.folder) in said
    assert journal(shop) == (0, 0, 0)

    disk.clear()
    disk.resize(kb=64 * 1024)
    worker.start()
    with Load(shop.address, rate=600) as load:
        worker.until(lambda health: health["events_total"] > 600)
        disk.fill()
        health = worker.until(lambda health: health["checkpoints"]["status"] == "away", 20)
        assert health["status"] == "degraded"
        assert "No space left on device" in health["checkpoints"]["error"]
        until_paused(worker)
        before = acknowledged(shop)
        time.sleep(2)
        assert acknowledged(shop) == before and worker.health()["status"] == "degraded"
        disk.clear()
        worker.until(lambda health: health["status"] == "ok", 30)
        sent = load.stop()
    nothing_lost_or_doubled(shop, worker, sent)
    assert acknowledged(shop)["events/0"] == sent
    assert "checkpoints_away" in worker.words() and "checkpoints_back" in worker.words()
