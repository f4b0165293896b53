"""Producers: events and items to Kafka, confirmed by all replicas, faults counted."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaConfigurationError, KafkaError, UnsupportedVersionError

from infra.address import BrokerAddress
from infra.log import get_log
from online.events import Event, Item
from streams.codec import encode
from streams.topics import EVENTS, ITEMS, BrokerUnreachable, refuse, unreachable

log = get_log("producer")

MAX_IN_FLIGHT = 10_000  # records that are sent and not yet confirmed


class DeliveryFailed(RuntimeError):
    """A topic did not take what was sent to it; worth trying again."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of everything sent so far."""

    sent: int
    confirmed: int
    failed: int
    first_error: str | None

    @property
    def ok(self) -> bool:
        return self.failed == 0 and self.confirmed == self.sent


class Producer:
    """Sends raw records to one topic; `send` blocks while too many are unconfirmed.

    Records are confirmed by all in-sync replicas and, where the broker can, written once even if
    a request is repeated (idempotence). A record that could not be delivered is counted in
    `flush()`'s answer with the first error; nothing is lost silently. Thread-safe.
    """

    def __init__(
        self,
        broker: BrokerAddress,
        topic: str,
        max_in_flight: int = MAX_IN_FLIGHT,
        delivery_timeout_s: float = 30.0,
        **options: Any,
    ) -> None:
        self.topic = topic
        self._room = threading.BoundedSemaphore(max_in_flight)
        self._counting = threading.Lock()
        self._sent = self._confirmed = self._failed = self._failed_before = 0
        self._first_error: str | None = None
        self._timeout_s = delivery_timeout_s
        self._kafka = _connect(broker, delivery_timeout_s, options)

    def send_raw(
        self,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int | None = None,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> Any:
        """Queue one record (None as the value deletes the key from a compacted topic).

        Blocks while `max_in_flight` records are unconfirmed. Returns kafka-python's future of the
        record's place, None when it could not be queued.
        """
        if not self._room.acquire(timeout=2 * self._timeout_s):
            raise BrokerUnreachable(
                f"{self.topic}: no record was confirmed for {2 * self._timeout_s:g} s: "
                "is the broker alive?"
            )
        with self._counting:
            self._sent += 1
        try:
            future = self._kafka.send(
                self.topic, value, key=key, timestamp_ms=timestamp_ms, headers=headers
            )
        except (KafkaError, ValueError, TypeError) as error:
            self._failed_with(error)
            return None
        future.add_callback(self._done)
        future.add_errback(self._failed_with)
        return future

    def flush(self, timeout_s: float | None = None) -> Delivered:
        """Wait until everything sent is confirmed or has failed; say what became of it."""
        try:
            self._kafka.flush(timeout_s if timeout_s is not None else 2 * self._timeout_s)
        except KafkaError as error:
            log.warning("flush_incomplete", topic=self.topic, error=str(error))
        return self.delivered()

    def confirm(self) -> None:
        """Flush; raises DeliveryFailed unless all records since the last call were confirmed."""
        outcome = self.flush()
        failed, self._failed_before = outcome.failed - self._failed_before, outcome.failed
        if failed or outcome.confirmed + outcome.failed < outcome.sent:
            error = outcome.first_error or "not confirmed in time"
            raise DeliveryFailed(f"the topic {self.topic} did not take {failed} records: {error}")

    def delivered(self) -> Delivered:
        """The counts right now, without waiting."""
        with self._counting:
            return Delivered(self._sent, self._confirmed, self._failed, self._first_error)

    def close(self, timeout_s: float = 5.0) -> Delivered:
        """Flush, then close. Records still unconfirmed show as neither confirmed nor failed."""
        outcome = self.flush(timeout_s)
        self._kafka.close(timeout_s)
        return outcome

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _done(self, _: Any) -> None:
        with self._counting:
            self._confirmed += 1
        self._room.release()

    def _failed_with(self, error: BaseException) -> None:
        with self._counting:
            self._failed += 1
            self._first_error = self._first_error or f"{type(error).__name__}: {error}"
        self._room.release()


class EventProducer(Producer):
    """Sends events to the topic `events`, keyed by user so that a user's events stay in order."""

    def __init__(self, broker: BrokerAddress, topic: str = EVENTS, **options: Any) -> None:
        super().__init__(broker, topic, **options)

    def send(self, event: Event, timestamp_ms: int | None = None) -> None:
        """Queue one event; `timestamp_ms` is Kafka's timestamp (default: now)."""
        self.send_raw(event.user_id.encode(), encode(event), timestamp_ms)


class ItemProducer(Producer):
    """Announces items on the compacted topic `items`, keyed by item."""

    def __init__(self, broker: BrokerAddress, topic: str = ITEMS, **options: Any) -> None:
        super().__init__(broker, topic, **options)

    def send(self, item: Item) -> None:
        """Queue one item: it is added to the catalogue, or changed."""
        self.send_raw(item.item_id.encode(), encode(item))

    def withdraw(self, item_id: str) -> None:
        """Queue a tombstone: the item leaves the catalogue."""
        self.send_raw(item_id.encode(), None)


def _connect(
    broker: BrokerAddress, delivery_timeout_s: float, options: dict[str, Any]
) -> KafkaProducer:
    refuse(broker)
    timeout_ms = int(delivery_timeout_s * 1000)
    wanted: dict[str, Any] = {
        **broker.client_options(),
        "acks": "all",
        "linger_ms": 20,
        "batch_size": 65_536,
        "delivery_timeout_ms": timeout_ms,
        "request_timeout_ms": min(timeout_ms // 2, 30_000),
        "max_block_ms": timeout_ms,
        "bootstrap_timeout_ms": 10_000,
        "allow_auto_create_topics": False,
        **options,
    }
    try:
        try:
            return KafkaProducer(enable_idempotence=True, **wanted)
        except (KafkaConfigurationError, UnsupportedVersionError) as error:
            log.warning("no_idempotence", broker=str(broker), reason=str(error))
            return KafkaProducer(enable_idempotence=False, **wanted)
    except (KafkaError, OSError) as error:
        cure = "start it, correct FRESHREC_BROKER, or start `freshrec up`"
        raise unreachable(broker, error, cure) from None
