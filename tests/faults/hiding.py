"""A broker some of whose partitions are not known yet: the embedded one cannot add any."""

from __future__ import annotations

import contextlib
import io
import socket
import struct

from aiokafka.protocol import metadata

from streams.topics import EVENTS
from tests.faults.proxy import Link, Proxy

METADATA = 3  # Kafka's number of that request
RESPONSES = {n: getattr(metadata, f"MetadataResponse_v{n}") for n in range(6)}


class Hiding(Proxy):
    """Faust's consumer learns of the first `shown` partitions of `events` only."""

    shown = 1

    def link(self, client: socket.socket, server: socket.socket) -> Link:
        return _Framed(self, client, server)


class _Framed(Link):
    """Passes on whole requests and responses, and changes some of these."""

    def __init__(self, proxy: Hiding, client: socket.socket, server: socket.socket) -> None:
        self._asked: dict[int, int] = {}  # by correlation: the version of a metadata request
        self._hiding = proxy
        super().__init__(proxy, client, server)

    def _pass_on(self, from_: socket.socket, to: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError), from_.makefile("rb") as frames:
            while len(head := frames.read(4)) == 4:
                body = frames.read(struct.unpack(">i", head)[0])
                if asks:
                    api, version, number = struct.unpack(">hhi", body[:8])
                    if api == METADATA:
                        self._asked[number] = version
                else:
                    body = self._changed(body)
                to.sendall(struct.pack(">i", len(body)) + body)
        self.cut()

    def _changed(self, body: bytes) -> bytes:
        version = self._asked.pop(struct.unpack(">i", body[:4])[0], -1)
        if version not in RESPONSES:  # none, or one of another client's
            return body
        answer = RESPONSES[version].decode(io.BytesIO(body[4:]))
        answer.topics = [
            (error, name, *more, [p for p in partitions if p[1] < self._hiding.shown])
            if name == EVENTS
            else (error, name, *more, partitions)
            for error, name, *more, partitions in answer.topics
        ]
        return body[:4] + answer.encode()
