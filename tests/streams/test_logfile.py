"""Logs in files: every format gives the same events, and a faulty file gives none."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from online.events import EVENT_TYPES, Event, Item, event_fault
from streams import sample
from streams.codec import encode
from streams.logcheck import refuse_events
from streams.logcolumns import EVENT_COLUMNS, typed_batch
from streams.logfile import NO_FUTURE, EventLog, ItemFile, LogError, Reading

CLICKS = [
    Event(event_id="a", type="click", user_id="u1", item_id="i1", ts=1_000),
    Event(event_id="b", type="cart", user_id="u2", item_id="i1", ts=2_000, price=3.5),
    Event(event_id="c", type="purchase", user_id="u1", item_id="i2", ts=2_000, quantity=2.0),
]


def rows_of(events: list[Event]) -> list[dict[str, Any]]:
    return [
        {
            name: getattr(e, name)
            for name in EVENT_COLUMNS
            if any(getattr(other, name) not in (None, "") for other in events)
        }
        for e in events
    ]


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    rows = [{k: json.dumps(v) if k == "context" and v else v for k, v in r.items()} for r in rows]
    pq.write_table(pa.Table.from_pylist(rows), path)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: json.dumps(v) if isinstance(v, dict) else v for k, v in row.items()}
            )


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], None]] = {
    ".parquet": write_parquet,
    ".csv": write_csv,
    ".jsonl": write_jsonl,
}


def read(path: Path, reading: Reading = Reading(), **options: Any) -> list[Event]:
    with EventLog(path, reading) as log:
        return [event for batch in log.batches(**options) for event in batch]


def fault_of(path: Path, reading: Reading = Reading()) -> str:
    with pytest.raises(LogError) as caught:
        EventLog(path, reading)
    assert str(path) in str(caught.value)
    return str(caught.value)


def packed(path: Path) -> Path:
    out = path.with_name(path.name + ".gz")
    out.write_bytes(gzip.compress(path.read_bytes()))
    return out


ids = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1)
numbers = st.floats(-1e9, 1e9)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**31), 2**31), numbers, texts)


@st.composite
def logs(draw: st.DrawFn) -> list[Event]:
    made = st.builds(
        Event,
        event_id=ids,
        type=st.sampled_from(["click", "view", "cart", "purchase"]),
        user_id=ids,
        item_id=ids,
        ts=st.integers(0, 4_000_000_000_000),
        session_id=st.none() | ids,
        price=st.none() | numbers,
        text=st.none() | texts,
        position=st.none() | st.integers(0, 99_999),
        context=st.none() | st.dictionaries(ids, scalars, min_size=1, max_size=3),
    )
    return draw(st.lists(made, min_size=1, max_size=8))


@pytest.mark.parametrize("suffix", WRITERS)
@given(events=logs(), gz=st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_written_is_read_back_from_every_format(
    suffix: str, events: list[Event], gz: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"log{suffix}"
        WRITERS[suffix](path, rows_of(events))
        got = read(packed(path) if gz else path)
    assert got == sorted(events, key=lambda e: e.ts)


@pytest.mark.parametrize("suffix", WRITERS)
def test_other_names_fixed_values_and_units(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"shop{suffix}"
    rows = [{"customer": 7, "sku": "s1", "when": 1.5}, {"customer": 8, "sku": "s2", "when": 2.25}]
    WRITERS[suffix](path, rows)
    reading = Reading(
        {"user_id": "customer", "item_id": "sku", "ts": "when"}, {"type": "click"}, "s"
    )
    assert read(path, reading) == [
        Event(event_id="shop-0", type="click", user_id="7", item_id="s1", ts=1_500),
        Event(event_id="shop-1", type="click", user_id="8", item_id="s2", ts=2_250),
    ]


@pytest.mark.parametrize(
    ("unit", "value", "ts"),
    [
        ("ms", "1700000000123", 1_700_000_000_123),
        ("s", "1700000000", 1_700_000_000_000),
        ("s", "1700000000.123", 1_700_000_000_123),
        ("us", "1700000000123456", 1_700_000_000_123),
        ("iso", "2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("iso", "2023-11-14 23:13:20.5+01:00", 1_700_000_000_500),
        ("iso", "2023-11-14", 1_699_920_000_000),
        ("iso", "1970-01-01", 0),
    ],
)
def test_times(tmp_path: Path, unit: str, value: str, ts: int) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"type,user_id,item_id,ts\nclick,u,i,{value}\n")
    assert [e.ts for e in read(path, Reading(ts_unit=unit))] == [ts]


def test_parquet_times_carry_their_own_unit(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    row = {"type": ["click"], "user_id": ["u"], "item_id": ["i"]}
    for unit in ("s", "ms", "us", "ns"):
        when = pa.array([1_700_000_000], pa.timestamp("s")).cast(pa.timestamp(unit, "UTC"))
        pq.write_table(pa.table({**row, "ts": when}), path)
        assert [e.ts for e in read(path)] == [1_700_000_000_000]


def test_dictionaries_and_nested_columns_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "n.parquet"
    table = pa.table({
        "type": pa.array(["click"]).dictionary_encode(),
        "user_id": pa.array([12], pa.int32()),
        "item_id": pa.array([b"i"]),
        "ts": [5],
        "context": [{"page": 3, "device": "phone"}],
    })  # fmt: skip
    pq.write_table(table, path)
    assert read(path) == [
        Event(event_id="n-0", type="click", user_id="12", item_id="i", ts=5,
              context={"page": 3, "device": "phone"})
    ]  # fmt: skip


def test_a_log_out_of_order_is_sorted_and_ties_stay_in_file_order(tmp_path: Path) -> None:
    path = tmp_path / "late.jsonl"
    write_jsonl(path, rows_of([CLICKS[1], CLICKS[2], CLICKS[0]]))
    with EventLog(path) as log:
        assert not log.in_order
        assert (log.rows, log.first_ts, log.last_ts) == (3, 1_000, 2_000)
        assert [e.event_id for b in log.batches(2) for e in b] == ["a", "b", "c"]


def test_shuffled_ties_are_seeded_and_move_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "ties.csv"
    events = [
        Event(event_id=str(n), type="click", user_id="u", item_id="i", ts=n // 50)
        for n in range(200)
    ]
    write_csv(path, rows_of(events))
    once, again, other = ([e.event_id for e in read(path, shuffle_ties=seed)] for seed in (1, 1, 2))
    assert once == again != other
    for start in range(0, 200, 50):
        assert set(once[start : start + 50]) == {str(n) for n in range(start, start + 50)}
    assert once[:50] != [str(n) for n in range(50)]


def test_batches_start_and_limit(tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    events = [
        Event(event_id=str(n), type="click", user_id="u", item_id="i", ts=n) for n in range(10)
    ]
    write_csv(path, rows_of(events))
    with EventLog(path) as log:
        sizes = [[e.ts for e in b] for b in log.batches(4, start=3, limit=5)]
    assert sizes == [[3, 4, 5, 6], [7]]


def test_the_sample_reads_as_it_is_in_both_orders() -> None:
    with EventLog(sample.EVENTS) as log:
        assert log.rows == 50_000
        first = next(log.batches(100))
        shuffled = next(log.batches(100, shuffle_ties=3))
    assert len(first) == 100 and first[0].ts == shuffled[0].ts == log.first_ts
    items = list(ItemFile(sample.ITEMS))
    assert all(isinstance(item, Item) and item.title for item in items)


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(
    ("row", "column", "value", "said"),
    [
        (2, "type", "buy", "'buy'; allowed are view, click"),
        (1, "user_id", None, "missing"),
        (3, "ts", -5, "ts=-5"),
        (2, "price", 1e300, "price=1e+300"),
        (3, "item_id", "i" * 300, "300 characters"),
        (2, "user_id", "a\u2028b", "cannot be printed"),
        (1, "item_id", None, "item_id has 0 characters"),
    ],
)
def test_an_invalid_row_is_named(
    tmp_path: Path, suffix: str, row: int, column: str, value: Any, said: str
) -> None:
    rows = rows_of(CLICKS)
    rows[row - 1][column] = value
    path = tmp_path / f"bad{suffix}"
    WRITERS[suffix](path, rows)
    fault = fault_of(path)
    assert f"column '{column}'" in fault and f"row {row}:" in fault and said in fault


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("ts", "yesterday", "--ts-unit"),
        ("ts", "1.5", "whole epoch milliseconds"),
        ("price", "cheap", "numbers are allowed"),
        ("price", "nan", "price=nan"),
        ("position", "2.5", "whole numbers"),
        ("ts", "99999999999999999999", "whole epoch milliseconds"),
        ("context", "{", "truncated"),
        ("context", '{"a": [1]}', "context"),
    ],
)
def test_text_of_the_wrong_type_is_named(
    tmp_path: Path, suffix: str, column: str, value: str, said: str
) -> None:
    rows: list[dict[str, Any]] = [{**r, "position": 1, "context": None} for r in rows_of(CLICKS)]
    rows[1][column] = value
    path = tmp_path / f"bad{suffix}"
    WRITERS[suffix](path, rows)
    fault = fault_of(path)
    assert f"column '{column}'" in fault and "row 2" in fault and said in fault


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("user_id", [1.5, 2.5], "type double"),
        ("price", [True, False], "type bool"),
        ("position", [1.0, 2.5], "row 2"),
        ("ts", [1.0, 2.5], "row 2"),
        ("ts", ["1", "x"], "row 2"),
        ("item_id", [["a"], ["b"]], "list"),
    ],
)
def test_parquet_of_the_wrong_type_is_named(
    tmp_path: Path, column: str, values: list[Any], said: str
) -> None:
    path = tmp_path / "types.parquet"
    table = {"type": ["click"] * 2, "user_id": ["u"] * 2, "item_id": ["i"] * 2, "ts": [1, 2]}
    pq.write_table(pa.table({**table, column: values}), path)
    fault = fault_of(path)
    assert f"'{column}'" in fault and said in fault


def test_invalid_utf8_names_column_and_row(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("type,user_id,item_id,ts\nclick,u,i,1\nclick,käte,i,2\n".encode("latin-1"))
    fault = fault_of(path)
    assert "column 'user_id', row 2" in fault and "not UTF-8" in fault


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"less{suffix}"
    WRITERS[suffix](path, [{"kind": "click", "user_id": "u", "item_id": "i", "ts": 1}])
    fault = fault_of(path)
    assert "no column 'type'" in fault and "kind" in fault and "--set type=VALUE" in fault
    assert read(path, Reading({"type": "kind"}))[0].type == "click"


def test_options_that_name_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    write_csv(path, rows_of(CLICKS))
    for reading in (Reading({"usr": "user_id"}), Reading({}, {"tpye": "click"})):
        with pytest.raises(LogError, match="user_id"):
            EventLog(path, reading)
    assert "no column 'nope'" in fault_of(path, Reading({"price": "nope"}))
    with pytest.raises(LogError, match="s, ms, us, iso"):
        Reading(ts_unit="minutes")


@pytest.mark.parametrize("name", ["e.parquet", "e.csv", "e.jsonl", "e.csv.gz", "e.parquet.gz"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch()
    assert "empty" in fault_of(path)


def test_files_without_rows_are_refused(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("type,user_id,item_id,ts\n")
    (tmp_path / "e.jsonl").write_text("\n\n")
    schema = pa.schema([(n, pa.string()) for n in ("type", "user_id", "item_id", "ts")])
    pq.write_table(schema.empty_table(), tmp_path / "e.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert "it has no rows" in fault_of(path)


@pytest.mark.parametrize("name", ["nope.csv", "."])
def test_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(LogError):
        EventLog(tmp_path / name)
    assert "use .parquet" in fault_of(Path("log.xlsx"))


def whole(suffix: str, folder: Path) -> Path:
    path = folder / f"log{suffix.removesuffix('.gz')}"
    events = [
        Event(event_id=f"e{n}", type="click", user_id=f"u{n % 7}", item_id="i", ts=n, price=n / 8)
        for n in range(40)
    ]
    WRITERS[path.suffix](path, rows_of(events))
    return packed(path) if suffix.endswith(".gz") else path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl", ".csv.gz", ".jsonl.gz"])
def test_a_cut_file_is_refused_wherever_it_was_cut(tmp_path: Path, suffix: str) -> None:
    path = whole(suffix, tmp_path)
    everything = path.read_bytes()
    for share in (0.03, 0.2, 0.5, 0.77, 0.9, 0.97, 0.995):
        cut = everything[: int(len(everything) * share)]
        cut = cut if not cut.endswith(b"\n") else cut[:-1]
        path.write_bytes(cut)
        assert "row" in fault_of(path) or "truncated" in fault_of(path), share


@given(cut=st.integers(1, 3_000))
@settings(max_examples=60, deadline=None)
def test_a_cut_text_file_never_gives_a_row_that_was_not_there(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".csv", ".jsonl"):
            path = whole(suffix, Path(folder))
            events = read(path)
            path.write_bytes(path.read_bytes()[:cut])
            try:
                assert read(path) == events[: len(read(path))]
            except LogError:
                pass


def test_a_damaged_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    table = pq.read_table(sample.EVENTS).slice(0, 5_000)
    pq.write_table(table, path, compression="gzip", use_dictionary=False)
    damaged = bytearray(path.read_bytes())
    damaged[2_000:2_400] = bytes(400)
    path.write_bytes(damaged)
    assert "damaged" in fault_of(path)


def test_a_row_with_too_few_values_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ragged.csv"
    path.write_text("type,user_id,item_id,ts\nclick,u,i,1\nclick,u,i\nclick,u,i,3\n")
    fault = fault_of(path)
    assert "row 2" in fault and "3 columns seen" in fault


def test_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    lines = '\ufefftype,user_id,item_id,ts,text\r\nclick,"u,1",i,1,"two\nlines, ""quoted"""\r\n'
    path.write_bytes(lines.encode("utf-8"))
    assert read(path) == [
        Event(event_id="excel-0", type="click", user_id="u,1", item_id="i", ts=1,
              text='two\nlines, "quoted"')
    ]  # fmt: skip


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    path.write_text("type,user_id,item_id,ts,ts\nclick,u,i,1,2\n")
    assert "'ts' twice" in fault_of(path)


def test_the_future_is_refused_only_if_there_is_a_now(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("type,user_id,item_id,ts\nclick,u,i,5000000000000\n")
    assert len(read(path)) == 1
    with pytest.raises(LogError, match="row 1: ts=5000000000000"):
        EventLog(path, now_ms=1_000)


odd = st.one_of(
    st.text(max_size=5), st.just("x" * 300), st.sampled_from(["\n", "a b", " ", "é", "\x7f"])
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "event_id": odd, "type": st.sampled_from(EVENT_TYPES), "user_id": odd,
                "item_id": odd, "ts": st.integers(-1, 10), "rating": st.none() | st.floats(),
                "query": st.none() | odd, "session_id": st.none() | odd,
            }
        ),
        min_size=1, max_size=5,
    )
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_the_sieve_finds_exactly_the_rows_that_the_rules_refuse(rows: list[dict[str, Any]]) -> None:
    """What the vectorised check lets through is valid by `event_fault`, and nothing else is."""

    class Source:
        path, columns, reading = Path("x.parquet"), EVENT_COLUMNS, Reading()
        theirs = {name: name for name in EVENT_COLUMNS}

    schema = pa.schema([
        (n, {"ts": pa.int64(), "rating": pa.float64()}.get(n, pa.string())) for n in rows[0]
    ])  # fmt: skip
    batch = pa.RecordBatch.from_pylist(rows, schema)
    made = [
        # empty optional text is no text; an empty id is made from the row
        Event(**{**row, "event_id": row["event_id"] or "made",
                 "query": row["query"] or None, "session_id": row["session_id"] or None})
        for row in rows
    ]  # fmt: skip
    wrong = any(event_fault(e, NO_FUTURE) or not e.user_id for e in made)
    try:
        refuse_events(Source.path, 1, typed_batch(Source(), 1, batch), NO_FUTURE)
    except LogError:
        assert wrong
    else:
        assert not wrong


def test_items_in_every_format(tmp_path: Path) -> None:
    items = [
        Item(item_id="1", title="Lamp", price=2.5, tags=["a", "b"], stock=0.0),
        Item(item_id="2", title="Tischläufer", category="c", available_from=7),
    ]
    lines = tmp_path / "i.jsonl"
    lines.write_bytes(b"".join(encode(i) + b"\n" for i in items))
    rows = [json.loads(encode(i)) for i in items]
    table = tmp_path / "i.parquet"
    pq.write_table(
        pa.Table.from_pylist([{**dict.fromkeys(Item.__struct_fields__), **r} for r in rows]), table
    )
    text = tmp_path / "i.csv"
    text.write_text(
        'item_id,title,category,price,tags,stock,available_from\n1,Lamp,,2.5,"[""a"", ""b""]",0,\n'
        "2,Tischläufer,c,,,,7\n"
    )
    for path in (lines, table, text):
        assert list(ItemFile(path)) == items
    text.write_text("item_id,title\n1,Lamp\n,Vase\n")
    with pytest.raises(LogError, match="column 'item_id', row 2"):
        ItemFile(text)


def test_a_long_log_is_read_in_batches_of_bounded_size(tmp_path: Path) -> None:
    path = tmp_path / "long.parquet"
    n = 150_000
    table = pa.table({
        "type": ["view"] * n, "user_id": ["u"] * n, "item_id": ["i"] * n,
        "ts": list(range(n, 0, -1)),
    })  # fmt: skip
    pq.write_table(table, path)
    with EventLog(path) as log:
        seen = last = 0
        for batch in log.batches(10_000):
            assert len(batch) == 10_000
            assert all(a.ts < b.ts for a, b in zip(batch, batch[1:], strict=False))
            assert batch[0].ts > last
            last, seen = batch[-1].ts, seen + len(batch)
    assert seen == n
