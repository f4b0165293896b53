"""What only the embedded warehouse does: one owner of a directory, and what survives a crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.chdb_warehouse import ChdbWarehouse
from infra.warehouse import WarehouseError, WarehouseLocked, connect
from online.step import Step
from tests.infra.samples import delivery, slate, write

ROOT = Path(__file__).parents[2]
OTHER = """
import sys
from infra.chdb_warehouse import ChdbWarehouse
from online.step import Step
from tests.infra.samples import delivery, slate, write
warehouse = ChdbWarehouse(sys.argv[1])
warehouse.migrate()
write(warehouse, Step(accepted=[delivery(1)], slates=[slate(1)]))
print("open", flush=True)
sys.stdin.read()
"""


def other_process(folder: Path) -> subprocess.Popen[bytes]:
    """A process that has opened the warehouse, written into it, and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"open\n"
    return process


def test_a_directory_in_use_is_refused_and_taken_over_after_a_crash(tmp_path: Path) -> None:
    process = other_process(tmp_path)
    try:
        with pytest.raises(WarehouseLocked) as caught:
            ChdbWarehouse(tmp_path)
        for word in (str(tmp_path), f"pid {process.pid}", "stop it"):
            assert word in str(caught.value)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    warehouse = ChdbWarehouse(tmp_path)
    try:
        assert warehouse.migrate() == []
        assert warehouse.query("SELECT count() FROM live_events").rows == [(1,)]
        assert warehouse.query("SELECT count() FROM live_recommendations").rows == [(3,)]
        assert (tmp_path / "freshrec.lock").read_text() == str(os.getpid())
    finally:
        warehouse.close()


def test_rows_survive_closing_and_opening(tmp_path: Path) -> None:
    for n in range(2):
        warehouse = connect(f"chdb://{tmp_path}/shop")
        warehouse.migrate()
        write(warehouse, Step(accepted=[delivery(n)], slates=[slate(n)]))
        rows = warehouse.query("SELECT count() FROM live_events").rows
        warehouse.close()
        assert rows == [(n + 1,)]


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WarehouseError, match=f"{tmp_path}/file/x.*name one"):
        ChdbWarehouse(tmp_path / "file" / "x")


def test_a_lock_that_cannot_be_made_says_the_cure(tmp_path: Path) -> None:
    (tmp_path / "freshrec.lock").mkdir()
    with pytest.raises(WarehouseError, match="name a directory that this user may write"):
        ChdbWarehouse(tmp_path)


def test_two_warehouses_in_one_process_are_refused_clearly(tmp_path: Path) -> None:
    warehouse = ChdbWarehouse(tmp_path / "one")
    try:
        with pytest.raises(WarehouseLocked):
            ChdbWarehouse(tmp_path / "one")
        with pytest.raises(WarehouseError, match=f"{tmp_path}/two"):
            ChdbWarehouse(tmp_path / "two")
    finally:
        warehouse.close()
    ChdbWarehouse(tmp_path / "two").close()


def test_old_slates_expire_and_histories_do_not(chdb_warehouse: ChdbWarehouse) -> None:
    """Retention by the time of writing, on engines that know TTL."""
    long_ago, today = 1_000_000_000_001, 4_000_000_000_000
    for n, written_ms in ((1, long_ago), (2, today)):
        step = Step(accepted=[delivery(n)], slates=[slate(n)])
        write(chdb_warehouse, step, written_ms=written_ms)
    for table in ("slates", "events", "recommendations"):
        chdb_warehouse.query(f"OPTIMIZE TABLE {table} FINAL")
    count = chdb_warehouse.query(
        "SELECT (SELECT count() FROM slates), (SELECT count() FROM events), "
        "(SELECT count() FROM recommendations)"
    )
    assert count.rows == [(1, 2, 1)]
