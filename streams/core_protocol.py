"""What a worker and its core's process say to each other, over a pair of pipes.

    call    length, [method, arguments]      answer    length, [outcome, value]

as MessagePack (msgspec). Calls are answered in order. `ahead` may be sent while the call before is
still being worked on, so that the core never waits for the worker: a batch, with the histories
that it probably needs. When the core cannot take one (it lacks a history, or it raised), it refuses
what was sent ahead after it, so that the order of events is kept; any other call ends that, but for
`change`: what is new in the catalogue, which is sent in the same line, and never refused.

The core's side reads calls as they come, also while it works or answers. So the worker's sending
never waits for its own receiving, and neither side can wait for the other for ever.
"""

from __future__ import annotations

import enum
import fcntl
import struct
from collections.abc import Sequence
from typing import IO, Any, TypeVar

import msgspec

from online.events import Delivery, Item
from online.step import Histories, Metric, Slate, Turn, Vector
from online.texts import TextVector
from online.told import Rankers, Weights

UNANSWERED = frozenset({"hear", "heard_rankers", "adopt", "heard_items", "put_texts"})
MOST_TOLD = 12  # of these behind unanswered calls: nobody waits for the other's pipe for ever
AHEAD = 2  # batches under way at most: one that the core works on, and the next; changes as well
IN_LINE = frozenset({"ahead", "change"})  # may be sent before the answer to what was sent before
LONGEST = 1 << 30  # bytes of one message
LONGEST_VALUE = LONGEST >> 1  # of its arguments or its answer
PIPE_BYTES = 1 << 20  # most batches fit: one system call instead of one for each 64 KB
NONE = msgspec.Raw(b"\xc0")

T = TypeVar("T")
Changes = Sequence[Item | str]  # of the catalogue, in order: an item, or the id of one that is gone
# batch, histories, now_ms, what is searched for
Ahead = tuple[list[Delivery], Histories, int, list[TextVector]]

decode = msgspec.msgpack.decode
_LENGTH = struct.Struct(">I")


class Outcome(enum.IntEnum):
    DONE = 0
    RAISED = 1  # the value says what
    REFUSED = 2  # nothing was learned


class Call(msgspec.Struct, array_like=True):
    method: str
    arguments: msgspec.Raw = NONE


class Answer(msgspec.Struct, array_like=True):
    outcome: Outcome
    value: msgspec.Raw = NONE


class Stepped(msgspec.Struct, array_like=True):
    """A Step whose deliveries are their positions in the batch; and the totals after it."""

    accepted: list[int]
    rejects: list[tuple[int, str]]
    duplicates: int
    slates: list[Slate]
    metrics: list[Metric]
    vectors: list[Vector]
    turns: list[Turn]
    rankers: Rankers | None
    weights: Weights | None
    quality: dict[str, Any]


def encode(value: Any) -> bytes:
    """Arguments or an answer as bytes. Raises when that cannot be: nothing was sent then.

    >>> encode(1 << 64)
    Traceback (most recent call last):
        ...
    OverflowError: can't serialize ints < -2**63 or > 2**64 - 1
    """
    body = msgspec.msgpack.encode(value)
    if len(body) > LONGEST_VALUE:
        raise ValueError(f"{len(body)} bytes are too many for one message: {LONGEST_VALUE} at most")
    return body


def send(pipe: IO[bytes], message: Call | Answer) -> None:
    body = msgspec.msgpack.encode(message)
    pipe.write(_LENGTH.pack(len(body)))
    pipe.write(body)
    pipe.flush()


def receive(pipe: IO[bytes], kind: type[T]) -> T | None:
    """The next message; None at the end of the pipe."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = pipe.read(length) if length <= LONGEST else b""
    return decode(body, type=kind) if len(body) == length else None


def widen(pipe: IO[bytes]) -> None:
    """Let the pipe hold more, where the system allows that (Linux): for speed only."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        try:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # a user's limit on pipes
