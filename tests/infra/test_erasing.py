"""Forgetting users in the warehouse, on either engine: theirs is gone, everybody else's stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import erasing
from infra.checkpoints import CheckpointsError
from infra.erasing import Forget
from infra.erasures import Erasures, erasure_key
from infra.rows import DeadLetter, dead_letter_rows
from infra.warehouse import Warehouse
from online.events import Delivery, Event
from online.step import PastEvent, Step, Vector
from tests.infra.samples import BROKER, delivery, slate, write

KEY = b"k" * 32
TABLES = ("events", "slates", "recommendations", "user_vectors")


def forget(n: int, user: str = "ann", ts: int = 500) -> Delivery:
    return Delivery(Event(event_id=f"bye{n}", type="forget", user_id=user, ts=ts), "events", 0, n,
                    5_000 + n)  # fmt: skip


def vector(n: int, user: str) -> Vector:
    return Vector("user_vectors", user, b"\0\0\x80?", 1, 1_000 + n, 5_000 + n, "events", 0, n)


def letter(n: int, raw: bytes) -> DeadLetter:
    return DeadLetter("events", 0, n, 5_000 + n, "undecodable: no", raw)


def shop(warehouse: Warehouse) -> None:
    """ann, who asks to be forgotten by a message with an early time, and bob."""
    past = Step(
        accepted=[delivery(1), delivery(2, "bob"), delivery(3)],
        slates=[slate(1), slate(2, "bob"), slate(3)],
        vectors=[vector(1, "ann"), vector(2, "bob")],
    )
    write(warehouse, past)
    write(warehouse, Step(accepted=[delivery(4), forget(5), delivery(6, "bob")]), batch=2)
    letters = [
        letter(10, b'{"user_id": "anna", "text": "for ann"}'), letter(0, b'{"user_id": "ann"'),
        letter(7, b'{"user_id": "ann"}'), letter(8, b"[1, 2]"),
        DeadLetter("events", 1, 0, 1, "", b'{"user_id": "ann"}'),
    ]  # fmt: skip
    for table, columns, rows in dead_letter_rows(letters, BROKER, 9_000):
        warehouse.insert(table, columns, rows)


def users(warehouse: Warehouse, table: str) -> list[str]:
    sql = f"SELECT DISTINCT user_id FROM {table} ORDER BY user_id"
    return [user for (user,) in warehouse.query(sql).rows]


def erase(warehouse: Warehouse, erasures: Erasures) -> list[Forget]:
    forgets = erasing.pending(warehouse)
    begun = erasing.begin(warehouse, erasures, forgets)
    erasing.erase(warehouse, forgets)
    erasing.record(warehouse, erasures, [one._replace(done_ms=9_999) for one in begun])
    return forgets


def test_all_of_a_user_goes_and_the_others_stay(warehouse: Warehouse) -> None:
    shop(warehouse)
    erasures = Erasures(warehouse, KEY)
    forgets = erase(warehouse, erasures)
    for table in TABLES[1:]:
        assert users(warehouse, table) == ["bob"]
    kept = "SELECT partition, offset FROM dead_letters ORDER BY offset"
    assert warehouse.query(kept).rows == [(0, 7), (0, 8), (0, 10)]  # 7 came after the `forget`
    assert erasing.pending(warehouse) == forgets  # the `forget` itself goes last
    erasing.finish(warehouse, forgets)
    assert users(warehouse, "events") == ["bob"]
    ((user_hash, ts, done_ms, *counts),) = warehouse.query(
        "SELECT user_hash, ts, done_ms, events, slates, recommendations, user_vectors,"
        " dead_letters FROM live_erasures"
    ).rows
    assert (ts, done_ms, counts) == (1_004, 9_999, [3, 2, 1, 1, 2])
    assert user_hash == erasures.hash("ann") != Erasures(warehouse, b"x" * 32).hash("ann")


def test_an_erasure_that_is_begun_again_says_the_same(warehouse: Warehouse) -> None:
    shop(warehouse)
    erasures = Erasures(warehouse, KEY)
    forgets = erasing.pending(warehouse)
    (first,) = erasing.begin(warehouse, erasures, forgets)
    erasing.erase(warehouse, forgets)  # and then the worker dies
    again = Erasures(warehouse, KEY)
    again.refresh()
    assert again.moments(["ann", "bob"]) == {"ann": 1_004}
    assert erasing.begin(warehouse, again, forgets) == [first]
    erasing.record(warehouse, again, [first._replace(done_ms=7)])
    assert erasing.begin(warehouse, again, forgets) == [first._replace(done_ms=7)]


def test_who_is_back_keeps_what_came_after(warehouse: Warehouse) -> None:
    shop(warehouse)
    back = Step(accepted=[delivery(8)], slates=[slate(8)], vectors=[vector(8, "ann")])
    write(warehouse, back, batch=3)
    erasures = Erasures(warehouse, KEY)
    before = warehouse.read(["ann"], {}, 9)["ann"]
    erasing.finish(warehouse, erase(warehouse, erasures))
    for table in TABLES:
        rows = warehouse.query(f"SELECT offset FROM {table} WHERE user_id = 'ann'").rows
        assert rows == [(8,)], table
    erasures.refresh()
    after = erasures.begin(warehouse.read(["ann"], {}, 9))["ann"]
    assert before[0] == PastEvent("bye5", "forget", "", 1_004)
    assert after[0] == PastEvent("", "forget", "", 1_004)
    assert before[1:] == after[1:] and [e.event_id for e in after[1:]] == ["e8"]


def test_no_query_as_long_as_nobody_was_forgotten(chdb_warehouse: Warehouse) -> None:
    erasures = Erasures(chdb_warehouse, KEY)
    assert erasures.refresh() == []
    chdb_warehouse.close()
    assert erasures.begin({"ann": []}) == {"ann": []}
    assert not erasures.repeated(forget(1).event)


def test_more_forgotten_users_than_are_remembered(chdb_warehouse: Warehouse) -> None:
    names = [f"u{n}" for n in range(30)]
    writing = Erasures(chdb_warehouse, KEY)
    forgets = [Forget(u, u, n, BROKER, "events", 0, n, 1, 1, n) for n, u in enumerate(names)]
    erasing.begin(chdb_warehouse, writing, forgets)
    reading = Erasures(chdb_warehouse, KEY, remembered=10)
    reading.refresh()
    assert reading.moments([*names, "bob"]) == {u: n for n, u in enumerate(names)}


def test_the_very_same_forget_is_recognised(chdb_warehouse: Warehouse) -> None:
    shop(chdb_warehouse)
    erasures = Erasures(chdb_warehouse, KEY)
    erase(chdb_warehouse, erasures)
    erasures.refresh()
    assert erasures.repeated(forget(5).event)
    assert not erasures.repeated(forget(6).event)


def test_awkward_ids_are_values_not_sql(warehouse: Warehouse) -> None:
    awkward = 'o\'neil\\ "é" %(x)s'
    raw = b'{"user_id": "o\'neil\\\\ \\"\\u00e9\\" %(x)s"}'
    for table, columns, rows in dead_letter_rows([letter(0, raw)], BROKER, 9):
        warehouse.insert(table, columns, rows)
    write(warehouse, Step(accepted=[delivery(1, awkward), delivery(2, "bob"), forget(3, awkward)]))
    erasing.finish(warehouse, erase(warehouse, Erasures(warehouse, KEY)))
    assert users(warehouse, "events") == ["bob"]
    assert warehouse.query("SELECT count() FROM dead_letters").rows == [(0,)]


def test_statements_do_not_name_the_user_afterwards(chdb_warehouse: Warehouse) -> None:
    shop(chdb_warehouse)
    erasing.finish(chdb_warehouse, erase(chdb_warehouse, Erasures(chdb_warehouse, KEY)))
    commands = chdb_warehouse.query("SELECT command FROM system.mutations").rows
    assert not [text for (text,) in commands if "ann" in text]


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    key = erasure_key(tmp_path)
    assert erasure_key(tmp_path) == key and len(key) == 64
    path = tmp_path / "erasure.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    path.write_text("short")
    with pytest.raises(CheckpointsError, match=r"erasure.key has a key of 5 bytes.*put back"):
        erasure_key(tmp_path)
