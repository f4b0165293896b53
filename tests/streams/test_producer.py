"""Topics and producers against the real embedded broker."""

from __future__ import annotations

import logging

import pytest

from infra.address import BrokerAddress
from infra.broker import EmbeddedBroker
from online.events import Event, Item
from streams.producer import DeliveryFailed, EventProducer, ItemProducer, Producer
from streams.topics import EVENTS, TOPICS, BrokerUnreachable, connect_admin, ensure_topics, log_of


def event(n: int) -> Event:
    return Event(event_id=f"e{n}", type="click", user_id=f"u{n % 9}", item_id="i", ts=n)


def test_topics_get_the_configured_partitions_once(
    address: BrokerAddress, caplog: pytest.LogCaptureFixture
) -> None:
    assert ensure_topics(address, partitions=3) == dict.fromkeys(TOPICS, 3)
    with caplog.at_level(logging.WARNING, logger="freshrec"):
        assert ensure_topics(address, partitions=5) == dict.fromkeys(TOPICS, 3)
    assert any(r.message == "partitions_differ" for r in caplog.records)


def test_a_log_is_named_by_its_cluster_and_its_topic(
    broker: EmbeddedBroker, address: BrokerAddress
) -> None:
    assert log_of(address) == (f"{broker.cluster_id}/none", {})
    ensure_topics(address, 2)
    first = log_of(address)
    assert first == log_of(address) and first.id.startswith(f"{broker.cluster_id}/")
    assert first.partitions == dict.fromkeys(TOPICS, 2)
    admin = connect_admin(address)
    admin.delete_topics([EVENTS])
    admin.close()
    ensure_topics(address, 2)
    assert log_of(address).id not in (first.id, f"{broker.cluster_id}/none")


def test_everything_sent_is_confirmed(address: BrokerAddress) -> None:
    ensure_topics(address, 2)
    with EventProducer(address, max_in_flight=100) as events, ItemProducer(address) as items:
        for n in range(1000):
            events.send(event(n))
        items.send(Item(item_id="i"))
        items.withdraw("i")
        assert events.flush().ok and events.delivered().confirmed == 1000
        assert items.flush().confirmed == 2


def test_what_could_not_be_delivered_is_counted_and_said(address: BrokerAddress) -> None:
    ensure_topics(address, 1)
    with Producer(address, EVENTS, max_request_size=2000) as producer:
        producer.send_raw(b"u", b"x" * 5000)
        producer.send_raw(b"u", b"fits")
        outcome = producer.flush()
        assert (outcome.sent, outcome.confirmed, outcome.failed) == (2, 1, 1)
        assert outcome.first_error is not None and "TooLarge" in outcome.first_error
        assert not outcome.ok
        with pytest.raises(DeliveryFailed):
            producer.confirm()
        producer.confirm()  # nothing new failed


def test_no_broker_is_said_with_a_cure() -> None:
    nowhere = BrokerAddress.at("127.0.0.1:1")
    with pytest.raises(BrokerUnreachable, match="FRESHREC_BROKER"):
        ensure_topics(nowhere, 1)
