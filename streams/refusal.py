"""Why a broker that is there cannot be used: its certificate, our login, or another protocol.

kafka-python goes on trying whatever the reason (each time with the password, which may lock the
user out), waits for ever where TLS is not answered, and tells only that time ran out. So one
connection is made that says what happens.
"""

from __future__ import annotations

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from aiokafka.conn import create_conn
from aiokafka.errors import KafkaConnectionError

from infra.address import BrokerAddress

TRY_S = 3.0


def tls_context(broker: BrokerAddress) -> ssl.SSLContext | None:
    """What is trusted, and our own certificate; None without TLS. Raises OSError: unreadable."""
    if broker.security_protocol not in ("SSL", "SASL_SSL"):
        return None
    context = ssl.create_default_context(cafile=broker.ssl_cafile)
    if broker.ssl_certfile:
        context.load_cert_chain(broker.ssl_certfile, broker.ssl_keyfile)
    return context


class Refusal(NamedTuple):
    reason: str  # with the cure
    final: bool  # waiting does not help


def why_refused(broker: BrokerAddress) -> Refusal | None:
    """What stands between us and the broker; None if nothing does, or if nobody is there."""
    with ThreadPoolExecutor(1) as elsewhere:  # an event loop may be running here
        return elsewhere.submit(asyncio.run, _why_refused(broker)).result()


async def _why_refused(broker: BrokerAddress) -> Refusal | None:
    try:
        context = tls_context(broker)
    except OSError as error:
        files = "ssl_cafile, ssl_certfile or ssl_keyfile of FRESHREC_BROKER"
        return Refusal(f"{files} cannot be read ({error}): name PEM files", True)
    found: Refusal | None = None
    for server in broker.servers:
        if not await _takes_connections(server):
            continue
        try:
            async with asyncio.timeout(TRY_S):
                await _connect(broker, server, context)
            return None
        except Exception as error:  # what a refused login raises depends on the mechanism
            found = _worded(broker, server, error)
    return found


async def _takes_connections(server: str) -> bool:
    host, _, port = server.rpartition(":")
    try:
        async with asyncio.timeout(TRY_S):
            _, connection = await asyncio.open_connection(host.strip("[]"), int(port))
    except OSError:  # TimeoutError too
        return False
    connection.close()
    return True


def _worded(broker: BrokerAddress, server: str, error: Exception) -> Refusal:
    if isinstance(error, ssl.SSLCertVerificationError):
        cure = "name its authority with ssl_cafile=/path/of/ca.pem in FRESHREC_BROKER"
        said = f"the certificate of {server} is not trusted ({error.verify_message})"
        return Refusal(f"{said}: {cure}", True)
    if isinstance(error, OSError | KafkaConnectionError):
        said = f"{server} takes the connection, but does not go on with {broker.security_protocol}"
        cure = "is this the right port, and security_protocol of FRESHREC_BROKER the broker's?"
        return Refusal(f"{said}: {cure}", False)
    said = "" if isinstance(error, KeyError) else f" ({error})"  # KeyError: SCRAM's own refusal
    cure = "correct user, password or sasl_mechanism in FRESHREC_BROKER"
    return Refusal(f"{server} refuses the login by {broker.sasl_mechanism}{said}: {cure}", True)


async def _connect(broker: BrokerAddress, server: str, context: ssl.SSLContext | None) -> None:
    host, _, port = server.rpartition(":")
    connection = await create_conn(
        host.strip("[]"),
        int(port),
        ssl_context=context,
        security_protocol=broker.security_protocol,
        sasl_mechanism=broker.sasl_mechanism,
        sasl_plain_username=broker.username,
        sasl_plain_password=broker.password,
    )
    connection.close()
