"""What waits for the core's process: its order, its bounds, and its end."""

from __future__ import annotations

import io
import os
import threading
import time

import pytest

from streams.allowance import SAVED_S, SHARE, Allowance
from streams.core_protocol import Call, send
from streams.line import MOST_CALLS, Line


def pipe_of(*methods: str) -> io.BytesIO:
    into = io.BytesIO()
    for method in methods:
        send(into, Call(method))
    into.seek(0)
    return into


def test_calls_keep_their_order_and_questions_go_before() -> None:
    line = Line()
    line.read_calls(pipe_of("ahead", "ahead", "keep"))
    assert line.question() is None
    line.read_questions(pipe_of("search", "similar"))
    question = line.question()  # as in the middle of a batch
    assert question is not None and question.method == "search"
    came = [line.next() for _ in range(5)]
    assert [is_call for is_call, _ in came] == [False, True, True, True, True]
    assert [call.method if call else None for _, call in came] == [
        "similar", "ahead", "ahead", "keep", None,
    ]  # fmt: skip


def test_it_holds_so_many_calls_and_no_more() -> None:
    line, more = Line(), 5
    reader = threading.Thread(
        target=line.read_calls, args=(pipe_of(*["step"] * (MOST_CALLS + more)),), daemon=True
    )
    reader.start()
    deadline = time.monotonic() + 10
    while len(line._calls) < MOST_CALLS and time.monotonic() < deadline:
        time.sleep(0.01)
    reader.join(0.2)
    assert reader.is_alive() and len(line._calls) == MOST_CALLS  # the pipe holds the rest
    taken = 0
    while line.next()[1] is not None:
        taken += 1
    assert taken == MOST_CALLS + more


def test_who_waits_is_woken_by_a_question() -> None:
    line, asked = Line(), os.pipe()
    found: list[tuple[bool, Call | None]] = []
    waits = threading.Thread(target=lambda: found.append(line.next()), daemon=True)
    waits.start()
    with os.fdopen(asked[0], "rb") as out:
        reads = threading.Thread(target=line.read_questions, args=(out,), daemon=True)
        reads.start()
        with os.fdopen(asked[1], "wb") as into:
            send(into, Call("search"))
        reads.join(10)
        waits.join(10)
    assert [(is_call, call.method) for is_call, call in found if call] == [(False, "search")]


def test_questions_that_cannot_be_read_end_the_process() -> None:
    """Else who asks would wait for ever."""
    line = Line()
    with pytest.raises(Exception):  # noqa: B017  whatever the damage leads to
        line.read_questions(io.BytesIO(b"\x00\x00\x00\x05broken"))
    assert line.next() == (True, None)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("takes", [0.01, 0.6])
def test_however_many_questions_are_asked_half_of_the_time_is_for_calls(takes: float) -> None:
    """A shop that asks as fast as it is answered must not keep its events from being learned."""
    clock, line = Clock(), Line()
    line.questions = Allowance(clock)
    calls, learned, answered = 8, 0.0, 0.0
    line.read_calls(pipe_of(*["ahead"] * calls))

    def ask() -> None:  # there is always one
        line.read_questions(pipe_of("similar"))

    def answer() -> None:
        nonlocal answered
        with line.questions.spending():
            clock.now += takes
        answered += takes

    ask()
    while (came := line.next())[1] is not None:
        if not came[0]:
            answer()
            ask()
            continue
        for _ in range(50):  # the parts of a batch, between which questions are answered
            clock.now += 0.004
            learned += 0.004
            while line.question() is not None:
                answer()
                ask()
    assert learned == pytest.approx(calls * 0.2)
    assert answered <= SHARE * clock.now + SAVED_S + takes
    assert answered > SHARE * clock.now - takes  # they get their half


def test_questions_alone_are_answered_without_end() -> None:
    clock, line = Clock(), Line()
    line.questions = Allowance(clock)
    for _ in range(200):
        line.read_questions(pipe_of("similar"))
        assert line.next() == (False, Call("similar"))
        with line.questions.spending():
            clock.now += 0.01
    line.read_questions(pipe_of("similar"))
    line.read_calls(pipe_of("ahead"))
    assert line.next() == (True, Call("ahead"))  # now it is their turn
