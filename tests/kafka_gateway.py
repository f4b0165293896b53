"""A gate before a real broker: TLS, and logins by SASL, which the embedded program cannot serve.

What passes the gate is handed on byte by byte, so clients talk to the real broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator

from infra.broker import answers, find_binary
from tests.scram import HASHES, Login, Refused

HANDSHAKE, API_VERSIONS, AUTHENTICATE = 17, 18, 36
UNSUPPORTED_MECHANISM, LOGIN_FAILED = 33, 58
MECHANISMS = ("PLAIN", *HASHES)


def _frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(struct.unpack(">i", await reader.readexactly(4))[0])


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    writer.close()


class Gateway:
    """Listens on `port`. `users` (name: password): who must log in; None: nobody need to."""

    def __init__(self, context: ssl.SSLContext | None, users: dict[str, str] | None) -> None:
        self._context = context
        self._users = users
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.logins = 0
        self._broker = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self, broker: int) -> None:
        self._broker = broker
        self._thread.start()
        opened = asyncio.start_server(self._serve, sock=self._socket, ssl=self._context)
        asyncio.run_coroutine_threadsafe(opened, self._loop).result(5)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._socket.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_broker, to_broker = await asyncio.open_connection("127.0.0.1", self._broker)
        try:
            if self._users is not None:
                await self._log_in(reader, writer, from_broker, to_broker)
            await asyncio.gather(_pipe(reader, to_broker), _pipe(from_broker, writer))
        except (OSError, asyncio.IncompleteReadError, Refused):
            writer.close()
            to_broker.close()

    async def _log_in(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
        from_broker: asyncio.StreamReader, to_broker: asyncio.StreamWriter,
    ) -> None:  # fmt: skip
        login: Login | None = None
        while login is None or not login.done:
            request = await _read_frame(reader)
            api, version, correlation, named = struct.unpack(">hhih", request[:10])
            body = request[10 + max(named, 0) :]
            if api == API_VERSIONS:
                to_broker.write(_frame(request))
                writer.write(_frame(await _read_frame(from_broker)))
            elif api == HANDSHAKE:
                mechanism = body[2:].decode()
                known = mechanism in MECHANISMS
                login = Login(mechanism, self._users or {}) if known else None
                names = b"".join(struct.pack(">h", len(m)) + m.encode() for m in MECHANISMS)
                error = 0 if known else UNSUPPORTED_MECHANISM
                head = struct.pack(">ihi", correlation, error, len(MECHANISMS))
                writer.write(_frame(head + names))
            elif api == AUTHENTICATE and login is not None:
                await self._authenticate(login, version, correlation, body, writer)
            else:
                raise Refused
        self.logins += 1

    async def _authenticate(
        self, login: Login, version: int, correlation: int, body: bytes,
        writer: asyncio.StreamWriter,
    ) -> None:  # fmt: skip
        said = _compact(body[1:]) if version >= 2 else body[4:]
        try:
            token, error = login.step(said), 0
        except Refused:
            token, error = b"", LOGIN_FAILED
        writer.write(_frame(_authenticated(version, correlation, error, token)))
        await writer.drain()
        if error:
            raise Refused


def _compact(body: bytes) -> bytes:
    """Kafka's COMPACT_BYTES: their number and one, as a varint, then the bytes."""
    size = shift = at = 0
    while True:
        byte = body[at]
        size |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return body[at : at + size - 1]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


def _authenticated(version: int, correlation: int, error: int, token: bytes) -> bytes:
    said = b"Authentication failed: Invalid username or password" if error else b""
    lifetime = struct.pack(">q", 0)
    if version >= 2:
        words = _varint(len(said) + 1) + said + _varint(len(token) + 1) + token
        return struct.pack(">ibh", correlation, 0, error) + words + lifetime + b"\0"
    words = struct.pack(">h", len(said)) + said + struct.pack(">i", len(token)) + token
    return struct.pack(">ih", correlation, error) + words + (lifetime if version else b"")


@contextlib.contextmanager
def guarded_broker(
    context: ssl.SSLContext | None = None, users: dict[str, str] | None = None
) -> Iterator[Gateway]:
    """A real broker, reached only through the gateway: its address is what it advertises."""
    gateway = Gateway(context, users)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [find_binary(), "broker", "--listener-url", f"tcp://127.0.0.1:{port}",
         "--advertised-listener-url", f"tcp://127.0.0.1:{gateway.port}",
         "--storage-engine", "memory://tansu/", "--cluster-id", "guarded"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={"RUST_LOG": "error"},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 10
        while not answers("127.0.0.1", port, 1.0):
            assert process.poll() is None and time.monotonic() < deadline, "no broker"
            time.sleep(0.05)
        gateway.start(port)
        yield gateway
    finally:
        gateway.stop()
        process.kill()  # it holds nothing
        process.wait(5)
