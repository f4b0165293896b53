"""A TCP proxy that misbehaves on demand, in front of the warehouse or of the broker."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

PIECE = 1 << 16
# ClickHouse's protocol: the answer to an insert ends in a packet that is this one byte
INSERT, END_OF_STREAM = b"INSERT INTO", b"\x05"


class Proxy:
    """Listens on 127.0.0.1 and passes on to a port there. Its faults change at any time."""

    def __init__(self, to: int = 0) -> None:
        """to: where it passes on to; may be set later."""
        self.to = to
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._flowing = threading.Event()
        self._flowing.set()
        self._links: list[Link] = []
        self.answers_lost = 0  # so many answers to inserts are still to be lost
        self.insert_s = 0.0  # how long an answer to an insert takes
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def freeze(self) -> None:
        """Nothing passes; connections stay, and new ones are taken."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def refuse(self) -> None:
        """Cut all connections, and take no more."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for link in self._links:
            link.cut()
        self._links.clear()

    def accept(self) -> None:
        """Take connections again, on the same port."""
        self._listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def close(self) -> None:
        self.thaw()
        with contextlib.suppress(OSError):
            self.refuse()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:  # closed
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.to), 5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            self._links.append(self.link(client, server))

    def link(self, client: socket.socket, server: socket.socket) -> Link:
        return Link(self, client, server)

    def lose_answer(self) -> bool:
        """What to do with an answer to an insert; it comes late enough."""
        time.sleep(self.insert_s)
        if self.answers_lost <= 0:
            return False
        self.answers_lost -= 1
        return True

    def wait_flowing(self) -> None:
        self._flowing.wait()


class Link:
    """A client's connection and ours to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._ends = client, server
        self._insert = ""  # begun | described | sent
        for from_, to in ((client, server), (server, client)):
            asks = from_ is client
            threading.Thread(target=self._pass_on, args=(from_, to, asks), daemon=True).start()

    def cut(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _pass_on(self, from_: socket.socket, to: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := from_.recv(PIECE):
                self._proxy.wait_flowing()
                if self._is_end_of_insert(piece, asks) and self._proxy.lose_answer():
                    break
                to.sendall(piece)
        self.cut()

    def _is_end_of_insert(self, piece: bytes, asks: bool) -> bool:
        """Follow an insert: it is begun, the server describes its columns, the rows are sent."""
        if asks:
            if INSERT in piece:
                self._insert = "begun"
            elif self._insert == "described":
                self._insert = "sent"
            return False
        if self._insert == "begun":
            self._insert = "described"
        elif self._insert == "sent" and piece.endswith(END_OF_STREAM):
            self._insert = ""
            return True
        return False
