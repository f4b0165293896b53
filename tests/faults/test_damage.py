"""Checkpoints that are cut off, changed, or may not be read: never a silent fresh start."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.load import nothing_lost_or_doubled
from tests.faults.shop import Shop, events, newest_state, undisturbed, unlike
from tests.streams.worker_process import WorkerProcess

# root may read everything, unless it gives that up
ORDINARY = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def states(shop: Shop) -> list[Path]:
    """Folders of the states, newest first."""
    return sorted((shop.folder / "checkpoints" / "shard-0").glob("state-*"), reverse=True)


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))


def as_nobody_special(worker: WorkerProcess) -> None:
    if os.geteuid() == 0:
        worker.command = [*ORDINARY, *worker.command]


@pytest.mark.timeout(240)
def test_damaged_checkpoints_are_passed_over_or_refused(open_shop: Callable[[int], Shop]) -> None:
    shop = open_shop(1)
    stream = events(10**6, seed=3)
    worker = shop.worker(encoder="off", batch="128", checkpoint_events="1000")
    as_nobody_special(worker)

    def produce(count: int) -> int:
        return shop.produce(next(stream) for _ in range(count))

    worker.start()
    sent = produce(1500)
    worker.until(lambda health: "batch" in health["checkpoints"])  # a state is kept
    sent += produce(700)
    nothing_lost_or_doubled(shop, worker, sent)
    newest, middle, first = states(shop)
    cut_off(newest / "core.safetensors")
    flip_a_bit(middle / "core.safetensors")
    flip_a_bit(first.parent / "mark.json")

    worker.start()
    said = worker.words()
    assert f"state_passed_over state={newest.name}" in said and "bytes instead of" in said
    assert f"state_passed_over state={middle.name}" in said and "its digest is not" in said
    assert f"state_restored state={first.name}" in said
    assert f"recovered events={sent}" in said and "no_mark" in said
    sent += produce(500)
    nothing_lost_or_doubled(shop, worker, sent)
    state, _ = newest_state(shop)
    assert unlike(state, undisturbed(shop, batch="128", encoder="off").state) == []

    newest, first = states(shop)  # those that were passed over do not count
    (newest / "core.json").chmod(0)
    cut_off(first / "about.json")
    said = worker.refused().rpartition("state_passed_over")[2]
    assert "cannot be used" in said and "put back a copy" in said and "--fresh" in said
    assert f"{newest}/core.json: Permission denied" in said and f"{first}/about.json: " in said

    (shop.folder / "checkpoints" / "shard-0" / "lock").chmod(0)
    assert "Permission denied" in worker.refused()
