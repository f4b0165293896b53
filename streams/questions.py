"""Questions to a child beside its calls: over pipes of their own, any number at the same time.

ours    ask ─► pipe ─► the child's reader ─► before the next call
        answers come back in the order of the questions; a thread hands them out
"""

from __future__ import annotations

import collections
import os
import threading
from concurrent.futures import Future
from typing import IO, Any

import msgspec

from streams.core_protocol import Answer, Call, encode, receive, send


class Unanswered(Exception):
    """The child is gone."""


class Questions:
    """`theirs`: the descriptors (read, write) for the child; call `begin` when it has them."""

    def __init__(self) -> None:
        asked, into = os.pipe()
        out, answered = os.pipe()
        self.theirs = asked, answered
        self._into: IO[bytes] = os.fdopen(into, "wb")
        self._out: IO[bytes] = os.fdopen(out, "rb")
        self._waiting: collections.deque[Future[Answer]] = collections.deque()
        self._lock = threading.Lock()
        self._closed = False

    def begin(self) -> None:
        """Leave the child's ends to the child."""
        for each in self.theirs:
            os.close(each)
        threading.Thread(target=self._hand_out, name="answers", daemon=True).start()

    def ask(self, method: str, arguments: Any) -> Answer:
        """Waits for the answer; may be called from any thread. Raises Unanswered."""
        call = Call(method, msgspec.Raw(encode(arguments)))
        waiting: Future[Answer] = Future()
        with self._lock:
            if self._closed:
                raise Unanswered
            self._waiting.append(waiting)
            try:
                send(self._into, call)
            except (OSError, ValueError):
                self._closed = True
                self._waiting.pop()
                raise Unanswered from None
        return waiting.result()

    def close(self) -> None:
        """Nothing is asked any more; whoever waits is told when the child ends."""
        with self._lock:
            self._closed = True
            try:
                self._into.close()
            except OSError:  # it does not read any more
                pass

    def _hand_out(self) -> None:
        try:
            while (answer := receive(self._out, Answer)) is not None:
                self._waiting.popleft().set_result(answer)
        except (OSError, ValueError, IndexError):
            pass  # no answers: as when it is gone
        finally:
            with self._lock:
                self._closed = True
                for each in self._waiting:
                    each.set_exception(Unanswered())
            self._out.close()
