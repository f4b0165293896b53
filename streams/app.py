"""The Faust app: configured for batches, fresh fetches and our own acknowledgements."""

from __future__ import annotations

import logging

import faust
from faust.auth import SASLCredentials, SSLCredentials
from yarl import URL

from infra.address import BrokerAddress
from infra.settings import Settings
from streams.consumer import FreshTransport
from streams.refusal import tls_context

SESSION_TIMEOUT_S = 6  # the embedded broker answers a join only after half of it
HEARTBEAT_S = 1
COMMIT_INTERVAL_S = 1.0
METADATA_MS = 10_000  # so soon are partitions read that were added to a topic
POLL_INTERVAL_S = 86_400  # a warehouse that is away pauses us for long; that is not a dead worker


def make_app(settings: Settings, broker: BrokerAddress) -> faust.App:
    """A Faust app without tables, web server or leader topic. Call inside a running event loop.

    `broker` is where the broker really is (`settings.broker` may say `embedded`).
    """
    urls = [URL(f"kafka://{server}") for server in broker.servers]
    app = faust.App(
        settings.group,
        broker=urls,
        broker_credentials=_credentials(broker),
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=HEARTBEAT_S,
        broker_commit_interval=COMMIT_INTERVAL_S,
        broker_max_poll_interval=POLL_INTERVAL_S,
        consumer_auto_offset_reset="earliest",
        consumer_metadata_max_age_ms=METADATA_MS,
        consumer_max_fetch_size=max(1_048_576, 2 * settings.max_record_bytes),
        key_serializer="raw",
        value_serializer="raw",
        stream_buffer_maxsize=max(1024, 2 * settings.batch),
        stream_wait_empty=False,  # True acks too late: it deadlocks a rebalance
        topic_disable_leader=True,
        topic_partitions=settings.partitions,
        topic_allow_declare=False,  # `streams.topics` makes them, with their own settings
        web_enabled=False,
        web_tables_enabled=False,
        store="memory://",
        datadir=str(settings.state / "faust"),
        autodiscover=False,
    )
    transport = FreshTransport(urls, app)
    transport.fetch_max_wait_ms = settings.fetch_wait_ms
    app.transport = transport
    for name in ("faust", "mode", "aiokafka"):  # they speak at INFO about every step
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("faust.transport.drivers.aiokafka").setLevel(logging.ERROR)
    return app


def _credentials(broker: BrokerAddress) -> SASLCredentials | SSLCredentials | None:
    context = tls_context(broker)
    if broker.sasl_mechanism:
        return SASLCredentials(
            username=broker.username,
            password=broker.password,
            mechanism=broker.sasl_mechanism,
            ssl_context=context,
        )
    return SSLCredentials(context) if context is not None else None
