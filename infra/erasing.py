"""Deleting a forgotten user's rows from every table, and the audit row that remains."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from infra.erasures import Erasures
from infra.rows import version
from infra.warehouse_types import Warehouse, WarehouseError, WarehouseUnavailable

AT_ONCE = 50  # users whose rows one statement deletes
MOST_PENDING = 10_000  # that are read at once
LETTERS_AT_ONCE = 500
MUTATION_S = 120.0  # how long one may take before it is looked at again
LOOK_S = 0.05
COUNTED = ("events", "slates", "recommendations", "user_vectors", "dead_letters")
ERASURES = (
    "user_hash", "forget_hash", "key_id", "ts", "done_ms", *COUNTED, "broker_id", "topic",
    "partition", "offset", "produced_ms", "version", "written_ms",
)  # fmt: skip

# Rows that were made before the `forget`: of its own partition, by offset. What lies elsewhere (a
# broker before, a message with a stranger's key) was journalled before it, or it goes in any case.
_HERE = "(broker_id = %(b{n})s AND topic = %(t{n})s AND partition = %(p{n})s)"
_EVENTS = (
    "(user_id = %(u{n})s AND type != 'forget' AND if({here}, offset < %(o{n})s, "
    "batch < %(batch{n})s OR (batch = %(batch{n})s AND batch_pos < %(pos{n})s)))"
)
_DERIVED = "(user_id = %(u{n})s AND NOT ({here} AND offset > %(o{n})s))"
_QUEUED = "(user_id = %(u{n})s AND type = 'forget' AND {here} AND offset = %(o{n})s)"
_LETTER = "({here} AND offset = %(o{n})s)"

_PENDING = """SELECT user_id, event_id, ts, broker_id, topic, partition, offset, produced_ms, batch,
    batch_pos FROM events WHERE type = 'forget'
ORDER BY batch, batch_pos LIMIT 1 BY broker_id, topic, partition, offset LIMIT %(limit)s"""
_BEGUN = """SELECT ts, done_ms, events, slates, recommendations, user_vectors, dead_letters
FROM erasures FINAL WHERE user_hash = %(user)s AND broker_id = %(b0)s AND topic = %(t0)s
    AND partition = %(p0)s AND offset = %(o0)s"""
_LETTERS = """SELECT broker_id, topic, partition, offset, raw FROM dead_letters FINAL
WHERE (position(raw, %(plain)s) > 0 OR position(raw, %(escaped)s) > 0)
    AND NOT ({here} AND offset > %(o0)s)
    AND (broker_id, topic, partition, offset) > (%(lb)s, %(lt)s, %(lp)s, %(lo)s)
ORDER BY broker_id, topic, partition, offset LIMIT %(limit)s"""
_UNDONE = """SELECT count() FROM system.mutations
WHERE database = currentDatabase() AND table = %(table)s AND NOT is_done"""


class Forget(NamedTuple):
    """A `forget` event that was learned: its place, and whose past ends there."""

    user_id: str
    event_id: str
    ts: int
    broker_id: str
    topic: str
    partition: int
    offset: int
    produced_ms: int
    batch: int
    batch_pos: int

    @property
    def place(self) -> tuple[str, str, int, int]:
        return self.broker_id, self.topic, self.partition, self.offset


class Erasure(NamedTuple):
    """What is known of one: enough for its audit row."""

    forget: Forget
    ts: int  # the newest event time that is forgotten
    counts: tuple[int, ...]  # rows of COUNTED
    done_ms: int = 0


def pending(warehouse: Warehouse) -> list[Forget]:
    """Erasures that are not finished: the rows of their `forget` events go last."""
    rows = warehouse.query(_PENDING, {"limit": MOST_PENDING}).rows
    return [Forget(*row) for row in rows]


def begin(warehouse: Warehouse, erasures: Erasures, forgets: Sequence[Forget]) -> list[Erasure]:
    """Count what there is, and say for good up to when all is forgotten, before anything goes."""
    begun = [_begun(warehouse, erasures, forget) for forget in forgets]
    record(warehouse, erasures, [one for one in begun if not one.done_ms])
    return begun


def _begun(warehouse: Warehouse, erasures: Erasures, forget: Forget) -> Erasure:
    condition, given = _condition(_EVENTS, [forget])
    sql = f"SELECT count(), max(ts) FROM events FINAL WHERE {condition}"
    ((events, newest),) = warehouse.query(sql, given).rows
    condition, given = _condition(_DERIVED, [forget])
    derived = [
        warehouse.query(f"SELECT count() FROM {table} FINAL WHERE {condition}", given).rows[0][0]
        for table in COUNTED[1:4]
    ]
    counts = (events, *derived, len(letters_of(warehouse, forget)))
    given = _places([forget]) | {"user": erasures.hash(forget.user_id)}
    ts, done_ms = max(forget.ts, newest if events else 0), 0
    for before, done, *counted in warehouse.query(_BEGUN, given).rows:
        ts, done_ms = max(ts, before), done
        counts = tuple(map(max, counts, counted))
    return Erasure(forget, ts, counts, done_ms)


def erase(warehouse: Warehouse, forgets: Sequence[Forget]) -> None:
    """Delete all rows of these users but those of the `forget` events, and wait for it."""
    letters = [place for forget in forgets for place in letters_of(warehouse, forget)]
    for some in _parts(letters):
        condition, given = _conditions(_LETTER, [_numbered(n, *p) for n, p in enumerate(some)])
        delete(warehouse, "dead_letters", condition, given)
    for some in _parts(forgets):
        condition, given = _condition(_DERIVED, some)
        for table in ("user_vectors", "recommendations", "slates"):
            delete(warehouse, table, condition, given)
        delete(warehouse, "events", *_condition(_EVENTS, some))


def finish(warehouse: Warehouse, forgets: Sequence[Forget]) -> None:
    """Delete the rows of the `forget` events, too: these erasures are done."""
    for some in _parts(forgets):
        delete(warehouse, "events", *_condition(_QUEUED, some))


def is_back(warehouse: Warehouse, user_id: str) -> bool:
    """Whether there is a slate of the user (a newer one, once the older ones are deleted)."""
    sql = "SELECT count() FROM recommendations WHERE user_id = %(user)s"
    return bool(warehouse.query(sql, {"user": user_id}).rows[0][0])


def record(warehouse: Warehouse, erasures: Erasures, some: Iterable[Erasure]) -> None:
    """Write the audit rows as they are now."""
    now_ms = time.time_ns() // 1_000_000
    rows = [
        (erasures.hash(f.user_id), erasures.forget_hash(f.event_id), erasures.key_id, ts, done_ms,
         *counts, *f.place, f.produced_ms, version(now_ms, int(done_ms > 0)), now_ms)
        for f, ts, counts, done_ms in some
    ]  # fmt: skip
    warehouse.insert("erasures", ERASURES, rows)


# -- rows ----------------------------------------------------------------------------------------


def delete(warehouse: Warehouse, table: str, condition: str, given: dict[str, Any]) -> None:
    """Delete rows and wait until none is left. Raises WarehouseUnavailable: try again."""
    _settled(warehouse, table)
    count = f"SELECT count() FROM {table} WHERE {condition}"
    if not warehouse.query(count, given).rows[0][0]:
        return
    warehouse.query(f"ALTER TABLE {table} DELETE WHERE {condition}", given)
    _settled(warehouse, table)
    left = warehouse.query(count, given).rows[0][0]
    if left:
        raise WarehouseUnavailable(f"{left} rows of {table} that were deleted are still there")
    # A statement that is done would name the user in system.mutations. Old servers keep it.
    with contextlib.suppress(WarehouseError):
        warehouse.query(
            "KILL MUTATION WHERE database = currentDatabase() AND table = %(table)s AND is_done",
            {"table": table},
        )


def _settled(warehouse: Warehouse, table: str) -> None:
    """Wait until all mutations of a table are done."""
    deadline = time.monotonic() + MUTATION_S
    while warehouse.query(_UNDONE, {"table": table}).rows[0][0]:
        if time.monotonic() > deadline:
            raise WarehouseUnavailable(
                f"a mutation of {table} is not done after {MUTATION_S:g} s: see system.mutations"
            )
        time.sleep(LOOK_S)


def _condition(template: str, forgets: Sequence[Forget]) -> tuple[str, dict[str, Any]]:
    return _conditions(template, [_numbered(n, *f.place, f) for n, f in enumerate(forgets)])


def _conditions(template: str, given: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    texts = [template.format(n=n, here=_HERE.format(n=n)) for n in range(len(given))]
    return " OR ".join(texts), {name: value for one in given for name, value in one.items()}


def _numbered(
    n: int, broker_id: str, topic: str, partition: int, offset: int, forget: Forget | None = None
) -> dict[str, Any]:
    given = {f"b{n}": broker_id, f"t{n}": topic, f"p{n}": partition, f"o{n}": offset}
    if forget is not None:
        given |= {f"u{n}": forget.user_id, f"batch{n}": forget.batch, f"pos{n}": forget.batch_pos}
    return given


def _places(forgets: Sequence[Forget]) -> dict[str, Any]:
    return _condition(_EVENTS, forgets)[1]


def _parts(some: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(some), AT_ONCE):
        yield some[start : start + AT_ONCE]


# -- dead letters --------------------------------------------------------------------------------


def letters_of(warehouse: Warehouse, forget: Forget) -> list[tuple[str, str, int, int]]:
    """Places of the dead letters that name the user."""
    user = forget.user_id
    sql = _LETTERS.format(here=_HERE.format(n=0))
    given = {**_places([forget]), "plain": user, "escaped": json.dumps(user)[1:-1]}
    last: tuple[Any, ...] = ("", "", -1, -1)
    found = []
    while True:
        after = dict(zip(("lb", "lt", "lp", "lo"), last, strict=True))
        rows = warehouse.query(sql, {**given, **after, "limit": LETTERS_AT_ONCE}).rows
        found += [tuple(place) for *place, raw in rows if names(raw, user)]
        if len(rows) < LETTERS_AT_ONCE:
            return found
        last = rows[-1][:4]


def names(raw: str | bytes, user_id: str) -> bool:
    """Whether a refused record is about the user, not about one whose id merely contains it.

    >>> names('{"user_id": "ann"}', "ann"), names('{"user_id": "anna"}', "ann"), names("ann", "ann")
    (True, False, True)
    """
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return bool(re.search(rf"(?<!\w){re.escape(user_id)}(?!\w)", text))
    if isinstance(record, dict) and isinstance(record.get("user_id"), str):
        return bool(record["user_id"] == user_id)
    return any(value == user_id for value in _strings(record))


def _strings(value: Any) -> Iterator[str]:
    """All strings and numbers in a JSON value, as text."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        else:
            yield str(one)
