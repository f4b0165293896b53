"""The topics: their names, how they are kept, and their creation with the right partitions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import NamedTuple

from kafka import KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

from infra.address import BrokerAddress
from infra.log import get_log
from streams.refusal import why_refused

log = get_log("topics")

EVENTS = "events"  # key: user_id
ITEMS = "items"  # key: item_id, compacted
RECOMMENDATIONS = "recommendations"  # key: user_id, compacted
DEAD_LETTERS = "dead-letters"
MODEL_UPDATES = "model-updates"  # key: the shard that speaks; see streams.updates
TOPICS = (EVENTS, ITEMS, RECOMMENDATIONS, DEAD_LETTERS, MODEL_UPDATES)
UPDATES_KEPT_MS = 24 * 3_600_000  # a worker that was away for longer misses what others learned
COMPACTED = frozenset({ITEMS, RECOMMENDATIONS})


LOOK_MS = 2_000
MISSING = 3  # Kafka's UNKNOWN_TOPIC_OR_PARTITION


class Log(NamedTuple):
    """What offsets belong to: the topic `events` of one cluster, until one of them is made anew."""

    id: str
    partitions: dict[str, int]  # of each topic that is there


class BrokerUnreachable(RuntimeError):
    """No broker answers; the message names the address and the cure."""


class BrokerRefusal(BrokerUnreachable):
    """A broker is there, and does not let us in (or we do not trust it): waiting does not help."""


def refuse(broker: BrokerAddress) -> None:
    """Raises BrokerRefusal or BrokerUnreachable if TLS or the login fails; nothing if all is well.

    A broker that is away is left to the client, which waits for it.
    """
    if broker.security_protocol == "PLAINTEXT":
        return
    refused = why_refused(broker)
    if refused is not None:
        kind = BrokerRefusal if refused.final else BrokerUnreachable
        raise kind(f"{broker}: {refused.reason}")


def unreachable(broker: BrokerAddress, error: Exception, cure: str) -> BrokerUnreachable:
    """The exception for a client that could not connect."""
    refused = why_refused(broker)
    if refused is not None:
        return BrokerUnreachable(f"{broker}: {refused.reason}")
    return BrokerUnreachable(
        f"no Kafka broker answers at {broker} ({type(error).__name__}: {error}): {cure}"
    )


def ensure_topics(
    broker: BrokerAddress, partitions: int, replication: int = 1, max_record_bytes: int = 1_000_000
) -> dict[str, int]:
    """Create the topics that are missing; return each topic's number of partitions.

    Topics that exist are left as they are: another number of partitions is only said in the log,
    since changing it would move users to other partitions. Raises BrokerUnreachable.
    """
    admin = connect_admin(broker)
    try:
        existing = set(admin.list_topics())
        for name in TOPICS:
            if name not in existing:
                _create(admin, name, partitions, replication, max_record_bytes)
        found = _partitions(admin)
    except KafkaError as error:
        raise BrokerUnreachable(
            f"{broker} refused to create or list topics ({error}): create {', '.join(TOPICS)} "
            "yourself, or give the user of FRESHREC_BROKER the right to"
        ) from error
    finally:
        admin.close()
    for name, count in found.items():
        if count != partitions:
            log.warning("partitions_differ", topic=name, found=count, configured=partitions,
                        cure="set FRESHREC_PARTITIONS to what is there")  # fmt: skip
    return found


def connect_admin(broker: BrokerAddress, timeout_ms: int = 5_000) -> KafkaAdminClient:
    """kafka-python's admin client. Raises BrokerUnreachable with the cure."""
    refuse(broker)
    try:
        return KafkaAdminClient(**broker.client_options(), bootstrap_timeout_ms=timeout_ms)
    except (KafkaError, OSError, ValueError) as error:
        cure = "start it, correct FRESHREC_BROKER, or use FRESHREC_BROKER=embedded"
        raise unreachable(broker, error, cure) from None


def log_of(broker: BrokerAddress) -> Log:
    """What is there now. Raises BrokerUnreachable."""
    admin = connect_admin(broker, LOOK_MS)
    try:
        cluster = str(admin.describe_cluster().get("cluster_id") or broker)
        described = {t["name"]: t for t in admin.describe_topics(list(TOPICS))}
    except (KafkaError, OSError) as error:
        raise BrokerUnreachable(f"{broker} does not answer: {error}") from error
    finally:
        admin.close()
    events = described.get(EVENTS, {"error_code": MISSING})
    if events["error_code"] not in (0, MISSING):  # its leader is being elected, say
        raise BrokerUnreachable(f"{broker} does not know {EVENTS} now: {events['error_code']}")
    made = "none" if events["error_code"] else str(events.get("topic_id") or "")
    known = made.strip("0-") != ""  # older brokers give topics no ids
    partitions = {n: len(t["partitions"]) for n, t in described.items() if not t["error_code"]}
    return Log(f"{cluster}/{made}" if known else cluster, partitions)


async def takes_connections(broker: BrokerAddress, timeout_s: float = 2.0) -> bool:
    """Whether one of the broker's servers takes a connection right now."""
    for server in broker.servers:
        host, _, port = server.rpartition(":")
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(timeout_s):
                _, connection = await asyncio.open_connection(host.strip("[]"), int(port))
            connection.close()
            return True
    return False


def _create(
    admin: KafkaAdminClient, name: str, partitions: int, replication: int, max_record_bytes: int
) -> None:
    configs = {"cleanup.policy": "compact" if name in COMPACTED else "delete"}
    if name == DEAD_LETTERS:  # it must take whatever the others took, and a little more
        configs["max.message.bytes"] = str(max(2 * max_record_bytes, 2_000_000))
    if name == MODEL_UPDATES:
        configs |= {"retention.ms": str(UPDATES_KEPT_MS), "max.message.bytes": "2000000"}
    wanted = {"num_partitions": partitions, "replication_factor": replication, "configs": configs}
    try:
        admin.create_topics({name: wanted})
    except TopicAlreadyExistsError:
        return  # another worker was quicker
    log.info("topic_created", topic=name, partitions=partitions)


def _partitions(admin: KafkaAdminClient) -> dict[str, int]:
    """Partitions of each topic; waits (bounded) until the cluster shows them all."""
    found: dict[str, int] = {}
    for _ in range(50):
        described = admin.describe_topics(list(TOPICS))
        found = {t["name"]: len(t["partitions"]) for t in described if not t["error_code"]}
        if len(found) == len(TOPICS):
            return found
        time.sleep(0.1)
    return found
