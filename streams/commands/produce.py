"""`freshrec produce`: a log, or single events, to Kafka."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands.common import (
    Failure,
    Map,
    Set,
    TsUnit,
    UsageFault,
    note,
    progress_bar,
    reading_of,
    settings_of,
)

if TYPE_CHECKING:
    from infra.address import BrokerAddress
    from infra.settings import Settings
    from online.events import Event
    from streams.producer import Delivered, Producer


def produce(
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE]", help="Parquet, CSV or JSONL (.gz); - reads JSON lines."),
    ] = None,
    event: Annotated[
        list[str] | None,
        typer.Option(metavar="JSON", help="One event; event_id and ts are filled in; repeatable."),
    ] = None,
    topic: Annotated[str, typer.Option(help="events, or items for a catalogue.")] = "events",
    speed: Annotated[
        str | None,
        typer.Option(metavar="N|Nx", help="N events/s, or Nx as fast as the log's time."),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="ROW|TIME", help="Row (from 1) or ISO time.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most N records.")] = None,
    rename: Map = None,
    fixed: Set = None,
    ts_unit: TsUnit = "ms",
) -> None:
    """Send a log of events, a catalogue, or single events to Kafka.

    A file is checked whole before its first row is sent. Every record is confirmed by the
    broker; the exit code is 1 if one is not.

    [dim]freshrec produce clicks.parquet --speed 500[/dim]

    [dim]freshrec produce items.csv --topic items[/dim]

    [dim]freshrec produce --event '{"type": "click", "user_id": "ann", "item_id": "22423"}'[/dim]
    """
    if (file is None) == (not event):
        raise UsageFault("name a FILE, - for standard input, or --event JSON (one of them)")
    if topic not in ("events", "items"):
        raise UsageFault(f"--topic {topic}: use events or items")
    pace = pace_of(speed)
    if file is None or file == "-":
        if topic == "items" or start or rename or fixed:
            raise UsageFault("--topic items, --from, --map and --set need a FILE")
        texts: Iterable[str | bytes] = event or sys.stdin.buffer
        _send_single(texts, limit, pace)
    elif topic == "items":
        _send_items(Path(file), limit, reading_of(rename, fixed, ts_unit))
    else:
        _send_log(Path(file), start, limit, pace, reading_of(rename, fixed, ts_unit))


GIVE_UP = 100  # failed records after which the rest is not tried any more

Pace = Callable[[int, int], float]  # (records sent, ts) → seconds after the first when it is due


def pace_of(speed: str | None) -> Pace:
    """When a record is due, in seconds after the start.

    >>> pace_of("500")(1000, 0)
    2.0
    >>> pace = pace_of("10x"); pace(0, 50_000), pace(1, 60_000)
    (0.0, 1.0)
    """
    if speed is None:
        return lambda sent, ts: 0.0
    matched = re.fullmatch(r"(\d+(?:\.\d+)?)(x?)", speed.strip())
    number = float(matched[1]) if matched else 0.0
    if not matched or number <= 0:
        raise UsageFault(f"--speed {speed}: use 500 (events a second) or 10x (of the log's time)")
    if not matched[2]:
        return lambda sent, ts: sent / number
    return EventTimePace(number)


class EventTimePace:
    """Keeps the distances of the log's own times, divided by `factor`."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._first_ts: int | None = None

    def __call__(self, sent: int, ts: int) -> float:
        if self._first_ts is None:
            self._first_ts = ts
        return (ts - self._first_ts) / 1000 / self._factor


def _send_log(path: Path, start: str | None, limit: int | None, pace: Pace, reading: Any) -> None:
    from streams.logfile import EventLog
    from streams.producer import EventProducer

    now_ms = int(time.time() * 1000)
    with EventLog(path, reading, now_ms) as log:
        if not log.in_order:
            note(f"{path} is not in the order of ts: it is sorted first")
        skip = _rows_before(log, start)
        total = min(log.rows - skip, limit or log.rows)
        if total <= 0:
            raise Failure(f"--from {start}: {path} has {log.rows} rows, none is left")
        batches = log.batches(512, start=skip, limit=limit)
        with EventProducer(_broker()) as producer:
            _send(producer, (e for b in batches for e in b), total, pace, str(path))


def _rows_before(log: Any, start: str | None) -> int:
    """How many rows, in ts order, come before `start`."""
    if start is None:
        return 0
    if start.isascii() and start.isdigit():
        if int(start) < 1:
            raise UsageFault("--from 0: rows are counted from 1")
        return int(start) - 1
    try:
        when = datetime.fromisoformat(start)
    except ValueError as e:
        raise UsageFault(
            f"--from {start}: use a row such as 1000, or a time such as 2011-01-31T12:00"
        ) from e
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    since_ms = when.timestamp() * 1000
    return sum(event.ts < since_ms for batch in log.batches(4096) for event in batch)


def _send_items(path: Path, limit: int | None, reading: Any) -> None:
    from streams.logfile import ItemFile
    from streams.producer import ItemProducer

    items = ItemFile(path, reading)
    batches = items.batches(512, limit)
    total = min(items.rows, limit or items.rows)
    with ItemProducer(_broker()) as producer:
        _send(producer, (i for b in batches for i in b), total, pace_of(None), str(path))


def _send_single(texts: Iterable[str | bytes], limit: int | None, pace: Pace) -> None:
    import itertools

    from streams.producer import EventProducer
    from streams.single import SingleFault, completed

    def events() -> Iterator[Event]:
        lines = (t for t in texts if t.strip())
        for row, text in enumerate(itertools.islice(lines, limit), 1):
            yield completed(text, row, int(time.time() * 1000))

    given = events()
    try:
        if isinstance(texts, list):  # all are known: check them before the first is sent
            given = iter(list(given))
        with EventProducer(_broker()) as producer:
            try:
                _send(producer, given, None, pace, "the events")
            except SingleFault as e:
                sent = producer.flush()
                raise SingleFault(f"{e}; {sent.confirmed} events before it were sent") from e
    except SingleFault as e:
        raise Failure(str(e)) from e


def _broker() -> BrokerAddress:
    return broker_of(settings_of())


def broker_of(settings: Settings) -> BrokerAddress:
    """Where to send; its topics exist afterwards. Raises Failure."""
    from streams.status import reachable_broker
    from streams.topics import ensure_topics

    broker = reachable_broker(settings)
    if broker is None:
        raise Failure(
            f"no worker runs with the state folder {str(settings.state)!r}, and the embedded broker"
            " lives in it: start freshrec up first, or set FRESHREC_BROKER=kafka://host:port"
        )
    ensure_topics(broker, settings.partitions, settings.replication, settings.max_record_bytes)
    return broker


def _send(
    producer: Producer, records: Iterable[Any], total: int | None, pace: Pace, what: str
) -> None:
    """Send all, wait for their confirmation, and say what became of them."""
    send: Callable[[Any], None] = producer.send  # type: ignore[attr-defined]
    began = time.monotonic()
    try:
        with progress_bar("sent") as bar:
            task = bar.add_task(f"{what} → {producer.topic}", total=total, note="")
            for sent, record in enumerate(records):
                _wait_until(began + pace(sent, getattr(record, "ts", 0)))
                send(record)
                if sent % 64 == 63:
                    bar.advance(task, 64)
                    failed = producer.delivered().failed
                    bar.update(task, note=f"({failed} failed)" if failed else "")
                    if failed >= GIVE_UP:
                        note(f"{failed} records failed: the rest is not sent")
                        break
    finally:  # also after Ctrl-C: what was sent is confirmed and counted
        delivered = producer.flush()
        _conclude(delivered, producer.topic, time.monotonic() - began)
    if not delivered.ok:
        raise Failure(
            f"{delivered.sent - delivered.confirmed} of {delivered.sent} records were not"
            f" confirmed: {delivered.first_error or 'no answer in time'}; send them again"
            " (events that arrived are recognised by their event_id)"
        )


def _wait_until(due: float) -> None:
    while (seconds := due - time.monotonic()) > 0:
        time.sleep(min(seconds, 1.0))


def _conclude(delivered: Delivered, topic: str, seconds: float) -> None:
    rate = f" ({delivered.confirmed / seconds:,.0f}/s)" if delivered.confirmed > 100 else ""
    lost = delivered.sent - delivered.confirmed
    note(f"{delivered.confirmed:,} delivered to topic {topic}{rate}, {lost:,} failed")
