"""A step's rows: deterministic keys, the journal first."""

from __future__ import annotations

import itertools

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from infra.rows import DEAD_LETTERS, EVENTS, BatchId, DeadLetter, dead_letter_rows, rows_of, version
from online.events import Event
from online.step import Metric, Reject, Step
from tests.infra.samples import delivery, slate

MS = st.integers(0, (1 << 42) - 1)


def full_step() -> Step:
    return Step(
        accepted=[delivery(1), delivery(2, "bob")],
        slates=[slate(1), slate(2, "bob")],
        rejects=[Reject(delivery(3, price=1.0), "invalid: because")],
        metrics=[Metric("hr@10", 0.5, 2, 1_002)],
    )


def test_the_journal_comes_first_and_nothing_is_empty() -> None:
    blocks = rows_of(full_step(), BatchId("b", 1), 9)
    assert [b[0] for b in blocks] == [
        "events", "slates", "recommendations", "metrics", "dead_letters",
    ]  # fmt: skip
    assert all(len(row) == len(columns) for _, columns, rows in blocks for row in rows)
    assert rows_of(Step(duplicates=3), BatchId("b", 1), 9) == []


def test_only_the_time_of_writing_differs_between_two_writings() -> None:
    first = rows_of(full_step(), BatchId("b", 1), 10)
    second = rows_of(full_step(), BatchId("b", 1), 20)
    for (_, columns, before), (_, _, after) in zip(first, second, strict=True):
        at = columns.index("written_ms")
        for a, b in itertools.zip_longest(before, after):
            assert (a[at], b[at]) == (10, 20)
            assert a[:at] + a[at + 1 :] == b[:at] + b[at + 1 :]


def test_a_reject_keeps_its_bytes_or_is_encoded_again() -> None:
    place = ("events", 0, 3)
    kept = rows_of(full_step(), BatchId("b", 1), 9, {place: b"{as it came}"})[-1][2][0]
    assert kept[DEAD_LETTERS.index("raw")] == b"{as it came}"
    again = rows_of(full_step(), BatchId("b", 1), 9)[-1][2][0]
    event = msgspec.json.decode(again[DEAD_LETTERS.index("raw")], type=Event)
    assert event == delivery(3, price=1.0).event


def test_a_batch_without_events_still_keys_its_metrics() -> None:
    step = Step(metrics=[Metric("lag", 1.0, 0, 5)])
    one = rows_of(step, BatchId("b", 1), 9)[0][2][0]
    two = rows_of(step, BatchId("b", 2), 9)[0][2][0]
    assert one != two


def test_a_dead_letter_is_cut_at_a_mebibyte() -> None:
    letter = DeadLetter("events", 0, 1, 0, "decode: huge", b"x" * (2 << 20))
    row = dead_letter_rows([letter], "b", 9)[0][2][0]
    assert len(row[DEAD_LETTERS.index("raw")]) == 1 << 20


def test_events_have_a_column_for_every_field() -> None:
    read = {"sentiment"}  # of the text, which has a column
    assert set(Event.__struct_fields__) - read < set(EVENTS)


@given(MS, st.integers(0, 1 << 40), MS, st.integers(0, 1 << 20))
def test_versions_order_messages_as_the_log_does(
    produced: int, offset: int, later: int, step: int
) -> None:
    if later > produced:
        assert version(later, 0) > version(produced, offset)
    near = offset % (1 << 22) + step < 1 << 22
    if step and near:
        assert version(produced, offset + step) > version(produced, offset)


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, (1 << 63) - 1))
def test_versions_fit_in_64_bits(produced: int, offset: int) -> None:
    assert 0 <= version(produced, offset) < 1 << 64
