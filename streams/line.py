"""What waits for the core: calls, which are answered in order, and questions, which go before.

As long as calls wait, questions get half of the time: however many are asked, events are learned.
"""

from __future__ import annotations

import collections
import threading
from typing import IO, TypeVar

from streams.allowance import Allowance
from streams.core_protocol import AHEAD, MOST_TOLD, Call, receive

# More do not come behind a call before its answer: batches, changes, and what is only told.
MOST_CALLS = 2 * AHEAD + MOST_TOLD + 1
MOST_ASKED = 64  # questions that wait here

T = TypeVar("T")


class Line:
    """Filled by a thread for each pipe, emptied by one."""

    def __init__(self) -> None:
        self._calls: collections.deque[Call | None] = collections.deque()
        self._asked: collections.deque[Call] = collections.deque()
        self._changed = threading.Condition()
        self.questions = Allowance()  # of the thread that empties it

    def read_calls(self, pipe: IO[bytes]) -> None:
        """Take what comes off the pipe, so that the worker's sending never waits for us."""
        try:
            while (call := receive(pipe, Call)) is not None:
                self._put(self._calls, call, MOST_CALLS)
        finally:
            self._put(self._calls, None, MOST_CALLS)

    def read_questions(self, pipe: IO[bytes]) -> None:
        try:
            while (question := receive(pipe, Call)) is not None:
                self._put(self._asked, question, MOST_ASKED)
        except BaseException:
            self._put(self._calls, None, MOST_CALLS)  # who asks would wait for ever
            raise

    def question(self) -> Call | None:
        """The next question, if there is one and it may take time."""
        if not self._asked or not self.questions.left():  # looked at often, so without the lock
            return None
        with self._changed:
            self._changed.notify_all()
            return self._asked.popleft()

    def next(self) -> tuple[bool, Call | None]:
        """Waits. Is it a call (or a question), and which; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._asked or self._calls)
            self._changed.notify_all()
            if self._asked and (not self._calls or self.questions.left()):
                return False, self._asked.popleft()
            return True, self._calls.popleft()

    def _put(self, line: collections.deque[T], call: T, most: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(line) < most)
            line.append(call)
            self._changed.notify_all()
