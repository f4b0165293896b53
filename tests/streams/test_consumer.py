"""Our changes to Faust's consumer. These fail when Faust changes what they rest upon."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiokafka
import pytest
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.structs import TopicPartition
from faust.transport import consumer as faust_consumer
from faust.transport.conductor import ConductorCompiler
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from infra.address import BrokerAddress
from infra.settings import Settings
from streams.app import make_app
from streams.consumer import BUFFERED_S, FreshConsumer, FreshConsumerThread


def made(tmp_path: Path, **settings: Any) -> Any:
    return make_app(Settings(state=tmp_path, **settings), BrokerAddress.at("127.0.0.1:1"))


def without_spaces(function: Any) -> str:
    return re.sub(r"\s", "", inspect.getsource(function))


def test_faust_still_hard_codes_the_wait() -> None:
    source = without_spaces(driver.AIOKafkaConsumerThread._create_worker_consumer)
    assert "fetch_max_wait_ms=1500" in source


def test_aiokafka_still_reads_the_wait_when_it_starts() -> None:
    source = without_spaces(aiokafka.AIOKafkaConsumer.start)
    assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in source


async def test_fetches_are_answered_early(tmp_path: Path) -> None:
    app = made(tmp_path, fetch_wait_ms=7)
    assert isinstance(app.consumer, FreshConsumer)
    thread = app.consumer._thread
    assert isinstance(thread, FreshConsumerThread)
    consumer = thread._create_worker_consumer(app.transport)
    assert consumer._fetch_max_wait_ms == 7


def test_faust_still_delivers_by_wait_first() -> None:
    source = without_spaces(faust_consumer.Consumer._drain_messages)
    assert "awaitself.wait_first(callback(message),self.suspend_flow.wait())" in source
    assert source.count("wait_first") == 1
    # and a delivery waits for nothing but flow, the producer's buffer and full queues
    delivery = without_spaces(ConductorCompiler.build)
    assert "ifqueue.full():full.append" in delivery
    assert "awaitacquire_flow_control()awaitwait_until_producer_ebb()" in delivery


@pytest.mark.parametrize("full", [False, True])
async def test_a_delivery_makes_tasks_only_when_it_may_block(tmp_path: Path, full: bool) -> None:
    app = made(tmp_path, batch=1)
    topic = app.topic("events", value_type=bytes)
    queue = topic.clone(is_iterator=True).queue
    app.topics.add(topic.clone(is_iterator=True, queue=queue))
    app.flow_control.resume()  # clears queues
    while full and not queue.full():
        queue.put_nowait(b"")
    tasks: set[Any] = set()

    async def deliver() -> str:
        tasks.update(asyncio.all_tasks())
        return "delivered"

    async def never() -> None:
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    answer = await app.consumer.wait_first(deliver(), never())
    assert bool(tasks - before) == full
    assert len(answer.done) == 1 and not answer.stopped


def test_faust_still_waits_a_second_for_the_other_partitions() -> None:
    assert "getmany(timeout=1.0)" in without_spaces(faust_consumer.Consumer._drain_messages)
    source = without_spaces(faust_consumer.Consumer._wait_next_records)
    assert "active_partitions=self._get_active_partitions()" in source
    assert "awaitself.sleep(1)" in source


@pytest.mark.parametrize(("full", "others"), [(False, True), (True, True), (True, False)])
async def test_a_full_queue_is_soon_looked_at_again(
    tmp_path: Path, full: bool, others: bool
) -> None:
    consumer = made(tmp_path).consumer
    waited: list[float] = []

    async def getmany(active_partitions: set[TP], timeout: float) -> dict[TP, Any]:  # noqa: ASYNC109
        waited.append(timeout)
        return {}

    consumer._getmany = getmany
    consumer.flow_active = True
    consumer._set_active_tps({TP("events", 0), TP("items", 0)} if others else {TP("events", 0)})
    if full:
        consumer.on_buffer_full(TP("events", 0))
    await asyncio.wait_for(consumer._wait_next_records(1.0), 10 * BUFFERED_S)
    assert waited == ([BUFFERED_S if full else 1.0] if others else [])


async def test_a_suspended_flow_is_waited_for_also_with_full_queues(tmp_path: Path) -> None:
    """Coming back before would make Faust seek to the committed offsets, again and again."""
    source = without_spaces(faust_consumer.Consumer._wait_next_records)
    assert "awaitself.wait(self.can_resume_flow)" in source
    consumer = made(tmp_path).consumer

    async def getmany(active_partitions: set[TP], timeout: float) -> dict[TP, Any]:  # noqa: ASYNC109
        return {}

    consumer._getmany = getmany
    consumer._set_active_tps({TP("events", 0)})
    consumer.on_buffer_full(TP("events", 0))
    consumer.stop_flow()
    waiting = asyncio.create_task(consumer._wait_next_records(1.0))
    await asyncio.sleep(5 * BUFFERED_S)
    assert not waiting.done()
    consumer.on_buffer_drop(TP("events", 0))
    consumer.resume_flow()
    await asyncio.wait_for(waiting, 10 * BUFFERED_S)


@pytest.mark.parametrize("change", ["none", "partitions", "generation"])
async def test_what_was_fetched_over_a_rebalance_is_fetched_again(
    tmp_path: Path, change: str
) -> None:
    app = made(tmp_path)
    consumer = app.consumer
    old, new = TP("events", 0), TP("events", 1)
    sought: list[bool] = []

    async def getmany(active_partitions: set[TP], timeout: float) -> dict[TP, Any]:  # noqa: ASYNC109
        if change == "partitions":  # Faust's set is emptied, and all partitions are fetched then
            consumer.pause_partitions([old])
            return {old: ["record"], new: ["record"]}
        app.consumer_generation_id += change == "generation"
        return {old: ["record"]}

    async def perform_seek() -> None:
        sought.append(True)

    consumer._getmany, consumer.perform_seek = getmany, perform_seek
    consumer.flow_active = True
    consumer._set_active_tps({old})
    records, _ = await consumer._wait_next_records(1.0)
    assert (records, sought) == (({old: ["record"]}, []) if change == "none" else ({}, [True]))


async def test_partitions_without_commits_are_sought_from_their_beginning(tmp_path: Path) -> None:
    thread = made(tmp_path).consumer._thread
    read, unread = TP("events", 0), TP("events", 1)
    begun: list[TP] = []

    class Committed:
        async def seek_to_committed(self) -> dict[TP, int | None]:
            return {read: 7, unread: None}

        async def seek_to_beginning(self, *partitions: TP) -> None:
            begun.extend(partitions)

    async def call(method: Any, *arguments: Any) -> Any:
        return await method(*arguments)

    thread._consumer, thread.call_thread = Committed(), call
    assert await thread.seek_to_committed() == {read: 7, unread: None}
    assert begun == [unread]
    # what makes that necessary
    assert "ifoffsetandoffset>0:" in without_spaces(aiokafka.AIOKafkaConsumer.seek_to_committed)


@pytest.mark.parametrize("assigned", [True, False])
async def test_a_partition_without_a_position_is_looked_at_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assigned: bool
) -> None:
    thread = made(tmp_path).consumer._thread
    place = TopicPartition("events", 0)
    state = SubscriptionState()
    state.subscribe({"events"})
    if assigned:
        state.assign_from_subscribed({place})
    thread._consumer = SimpleNamespace(_fetcher=SimpleNamespace(_subscriptions=state))
    seen: list[TP] = []
    monkeypatch.setattr(
        driver.AIOKafkaConsumerThread, "verify_event_path", lambda *a: seen.append(a[-1])
    )
    thread.verify_event_path(1.0, TP("events", 0))
    assert seen == []
    if assigned:
        state.subscription.assignment.state_value(place).seek(7)
        thread.verify_event_path(2.0, TP("events", 0))
        assert seen == [TP("events", 0)]
        # what makes that necessary
        monkeypatch.undo()
        assert "committed_offset=tp_state.position" in without_spaces(
            driver.AIOKafkaConsumerThread.verify_event_path
        )
