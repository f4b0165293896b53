"""Kafka over TLS and with logins: topics, producer and a worker; and what is said when it fails.

The embedded broker's program (Tansu 0.6.0) serves neither: see the first two tests. So a gateway
stands before it, which ends TLS and checks logins (PLAIN, SCRAM), and hands on the rest.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from infra.address import BrokerAddress
from infra.broker import answers, find_binary
from online.events import Event
from streams.bench.child import BenchWorker
from streams.producer import EventProducer
from streams.topics import TOPICS, BrokerRefusal, BrokerUnreachable, connect_admin, ensure_topics
from tests.certificates import Certificates
from tests.kafka_gateway import Gateway, guarded_broker

SECRET = "s3cr,t=/@ä"
USERS = {"ann": SECRET}


@pytest.fixture
def guarded(certificates: Certificates) -> Iterator[Gateway]:
    with guarded_broker(certificates.context(), USERS) as gateway:
        yield gateway


def address(port: int, mechanism: str, cafile: Path | None, password: str = SECRET) -> str:
    trusted = f"&ssl_cafile={cafile}" if cafile else ""
    return (
        f"kafka://ann:{quote(password, safe='')}@127.0.0.1:{port}"
        f"?security_protocol=SASL_SSL&sasl_mechanism={mechanism}{trusted}"
    )


def test_the_embedded_program_cannot_serve_tls(certificates: Certificates) -> None:
    """Its two options exclude each other. When this fails, it can, and the gateway may go."""
    said = subprocess.run(
        [find_binary(), "broker", "--cert", certificates.certificate, "--key", certificates.key],
        capture_output=True, text=True, timeout=10,
    )  # fmt: skip
    assert said.returncode == 2
    assert "'--cert <CERT>' cannot be used with '--key <KEY>'" in said.stderr


def test_the_embedded_program_knows_no_user() -> None:
    """It asks for SCRAM, but whom `tansu user create` makes, it does not know afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"tcp://127.0.0.1:{port}"
    process = subprocess.Popen(
        [find_binary(), "broker", "--authentication", "--listener-url", url,
         "--advertised-listener-url", url, "--storage-engine", "memory://tansu/"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not answers("127.0.0.1", port, 1.0):
            assert process.poll() is None
            time.sleep(0.05)
        made = subprocess.run([find_binary(), "user", "create", "--broker", url, "ann", "secret"],
                              capture_output=True, timeout=10)  # fmt: skip
        assert made.returncode != 0
        plain = f"kafka://ann:secret@127.0.0.1:{port}?security_protocol=SASL_PLAINTEXT"
        with pytest.raises(BrokerRefusal, match="refuses the login by SCRAM-SHA-512: correct user"):
            connect_admin(BrokerAddress.parse(f"{plain}&sasl_mechanism=SCRAM-SHA-512"), 500)
        with pytest.raises(BrokerUnreachable, match="does not go on with SASL_PLAINTEXT"):
            connect_admin(BrokerAddress.parse(f"{plain}&sasl_mechanism=PLAIN"), 500)
    finally:
        process.terminate()
        process.wait(5)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_topics_and_producer_log_in(
    guarded: Gateway, certificates: Certificates, mechanism: str
) -> None:
    broker = BrokerAddress.parse(address(guarded.port, mechanism, certificates.authority))
    assert set(ensure_topics(broker, 2)) == set(TOPICS)
    with EventProducer(broker) as producer:
        producer.send(event("e1"))
        assert producer.flush().ok
    assert guarded.logins >= 2


def test_tls_alone(certificates: Certificates) -> None:
    with guarded_broker(certificates.context()) as gateway:
        url = f"kafka://localhost:{gateway.port}?security_protocol=SSL"
        broker = BrokerAddress.parse(f"{url}&ssl_cafile={certificates.authority}")
        assert set(ensure_topics(broker, 1)) == set(TOPICS)
        with EventProducer(broker) as producer:
            producer.send(event("e1"))
            assert producer.flush().ok


def test_a_worker_reads_over_tls_with_a_login(
    guarded: Gateway, certificates: Certificates, tmp_path: Path
) -> None:
    """Faust's own clients: consumer, producer and coordinator."""
    url = address(guarded.port, "SCRAM-SHA-512", certificates.authority)
    broker = BrokerAddress.parse(url)
    settings = {"FRESHREC_BROKER": url, "FRESHREC_LOG_LEVEL": "debug", "FRESHREC_PARTITIONS": "2"}
    worker = BenchWorker(tmp_path, broker, "secure", "streams.bench.nothing", settings)
    with worker, EventProducer(broker) as producer:
        worker.await_ready()
        for n in range(20):
            producer.send(event(f"e{n}"))
        assert producer.flush().ok
        worker.until(lambda health: health.get("events_total", 0) == 20, 30, "20 events")
    said = worker.log.read_text()
    assert "worker_ready" in said
    assert SECRET not in said and quote(SECRET, safe="") not in said


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_wrong_password_is_told_at_once_and_not_shown(
    guarded: Gateway, certificates: Certificates, mechanism: str
) -> None:
    broker = BrokerAddress.parse(
        address(guarded.port, mechanism, certificates.authority, "wrong-password")
    )
    for connect in (lambda: connect_admin(broker, 500), lambda: producer_of(broker)):
        with pytest.raises(BrokerRefusal) as said:
            connect()
        text = str(said.value)
        assert f"127.0.0.1:{guarded.port} refuses the login by {mechanism}" in text
        assert "Invalid username or password" in text
        assert "correct user, password or sasl_mechanism in FRESHREC_BROKER" in text
        assert "wrong-password" not in text
    assert guarded.logins == 0


def test_a_certificate_of_a_stranger_is_not_trusted(
    guarded: Gateway, certificates: Certificates
) -> None:
    for cafile in (certificates.stranger, None):
        broker = BrokerAddress.parse(address(guarded.port, "PLAIN", cafile))
        for connect in (lambda b: connect_admin(b, 500), producer_of):
            with pytest.raises(BrokerRefusal, match="is not trusted") as said:
                connect(broker)
            assert "ssl_cafile=/path/of/ca.pem in FRESHREC_BROKER" in str(said.value)
    assert guarded.logins == 0


def test_tls_with_a_broker_that_speaks_none() -> None:
    with guarded_broker() as gateway:
        broker = BrokerAddress.parse(f"kafka://127.0.0.1:{gateway.port}?security_protocol=SSL")
        words = f"127.0.0.1:{gateway.port} takes the connection, but does not go on with SSL"
        with pytest.raises(BrokerUnreachable, match=words):
            connect_admin(broker, 500)


def test_no_tls_with_a_broker_that_wants_it(guarded: Gateway) -> None:
    words = "does not go on with PLAINTEXT: is this the right port, and security_protocol"
    with pytest.raises(BrokerUnreachable, match=words):
        connect_admin(BrokerAddress.at(f"127.0.0.1:{guarded.port}"), 500)


def test_a_worker_that_is_refused_ends_at_once_and_says_why(
    guarded: Gateway, certificates: Certificates, tmp_path: Path
) -> None:
    from tests.streams.worker_process import WorkerProcess

    url = address(guarded.port, "SCRAM-SHA-256", certificates.authority, "wrong-password")
    worker = WorkerProcess(tmp_path / "w", broker=url, log_level="debug")
    began = time.monotonic()
    worker.launch()
    while worker.alive():
        assert time.monotonic() - began < 50, worker.words()
        time.sleep(0.1)
    assert worker.stop() == 1
    assert "refuses the login by SCRAM-SHA-256" in worker.words()
    assert "wrong-password" not in worker.words() and "Traceback" not in worker.words()


def test_files_that_are_not_there_are_named() -> None:
    with pytest.raises(ValueError, match="ssl_cafile='/no/ca.pem' is no file"):
        BrokerAddress.parse("kafka://h:1?security_protocol=SSL&ssl_cafile=/no/ca.pem")


def producer_of(broker: BrokerAddress) -> None:
    EventProducer(broker, bootstrap_timeout_ms=500)


def event(event_id: str) -> Event:
    now = time.time_ns() // 1_000_000
    return Event(event_id=event_id, type="click", user_id="ann", item_id="i", ts=now)
