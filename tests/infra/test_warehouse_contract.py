"""What every warehouse does, asked of each of them."""

from __future__ import annotations

import pytest

from infra.rows import Announcement, DeadLetter, dead_letter_rows, item_rows
from infra.warehouse import SchemaTooNew, Warehouse, WarehouseError
from online.events import Item
from online.step import Metric, PastEvent, Step
from streams.demo_watch import METRICS
from tests.infra.samples import BROKER, delivery, slate, write


def slots(warehouse: Warehouse, user: str = "ann") -> list[tuple[object, ...]]:
    return warehouse.query(
        "SELECT position, item_id, slate_id FROM live_recommendations "
        "WHERE user_id = %(user)s ORDER BY position",
        {"user": user},
    ).rows


def test_migrating_twice_applies_nothing_the_second_time(warehouse: Warehouse) -> None:
    assert warehouse.migrate() == []


def test_a_newer_schema_is_refused_with_the_cure(warehouse: Warehouse) -> None:
    warehouse.insert(
        "schema_migrations", ["number", "name", "applied_ms"], [(9999, "9999_later", 0)]
    )
    with pytest.raises(SchemaTooNew, match="9999_later.*update freshrec"):
        warehouse.migrate()


def test_a_recommendation_row_tells_all_about_itself(warehouse: Warehouse) -> None:
    write(warehouse, Step(slates=[slate(3)]), written_ms=5_040)
    answer = warehouse.query("SELECT * FROM live_recommendations WHERE position = 2")
    row = dict(zip(answer.columns, answer.rows[0], strict=True))
    event_time, written_time = row.pop("event_time"), row.pop("written_time")
    assert row == {
        "user_id": "ann", "position": 2, "item_id": "b", "score": 0.9,
        "reason": "because of it's b", "source": "popularity", "propensity": 1.0,
        "slate_id": "s3", "model_version": "model-1", "ts": 1_003, "produced_ms": 5_003,
        "written_ms": 5_040, "freshness_ms": 37,
    }  # fmt: skip
    assert (event_time.isoformat(), written_time.isoformat()) == (
        "1970-01-01T00:00:01+00:00",
        "1970-01-01T00:00:05+00:00",
    )


def test_the_newest_slate_is_shown_before_parts_merge(warehouse: Warehouse) -> None:
    write(warehouse, Step(slates=[slate(1, items=("a", "b", "c"))]))
    write(warehouse, Step(slates=[slate(2, items=("x", "y"))]))
    assert slots(warehouse) == [(1, "x", "s2"), (2, "y", "s2")]  # also when it is shorter


def test_an_older_slate_that_arrives_late_changes_nothing(warehouse: Warehouse) -> None:
    write(warehouse, Step(slates=[slate(2, items=("x", "y"))]))
    write(warehouse, Step(slates=[slate(1)]))
    assert slots(warehouse) == [(1, "x", "s2"), (2, "y", "s2")]


def test_writing_a_step_again_changes_nothing_but_the_time(warehouse: Warehouse) -> None:
    step = Step(
        accepted=[delivery(n) for n in range(5)],
        slates=[slate(4)],
        metrics=[Metric("hr@10", 0.5, 5, 1_004)],
    )
    tables = ("events", "recommendations", "slates", "metrics", "items", "dead_letters")
    counts = []
    for written_ms in (9_000, 9_500):
        write(warehouse, step, written_ms=written_ms)
        warehouse.query("SELECT 1")
        counts.append(
            [warehouse.query(f"SELECT count() FROM {t} FINAL").rows[0][0] for t in tables]
            + [warehouse.query(f"SELECT count() FROM live_{t}").rows[0][0] for t in tables]
        )
    assert counts[0] == counts[1] == [5, 1, 1, 1, 0, 0] + [5, 3, 3, 1, 0, 0]
    assert [e.event_id for e in warehouse.read(["ann"], {}, 9)["ann"]] == [
        "e0", "e1", "e2", "e3", "e4",
    ]  # fmt: skip


def test_every_slate_ever_made_stays(warehouse: Warehouse) -> None:
    for n in range(4):
        write(warehouse, Step(slates=[slate(n)]))
    answer = warehouse.query("SELECT slate_id, count() FROM live_slates GROUP BY slate_id")
    assert sorted(answer.rows) == [("s0", 3), ("s1", 3), ("s2", 3), ("s3", 3)]


def test_an_empty_slate_hides_the_one_before(warehouse: Warehouse) -> None:
    write(warehouse, Step(slates=[slate(1)]))
    write(warehouse, Step(slates=[slate(2, items=())]))
    assert slots(warehouse) == []


def test_metrics_show_the_newest_value_of_each_name(warehouse: Warehouse) -> None:
    for n, value in ((1, 0.25), (2, 0.5)):
        metrics = [Metric("hr@10", value, n, 1_000 + n), Metric("mrr@10", value / 2, n, 1_000 + n)]
        write(warehouse, Step(accepted=[delivery(n)], metrics=metrics), batch=n)
    rows = warehouse.query("SELECT name, value, count, ts FROM live_metrics ORDER BY name").rows
    assert rows == [("hr@10", 0.5, 2, 1_002), ("mrr@10", 0.25, 2, 1_002)]


def test_the_demos_mean_leaves_out_what_nothing_was_measured_on(warehouse: Warehouse) -> None:
    metrics = [Metric("hr@10", 0.5, 2, 1_001), Metric("encoder_hr@10", 0.0, 0, 1_001)]
    write(warehouse, Step(accepted=[delivery(1)], metrics=metrics))
    assert warehouse.query(METRICS).rows == [("hr@10", 0.5)]


def test_a_history_is_the_newest_events_oldest_first(warehouse: Warehouse) -> None:
    late = delivery(9, ts=1_001, session_id="s")
    write(warehouse, Step(accepted=[*(delivery(n) for n in range(4)), late, delivery(5, "bob")]))
    histories = warehouse.read(["ann", "bob", "nobody"], {}, 4)
    assert [e.event_id for e in histories["ann"]] == ["e1", "e9", "e2", "e3"]  # a tie: by arrival
    assert histories["ann"][1] == PastEvent("e9", "click", "i9", 1_001, "s")
    assert len(histories["bob"]) == 1 and "nobody" not in histories


def test_a_history_leaves_out_what_the_batch_itself_brings(warehouse: Warehouse) -> None:
    write(warehouse, Step(accepted=[delivery(n) for n in range(6)]))
    write(warehouse, Step(accepted=[delivery(8, event_id="old")]), broker="broker-0")
    histories = warehouse.read(["ann"], {("events", 0): 2, ("events", 1): 0, ("odd'", 0): 0}, 10)
    assert [e.event_id for e in histories["ann"]] == ["e0", "e1", "old"]


def test_an_event_sent_twice_is_once_in_the_history(warehouse: Warehouse) -> None:
    again = delivery(7, event_id="e0", ts=1_000)
    write(warehouse, Step(accepted=[delivery(0), delivery(1), again]))
    assert [e.event_id for e in warehouse.read(["ann"], {}, 10)["ann"]] == ["e0", "e1"]


def test_histories_of_nobody(warehouse: Warehouse) -> None:
    assert warehouse.read([], {("events", 0): 4}, 10) == {}


def test_every_field_of_an_event_survives(warehouse: Warehouse) -> None:
    nasty = 'it\'s\\ "q"\t\n é 漢 %(x)s %s \0'
    full = delivery(
        1, session_id="s", price=1.5, quantity=2.0, rating=4.0, query=nasty, text="",
        slate_id="sl", position=3, context={"device": "ph'one", "n": 2, "f": None},
    )  # fmt: skip
    write(warehouse, Step(accepted=[full, delivery(2)]), batch=7)
    answer = warehouse.query(
        "SELECT price, quantity, rating, query, text, slate_id, position, context, broker_id, "
        "topic, partition, offset, produced_ms, batch, batch_pos, written_ms "
        "FROM live_events ORDER BY offset"
    )
    assert answer.rows == [
        (1.5, 2.0, 4.0, nasty, "", "sl", 3, '{"device":"ph\'one","n":2,"f":null}', BROKER,
         "events", 0, 1, 5_001, 7, 0, 9_000),
        (None, None, None, None, None, "", None, "", BROKER,
         "events", 0, 2, 5_002, 7, 1, 9_000),
    ]  # fmt: skip


def test_dead_letters_keep_the_bytes_as_they_came(warehouse: Warehouse) -> None:
    raw = [b"\xff\x00'\\\xfe", b"", "é".encode()]
    letters = [DeadLetter("events", 0, n, 5, "decode: bad \udc80", r) for n, r in enumerate(raw)]
    for _ in range(2):
        for block in dead_letter_rows(letters, BROKER, 9_000):
            warehouse.insert(*block)
    rows = warehouse.query("SELECT hex(raw), reason FROM live_dead_letters ORDER BY offset").rows
    assert [bytes.fromhex(r[0]) for r in rows] == raw
    assert rows[0][1] == "decode: bad \\udc80"
    read = warehouse.query("SELECT raw FROM live_dead_letters ORDER BY offset").rows
    assert [r[0] for r in read][1:] == ["", "é"]


def test_the_catalogue_is_what_was_announced_last(warehouse: Warehouse) -> None:
    lamp = Item(
        item_id="lamp", title="Lamp", category="home", brand="B", price=2.5, description="d",
        tags=["a", "b'"], stock=3.0, available_from=12,
    )  # fmt: skip
    told: list[tuple[str, Item | None]] = [
        ("vase", Item(item_id="vase", title="old")),
        ("gone", Item(item_id="gone")),
        ("lamp", lamp),
        ("gone", None),
        ("vase", Item(item_id="vase", title="new")),
    ]
    said = [Announcement(i, item, "items", 0, n, 100) for n, (i, item) in enumerate(told)]
    for announcement in (*said[3:], *said[:3]):  # the order of writing does not matter
        for block in item_rows([announcement], BROKER, 9_000):
            warehouse.insert(*block)
    assert warehouse.catalogue() == [lamp, Item(item_id="vase", title="new")]
    titles = warehouse.query("SELECT title FROM live_items ORDER BY title").rows
    assert titles == [("Lamp",), ("new",)]


@pytest.mark.parametrize(
    "value",
    ["", "x' OR '1'='1", "\\", "\\'", "';DROP TABLE events;--", "a\0b", "\b\t\n\r", "%(v)s", "%",
     "é漢🙂", "\u2028", "{v:String}", "/*", "' || sleep(3) || '", 0, -1, 1 << 62, 0.1, True],
)  # fmt: skip
def test_a_parameter_is_a_value_whatever_it_holds(warehouse: Warehouse, value: object) -> None:
    answer = warehouse.query("SELECT %(v)s AS v, [%(v)s] AS list WHERE 5 %% 3 = 2", {"v": value})
    expected = int(value) if isinstance(value, bool) else value
    assert answer.rows == [(expected, [expected])]


def test_lists_bind_as_arrays_and_tuples_as_sets(warehouse: Warehouse) -> None:
    parameters = {"a": ["x", "y'"], "t": ("p", "q\\")}
    answer = warehouse.query("SELECT %(a)s AS a, 'q\\\\' IN %(t)s AS found", parameters)
    assert answer.rows == [(["x", "y'"], 1)]


@pytest.mark.parametrize("value", [b"bytes", object(), {"a": 1}, [b"x"], "\ud800"])
def test_a_parameter_that_cannot_be_bound_is_refused(warehouse: Warehouse, value: object) -> None:
    with pytest.raises(WarehouseError, match="parameter v"):
        warehouse.query("SELECT %(v)s", {"v": value})


def test_a_missing_parameter_is_named(warehouse: Warehouse) -> None:
    with pytest.raises(WarehouseError, match="'b'.*no value"):
        warehouse.query("SELECT %(b)s", {"a": 1})


def test_an_answer_without_rows_still_has_columns(warehouse: Warehouse) -> None:
    answer = warehouse.query("SELECT user_id, ts FROM events WHERE ts = 5")
    assert answer == (["user_id", "ts"], [])


def test_a_wrong_query_says_what_and_why(warehouse: Warehouse) -> None:
    with pytest.raises(WarehouseError, match="nonsense") as caught:
        warehouse.query("SELECT nonsense FROM events")
    assert caught.value.code == 47
    assert warehouse.query("SELECT 1").rows == [(1,)]


def test_an_insert_that_does_not_fit_is_refused_whole(warehouse: Warehouse) -> None:
    columns = ["name", "value"]
    with pytest.raises(WarehouseError):
        warehouse.insert("metrics", columns, [("good", 1.0), ("bad", "not a number")])
    with pytest.raises(WarehouseError):
        warehouse.insert("metrics", columns, [("good", 1.0), ("short",)])
    with pytest.raises(WarehouseError):
        warehouse.insert("no_such_table", columns, [("good", 1.0)])
    with pytest.raises(WarehouseError):
        warehouse.insert("metrics", ["name", "no_such_column"], [("good", 1.0)])
    warehouse.insert("metrics", columns, [])
    assert warehouse.query("SELECT count() FROM metrics").rows == [(0,)]
    warehouse.insert("metrics", columns, [("fine", 1.0)])
    assert warehouse.query("SELECT name FROM metrics").rows == [("fine",)]


def test_numbers_beyond_the_ordinary_survive(warehouse: Warehouse) -> None:
    values = [float("inf"), -float("inf"), 1e308]
    rows = [(f"m{n}", v, n) for n, v in enumerate([*values, float("nan")])]
    warehouse.insert("metrics", ["name", "value", "ts"], rows)
    read = [r[0] for r in warehouse.query("SELECT value FROM metrics ORDER BY ts").rows]
    assert read[:3] == values and read[3] != read[3]
