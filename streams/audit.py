"""Was every message of the log counted, once? A reading of the broker against the warehouse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from infra.address import BrokerAddress
from online.events import Event
from streams.codec import Fault, decode_event
from streams.reader import Reader
from streams.topics import EVENTS, BrokerUnreachable

POLL_MS = 500
AT_ONCE = 5_000
SHOWN = 10  # examples of each fault
PATIENCE = 20  # polls without an answer

_ROWS = """SELECT offset, count() AS rows FROM {view}
WHERE broker_id = {{broker:String}} AND topic = {{topic:String}}
    AND partition = {{partition:Int32}} AND offset >= {{first:Int64}} AND offset < {{last:Int64}}
GROUP BY offset"""

_IDS = """SELECT DISTINCT event_id FROM live_events
WHERE user_id IN {users:Array(String)} AND event_id IN {events:Array(String)}"""


@dataclass
class Audit:
    """What became of the messages of a log, partition by partition."""

    messages: int = 0
    counted: int = 0  # in `events`
    refused: int = 0  # in `dead_letters`
    repeated: int = 0  # the same event_id, counted at another offset
    erased: int = 0  # of users who asked to be forgotten
    missing: list[str] = field(default_factory=list)  # topic/partition/offset
    doubled: list[str] = field(default_factory=list)
    lost: int = 0  # how many are missing in all
    double: int = 0

    @property
    def whole(self) -> bool:
        return not self.lost and not self.double


class Auditor:
    """Reads the topic `events` from its beginning. Raises BrokerUnreachable, WarehouseError."""

    def __init__(
        self, broker: BrokerAddress, broker_id: str, reader: Reader, max_record_bytes: int,
        pseudonym: Callable[[str], str] = lambda user: user,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:  # fmt: skip
        """broker_id: as rows have it; pseudonym: of a user's id, as the worker makes it."""
        self._broker, self._broker_id = broker, broker_id
        self._reader = reader
        self._unseen: dict[str, list[tuple[int, int]]] = {}  # by user: partition, offset
        self._forgotten: set[str] = set()
        self._bytes = max_record_bytes
        self._pseudonym = pseudonym
        self._progress = progress
        self._audit = Audit()

    def run(self) -> Audit:
        """Account for every message that is in the log now and was in it when this began."""
        try:
            consumer = KafkaConsumer(
                **self._broker.client_options(),
                enable_auto_commit=False,
                bootstrap_timeout_ms=5_000,
            )
            try:
                self._read(consumer)
            finally:
                consumer.close()
        except (KafkaError, OSError, ValueError) as error:
            raise BrokerUnreachable(
                f"the topic {EVENTS} cannot be read from {self._broker} "
                f"({type(error).__name__}: {error}): is the broker up, and may this user read?"
            ) from error
        self._settle()
        return self._audit

    def _read(self, consumer: KafkaConsumer) -> None:
        places = [
            TopicPartition(EVENTS, p) for p in sorted(consumer.partitions_for_topic(EVENTS) or ())
        ]
        first, last = consumer.beginning_offsets(places), consumer.end_offsets(places)
        total = sum(last[place] - first[place] for place in places)
        for place in places:
            consumer.assign([place])
            consumer.seek(place, first[place])
            self._read_place(consumer, place, last[place], total)

    def _read_place(
        self, consumer: KafkaConsumer, place: TopicPartition, last: int, total: int
    ) -> None:
        """Up to `last` and, since a broker may tell of an end too soon, a little beyond."""
        at, silent = 0, 0
        while silent < (PATIENCE if at < last else 1) and at < last + AT_ONCE:
            found = consumer.poll(timeout_ms=POLL_MS, max_records=AT_ONCE).get(place, [])
            silent = 0 if found else silent + 1
            if found:
                self._account(place.partition, [(r.offset, r.value) for r in found])
                at = found[-1].offset + 1
                self._progress(self._audit.messages, max(total, self._audit.messages))

    def _account(self, partition: int, records: list[tuple[int, bytes | None]]) -> None:
        """Of some messages of one partition, in order."""
        between = {"partition": partition, "first": records[0][0], "last": records[-1][0] + 1}
        events, letters = (
            self._rows("live_events", **between),
            self._rows("live_dead_letters", **between),
        )
        unseen: list[int] = []
        told = {offset: decode_event(value, self._bytes) for offset, value in records}
        self._forgotten |= {
            e.user_id for e in told.values() if not isinstance(e, Fault) and e.type == "forget"
        }
        for offset in told:
            rows = events.get(offset, 0) + letters.get(offset, 0)
            self._audit.messages += 1
            self._audit.counted += offset in events
            self._audit.refused += offset in letters and offset not in events
            if rows > 1:
                self._audit.double += 1
                _show(self._audit.doubled, partition, offset)
            elif not rows:
                unseen.append(offset)
        self._look_for(partition, {offset: told[offset] for offset in unseen})

    def _look_for(self, partition: int, unseen: dict[int, Event | Fault]) -> None:
        """A message without a row is fine when its event was counted at another offset."""
        events = {n: e for n, e in unseen.items() if not isinstance(e, Fault)}
        known: set[str] = set()
        if events:
            users = sorted({self._pseudonym(e.user_id) for e in events.values()})
            ids = sorted({e.event_id for e in events.values()})
            known = {row[0] for row in self._reader.answer(_IDS, users=users, events=ids).rows}
        for offset in unseen:
            event = events.get(offset)
            if event is not None and event.event_id in known:
                self._audit.repeated += 1
            else:
                user = event.user_id if event is not None else ""
                self._unseen.setdefault(user, []).append((partition, offset))

    def _settle(self) -> None:
        """What is nowhere was erased, if its user asked for that in the log, or is lost.

        Of what cannot be decoded nobody knows the user: as many as were erased may be gone.
        """
        nameless = self._unseen.get("", [])
        if nameless:
            ((letters,),) = self._reader.answer("SELECT sum(dead_letters) FROM live_erasures").rows
            self._audit.erased += min(len(nameless), int(letters))
            self._unseen[""] = nameless[int(letters) :]
        for user, places in self._unseen.items():
            if user and user in self._forgotten:
                self._audit.erased += len(places)
                continue
            self._audit.lost += len(places)
            for partition, offset in places:
                _show(self._audit.missing, partition, offset)

    def _rows(self, view: str, **between: int) -> dict[int, int]:
        sql = _ROWS.format(view=view)
        place = {"broker": self._broker_id, "topic": EVENTS}
        return {int(n): int(rows) for n, rows in self._reader.answer(sql, **place, **between).rows}


def _show(examples: list[str], partition: int, offset: int) -> None:
    if len(examples) < SHOWN:
        examples.append(f"{EVENTS}/{partition}/{offset}")
