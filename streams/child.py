"""A process that answers calls over a pair of pipes, as in `streams.core_protocol`."""

from __future__ import annotations

import contextlib
import select
import signal
import subprocess
import sys
from typing import Any

import msgspec

from infra.children import end_with_parent
from streams.core_protocol import Answer, Call, encode, receive, send, widen

LAST_S = 5.0  # how long an end is waited for


class ChildGone(Exception):
    """The process has ended, or closed its pipes."""


class Child:
    """`python -m MODULE ARGUMENTS` as a child that ends when we do. One caller at a time."""

    def __init__(self, module: str, *arguments: str, leave: tuple[int, ...] = ()) -> None:
        """leave: descriptors that the child has too."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            preexec_fn=end_with_parent(signal.SIGKILL), pass_fds=leave,
        )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._into, self._out = self._process.stdin, self._process.stdout
        widen(self._into)
        widen(self._out)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended (a signal is negative); None while it lives."""
        return self._process.poll()

    def send(self, method: str, arguments: Any = None) -> None:
        """Raises ChildGone. What cannot be put into bytes raises before anything is sent."""
        call = Call(method, msgspec.Raw(encode(arguments)))
        try:
            send(self._into, call)
        except (OSError, ValueError):  # ValueError: closed by us
            raise self._gone() from None

    def receive(self) -> Answer:
        """The next answer. Raises ChildGone; msgspec.MsgspecError for what is no answer."""
        try:
            answer = receive(self._out, Answer)
        except (OSError, ValueError) as fault:
            if isinstance(fault, msgspec.MsgspecError):
                raise
            answer = None
        if answer is None:
            raise self._gone()
        return answer

    def answers(self) -> bool:
        """Is there an answer to receive?"""
        return bool(select.select([self._out], [], [], 0)[0])

    def close(self) -> None:
        """End it; it is given LAST_S seconds. One that ended before is fine."""
        for pipe in (self._into, self._out):
            with contextlib.suppress(OSError):  # what it did not read cannot be sent any more
                pipe.close()
        try:
            self._process.wait(LAST_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _gone(self) -> ChildGone:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LAST_S)  # its pipes end a moment before it does
        code = self.exit_code
        return ChildGone("closed its pipes" if code is None else f"ended (exit {code})")
