"""Whatever bytes come, the codec gives a record or a reason."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from online.events import Event, Item
from streams.codec import Fault, decode_event, decode_item, encode

LIMIT = 10_000
GOOD = Event(event_id="e", type="click", user_id="u", item_id="i", ts=1)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\xff\xfe", b"[]", b"null", b"42", b'"text"', b"{", b"{}", b"\x00" * 50,
        b'{"event_id":"e"}',
        b'{"event_id":"e","type":"like","user_id":"u","ts":1}',
        b'{"event_id":"e","type":"click","user_id":"u","ts":"now"}',
        b'{"event_id":"e","type":"click","user_id":"u","ts":1.5}',
        b'{"event_id":"e","type":"click","user_id":"u","ts":NaN}',
        b'{"event_id":"e","type":"click","user_id":"u","ts":1e999}',
        b'{"event_id":"e","type":"click","user_id":"u","ts":1,"price":Infinity}',
        b'{"event_id":"e","type":"click","user_id":"u","ts":1,"price":"1"}',
        b'{"event_id":"e","type":"click","user_id":"u","ts":1,"context":[1]}',
        b'{"event_id":"e","type":"click","user_id":"u","ts":1,"context":{"a":[]}}',
        b'{"event_id":"e","type":"click","user_id":"u\xff","ts":1}',
        b'{"event_id":"e","type":"click","user_id":"\\ud800","ts":1}',
        b'{"event_id":"e","type":"click","user_id":"u","ts":1} trailing',
        b'{"x":' * 1500, b"[" * 9000,
    ],
)  # fmt: skip
def test_what_is_no_event_gets_a_reason(raw: bytes) -> None:
    fault = decode_event(raw, LIMIT)
    assert isinstance(fault, Fault)
    assert fault.reason.startswith("undecodable: ")


def test_a_missing_value_and_a_huge_one_get_a_reason() -> None:
    assert decode_event(None, LIMIT) == Fault("undecodable: the record has no value")
    assert decode_event(b" " * (LIMIT + 1), LIMIT) == Fault(
        f"too_large: {LIMIT + 1} bytes; at most {LIMIT} are allowed"
    )


def test_unknown_fields_are_no_fault() -> None:
    raw = encode(GOOD)[:-1] + b',"shop":{"deep":[[1]]}}'
    assert decode_event(raw, LIMIT) == GOOD


INTEGERS = st.integers(-(2**63), 2**63 - 1)


@given(st.text(max_size=50), st.dictionaries(st.text(max_size=9), INTEGERS | st.text()))
def test_events_survive_the_round_trip(text: str, context: dict[str, int | str]) -> None:
    event = Event(event_id="e", type="search", user_id="u", ts=5, query=text, context=context)
    assert decode_event(encode(event), 1_000_000) == event


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**64, 10**400])
@pytest.mark.parametrize(
    ("field", "name"), [("ts", "ts"), ("position", "position"), ("context", "context.age")]
)
def test_integers_that_no_column_holds_get_a_reason(number: int, field: str, name: str) -> None:
    value = {"size": 1, "age": number} if field == "context" else number
    record = {"event_id": "e", "type": "click", "user_id": "u", "item_id": "i", "ts": 1}
    raw = json.dumps({**record, field: value}).encode()
    said = f"invalid: {name} is an integer of more than 64 bits"
    assert decode_event(raw, LIMIT) == Fault(said)


def test_items_survive_the_round_trip() -> None:
    item = Item(item_id="i", title="Lantern ✨", tags=["a", "b"], price=2.5, stock=0)
    assert decode_item(encode(item), LIMIT) == item


def test_damaged_events_never_raise() -> None:
    rng = random.Random(7)
    whole = encode(Event(**{**{f: getattr(GOOD, f) for f in GOOD.__struct_fields__},
                            "context": {"a": 1, "b": "x"}, "price": 1.5}))  # fmt: skip
    for _ in range(10_000):
        raw = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        del raw[rng.randrange(len(raw)) :]
        assert isinstance(decode_event(bytes(raw), LIMIT), Event | Fault)
