"""A few connections, each used by one thread at a time."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from infra.warehouse_types import WarehouseError


class Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


class Pool(Generic[C]):
    """`connections` that threads borrow; who finds none waits for one to come back.

    `closed` is the message of the WarehouseError that is raised once the pool is closed.
    """

    def __init__(self, connections: Iterable[C], closed: str) -> None:
        self._message = closed
        self._free = queue.SimpleQueue[C]()
        self._count = 0
        for connection in connections:
            self._free.put(connection)
            self._count += 1
        self._closing = threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[C]:
        """A connection: the caller's alone inside the `with`. Raises WarehouseError."""
        self._check()
        connection = self._free.get()
        try:
            self._check()
            yield connection
        finally:
            self._free.put(connection)

    def close(self) -> None:
        """Wait for the connections that are borrowed, then close all. Closing twice is harmless.

        Borrowers never need the lock that is held here, so what they wait for still happens.
        """
        with self._closing:
            if self._closed:
                return
            self._closed = True
            connections = [self._free.get() for _ in range(self._count)]
            try:
                for connection in connections:
                    connection.close()
            finally:
                self._put_back(connections)

    def _put_back(self, connections: list[C]) -> None:
        """Who was already waiting when the pool closed gets one, and learns that it is closed."""
        for connection in connections:
            self._free.put(connection)

    def _check(self) -> None:
        if self._closed:
            raise WarehouseError(self._message)
