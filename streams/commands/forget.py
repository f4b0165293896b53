"""`freshrec forget`: have users forgotten, and see that it is done."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands.common import Failure, UsageFault, note, progress_bar, screen, settings_of
from streams.commands.produce import broker_of
from streams.commands.query import table_of

if TYPE_CHECKING:
    from infra.settings import Settings
    from online.events import Event
    from streams.reader import Reader

LOOK_S = 0.5
MOST = 1_000  # users in one command

Place = tuple[str, int, int]  # topic, partition, offset
_DONE = """SELECT ts, done_ms, produced_ms, events, slates, recommendations, user_vectors,
    dead_letters
FROM live_erasures
WHERE broker_id = {broker:String} AND topic = {topic:String} AND partition = {partition:Int32}
    AND offset = {offset:Int64} AND done_ms > 0"""
_COLUMNS = ("user", "events", "slates", "newest slate", "vector", "refused", "seconds")


def forget(
    users: Annotated[list[str], typer.Argument(metavar="USER…", help="The users' ids.")],
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until all is erased.")
    ] = True,
    timeout: Annotated[
        int, typer.Option(min=1, max=3600, metavar="SECONDS", help="Wait so long at most.")
    ] = 120,
) -> None:
    """Forget users: their histories, vectors, slates and rows in every table.

    What was deleted is shown once the audit row is there (view live_erasures). Users who were
    never seen are no fault. What remains in shared knowledge: docs/privacy.md.

    [dim]freshrec forget ann bob[/dim]
    """
    settings = settings_of()
    events = _events(list(dict.fromkeys(users)))
    places, broker_id = _send(settings, events)
    note(f"{len(events)} to forget: told the workers")
    if not wait:
        return
    from streams.reader import open_reader

    reader = open_reader(settings)
    try:
        rows = _wait(reader, broker_id, [e.user_id for e in events], places, timeout)
    finally:
        reader.close()
    screen().print(table_of(list(_COLUMNS), rows))


def _events(users: Sequence[str]) -> list[Event]:
    from online.events import Event, event_fault

    if len(users) > MOST:
        raise UsageFault(f"{len(users)} users: at most {MOST} at once")
    now_ms = time.time_ns() // 1_000_000
    events = [
        Event(event_id=f"forget-{uuid.uuid4()}", type="forget", user_id=user, ts=now_ms)
        for user in users
    ]
    for event in events:
        fault = event_fault(event, now_ms)
        if fault:
            raise UsageFault(f"USER {event.user_id!r}: {fault}")
    return events


def _send(settings: Settings, events: list[Event]) -> tuple[list[Place], str]:
    """Where the events are in the log, and the id of the broker."""
    from streams.codec import encode
    from streams.producer import Producer
    from streams.status import Running
    from streams.topics import EVENTS, log_of

    broker = broker_of(settings)
    running = Running.load(settings.state) if settings.broker.embedded else None
    broker_id = running.cluster_id if running else log_of(broker).id
    with Producer(broker, EVENTS) as producer:
        # the id as it came: workers replace it by the pseudonym, as they do in every event
        placed = [producer.send_raw(e.user_id.encode(), encode(e)) for e in events]
        delivered = producer.flush()
    if not delivered.ok:
        raise Failure(
            f"{delivered.sent - delivered.confirmed} of {delivered.sent} were not taken by the"
            f" broker: {delivered.first_error or 'no answer in time'}; ask again: to be forgotten"
            " twice does no harm"
        )
    found = [future.get(timeout=1) for future in placed if future is not None]
    return [(f.topic, f.partition, f.offset) for f in found], broker_id


def _wait(
    reader: Reader, broker_id: str, users: list[str], places: list[Place], timeout: int
) -> list[tuple[Any, ...]]:
    rows: dict[str, tuple[Any, ...]] = {}
    deadline = time.monotonic() + timeout
    with progress_bar("users") as bar:
        task = bar.add_task("forgetting", total=len(users), note="")
        while True:
            for user, place in zip(users, places, strict=True):
                if user not in rows and (row := _row(reader, broker_id, user, place)):
                    rows[user] = row
                    bar.advance(task)
            if len(rows) == len(users):
                return [rows[user] for user in users]
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK_S)
    missing = [user for user in users if user not in rows]
    raise Failure(
        f"{len(missing)} of {len(users)} users are not erased after {timeout} s (such as"
        f" {missing[0]!r}): is a worker running, and does its /health say ok? Nothing is lost: it"
        " goes on, also after a restart; see live_erasures"
    )


def _row(reader: Reader, broker_id: str, user: str, place: Place) -> tuple[Any, ...] | None:
    from infra.warehouse_types import WarehouseError
    from streams.sql_client import SqlError

    topic, partition, offset = place
    given = {"broker": broker_id, "topic": topic, "partition": partition, "offset": offset}
    try:
        found = reader.answer(_DONE, **given).rows
    except (SqlError, WarehouseError) as error:
        note(f"freshrec: {error}")  # it may be away for a moment: the time is bounded
        time.sleep(LOOK_S)
        return None
    if not found:
        return None
    _, done_ms, produced_ms, *counts = found[0]
    return (user, *counts, f"{max(0, done_ms - produced_ms) / 1000:.1f}")
