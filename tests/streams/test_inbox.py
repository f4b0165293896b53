"""What comes is joined into batches, whatever comes between."""

from __future__ import annotations

import asyncio

from streams.inbox import Inbox
from streams.learning import Message


def some(topic: str, first: int, count: int) -> list[Message]:
    return [Message(topic, 0, n, 1, None, b"") for n in range(first, first + count)]


async def test_events_are_joined_though_announcements_came_between() -> None:
    inbox, done = Inbox(10), []
    for n in range(4):
        await inbox.put(some("events", 2 * n, 2), lambda n=n: done.append(f"events {n}"))
        await inbox.put(some("items", n, 1), lambda n=n: done.append(f"items {n}"))
    events, items = await inbox.get(), await inbox.get()
    assert [m.offset for m in events.messages] == list(range(8))
    assert [m.offset for m in items.messages] == list(range(4))
    for written in (*events.written, *items.written):
        written()
    assert done == [f"{topic} {n}" for topic in ("events", "items") for n in range(4)]


async def test_topics_take_turns() -> None:
    inbox = Inbox(10)
    for topic in ("events", "items"):
        for first in (0, 10):
            await asyncio.wait_for(inbox.put(some(topic, first, 9), lambda: None), 5)
    assert [(await inbox.get()).topic for _ in range(4)] == ["events", "items"] * 2


async def test_a_topic_that_is_full_holds_up_no_other() -> None:
    inbox = Inbox(10)
    await inbox.put(some("events", 0, 10), lambda: None)
    late = asyncio.create_task(inbox.put(some("events", 10, 5), lambda: None))
    await asyncio.sleep(0)
    await asyncio.wait_for(inbox.put(some("items", 0, 1), lambda: None), 5)
    assert not late.done()
    assert [m.offset for m in (await inbox.get()).messages] == list(range(10))
    await asyncio.wait_for(late, 5)
    assert (await inbox.get()).topic == "items"
    assert [m.offset for m in (await inbox.get()).messages] == list(range(10, 15))


async def test_who_waits_for_a_batch_gets_the_first_that_comes() -> None:
    inbox = Inbox(10)
    waiting = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    await inbox.put(some("items", 3, 2), lambda: None)
    assert [m.offset for m in (await asyncio.wait_for(waiting, 5)).messages] == [3, 4]
