"""The core in its own process: the same steps as in ours, in order, whatever happens to one."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from online.events import Delivery, Item
from online.step import PastEvent, Step
from streams.ahead import change_each
from streams.assembly import make_core
from streams.core_process import CoreLost, CoreProcess, CoreRaised
from streams.core_protocol import MOST_TOLD
from tests.streams.cores import BABBLING, LEARNS, SMALL, TOUCHY, Touchy
from tests.streams.pipeline_run import event

NOW = 1_700_000_100_000


@pytest.fixture
def core() -> Iterator[CoreProcess]:
    process = CoreProcess(SMALL)
    yield process
    process.close()


@pytest.fixture
def touchy() -> Iterator[CoreProcess]:
    process = CoreProcess(SMALL, TOUCHY)
    yield process
    process.close()


def batch(first: int, size: int = 20, **changes: object) -> list[Delivery]:
    return [
        Delivery(event(n, **changes), "events", 0, n, 1_700_000_000_000 + n)
        for n in range(first, first + size)
    ]


def strangers(deliveries: list[Delivery]) -> dict[str, list[PastEvent]]:
    return {d.event.user_id: [] for d in deliveries}


def essence(step: Step | None) -> object:
    assert step is not None
    return step.accepted, step.slates, step.metrics, step.vectors, step.duplicates


def test_steps_sent_ahead_are_those_of_a_core_in_this_process() -> None:
    core, ours = CoreProcess(LEARNS), make_core(LEARNS)
    batches = [batch(first) for first in range(0, 200, 20)]
    for c in (ours, core):
        c.announce([Item(item_id="i1", title="Lantern")])
    expected = []
    for one in batches:
        ours.restore(strangers(one))
        expected.append(essence(ours.step(one, NOW)))
    core.send(batches[0], strangers(batches[0]), NOW)
    found = []
    for following in batches[1:]:
        core.send(following, strangers(following), NOW)
        found.append(essence(core.receive()))
    found.append(essence(core.receive()))
    assert found == expected
    assert core.quality() == ours.quality()
    assert core.quality()["encoder_version"] == 4
    assert core.recommend("u1", NOW) == ours.recommend("u1", NOW)
    core.close()


def test_changes_of_the_catalogue_count_between_the_batches_they_were_sent_between() -> None:
    core, ours = CoreProcess(LEARNS), make_core(LEARNS)
    batches = [batch(first) for first in range(0, 120, 20)]
    new = [Item(item_id=f"new-{n}", category="c", price=2.0) for n in range(3)]
    changes = [[new[0], "i1"], [new[1]], ["new-0", Item(item_id="i1")], [new[2]], []]
    expected = []
    for n, one in enumerate(batches):
        ours.restore(strangers(one))
        expected.append(essence(ours.step(one, NOW)))
        for change in changes[n] if n < len(changes) else ():
            if isinstance(change, str):
                ours.withdraw([change])
            else:
                ours.announce([change])
    core.send(batches[0], strangers(batches[0]), NOW)
    found = []
    for change, following in zip(changes, batches[1:], strict=True):
        core.send_changes(change)
        core.send(following, strangers(following), NOW)
        found.append(essence(core.receive()))
        assert core.receive_changes() == [""] * len(change)
    found.append(essence(core.receive()))
    assert found == expected
    assert core.recommend("u1", NOW) == ours.recommend("u1", NOW)
    core.close()


def test_changes_are_taken_where_batches_are_refused_and_do_not_end_that(
    touchy: CoreProcess,
) -> None:
    first, second = batch(0), batch(20)
    touchy.send(first, {}, NOW)
    touchy.send_changes([Item(item_id="new"), Item(item_id="poison"), "i3"])
    touchy.send(second, strangers(second), NOW)
    assert touchy.receive() is None
    assert touchy.receive_changes() == ["", "ZeroDivisionError: no such thing", ""]
    assert touchy.receive() is None
    touchy.restore(strangers(first))
    assert touchy.step(first, NOW).duplicates == 0


def test_what_is_told_behind_a_batch_counts_until_that_is_answered(core: CoreProcess) -> None:
    """Else the pipes could fill, and each side wait for the other for ever."""
    some = batch(0)
    for _ in range(2 * MOST_TOLD):  # the core answers nothing: it just reads on
        core.heard_items([], [])
    assert core.attentive
    core.send_changes(["i1"])
    core.send(some, strangers(some), NOW)
    for _ in range(MOST_TOLD):
        core.heard_items([], [])
    assert not core.attentive
    assert core.receive_changes() == [""]
    assert not core.attentive
    assert core.receive() is not None
    assert core.attentive


def test_a_batch_that_lacks_histories_is_refused_and_so_is_what_follows(core: CoreProcess) -> None:
    first, second = batch(0), batch(20)
    core.send(first, {}, NOW)
    core.send(second, strangers(second), NOW)
    assert core.receive() is None
    assert core.receive() is None
    # nothing was learned of either: both are new, and in order, once the histories are there
    assert core.missing(first) == [f"u{n}" for n in range(7)]
    core.restore(strangers(first))
    assert core.step(first, NOW).duplicates == 0
    core.send(second, {}, NOW)
    step = core.receive()
    assert step is not None and len(step.accepted) == 20


def test_what_follows_a_batch_on_which_the_core_raised_is_refused(core: CoreProcess) -> None:
    first, second = batch(0), batch(20)
    core.send(first, {"u0": [("not", "a past event")]}, NOW)  # type: ignore[list-item]
    core.send(second, strangers(second), NOW)
    with pytest.raises(CoreRaised):
        core.receive()
    assert core.receive() is None
    core.restore(strangers(first))
    assert core.step(second, NOW).duplicates == 0


def test_a_core_that_raised_has_what_it_had_learned_before(touchy: CoreProcess) -> None:
    first = [*batch(0, 10), *batch(10, 1, item_id="poison"), *batch(11, 9)]
    touchy.send(first, strangers(first), NOW)
    with pytest.raises(CoreRaised, match="^ZeroDivisionError: no such thing$"):
        touchy.receive()
    again = touchy.step([d for d in first if d.event.item_id != "poison"], NOW)
    assert again.duplicates == 10
    assert [d.event.event_id for d in again.accepted] == [f"e{n}" for n in range(11, 20)]


def test_batches_longer_than_the_pipes_do_not_block_each_other(core: CoreProcess) -> None:
    """Calls and answers at once, each many times what a pipe holds."""
    for pipe in (core._child._into, core._child._out):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    patience = threading.Timer(30, os.kill, (core.pid, signal.SIGKILL))
    patience.start()
    name = "i" * 200
    sent = 0
    for first in range(0, 200, 20):
        one = batch(first, text="x" * 10_000)
        one = [d._replace(event=event(d.offset, item_id=f"{name}{d.offset % 11}")) for d in one]
        core.send(one, strangers(one), NOW)
        sent += 1
        if sent == core.ahead:
            step = core.receive()
            assert step is not None and len(step.accepted) == 20
            sent -= 1
    assert core.receive() is not None
    patience.cancel()


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_what_cannot_be_sent_is_not_sent_at_all(core: CoreProcess, number: int) -> None:
    first, second = batch(0), batch(20)
    core.send(first, strangers(first), NOW)
    with pytest.raises(OverflowError):
        core.send(batch(40, context={"n": number}), {}, NOW)
    core.send(second, strangers(second), NOW)
    for _ in (first, second):
        step = core.receive()
        assert step is not None and len(step.accepted) == 20
    with pytest.raises(OverflowError):
        core.step(batch(40, position=number), NOW)
    assert core.missing(batch(0)) == []


def test_a_core_without_memory_ends_and_blames_no_event(touchy: CoreProcess) -> None:
    first = batch(0, item_id="huge")
    touchy.send(first, strangers(first), NOW)
    with pytest.raises(CoreLost, match=r"ended \(exit 1\) at 'ahead'"):
        touchy.receive()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_who_signals_the_whole_group_ends_the_worker_not_its_core(
    core: CoreProcess, name: str
) -> None:
    """As a terminal does: the worker needs the core for what it still has to learn, and to keep."""
    assert core.quality()["events"] == 0  # it has begun
    os.kill(core.pid, getattr(signal, name))
    deliveries = batch(0)
    core.restore(strangers(deliveries))
    assert len(core.step(deliveries, NOW).accepted) == len(deliveries)


def test_a_core_that_died_is_said_so(core: CoreProcess) -> None:
    core.send(batch(0), strangers(batch(0)), NOW)
    core.receive()
    assert core.exit_code is None
    os.kill(core.pid, signal.SIGKILL)
    with pytest.raises(CoreLost, match=r"ended \(exit -9\)"):
        for first in range(20, 2_000, 20):
            core.send(batch(first), {}, NOW)
            core.receive()
    assert core.exit_code == -9


def test_a_core_that_died_can_be_closed(capfd: pytest.CaptureFixture[str]) -> None:
    """Closing must not hide why it ended, also with a call half sent."""
    core = CoreProcess(SMALL)
    os.kill(core.pid, signal.SIGKILL)
    core._child._process.wait()
    core._child._into.write(b"half a call")
    core.close()
    core.close()
    assert capfd.readouterr().err == ""


def test_a_child_whose_answers_nobody_reads_ends_quietly(
    capfd: pytest.CaptureFixture[str],
) -> None:
    core = CoreProcess(SMALL)
    first = batch(0)
    core._child._out.close()
    core.send(first, strangers(first), NOW)
    assert core._child._process.wait(10) == 0
    core.close()
    assert capfd.readouterr().err == ""


def test_an_answer_that_cannot_be_read_means_that_the_core_is_lost() -> None:
    core = CoreProcess(SMALL, BABBLING)
    first = batch(0)
    core.send(first, strangers(first), NOW)
    with pytest.raises(CoreLost, match="answered 'ahead' with what is no answer"):
        core.receive()
    core.close()


def test_there_is_a_pause_after_each_change_also_after_one_that_failed() -> None:
    core, order = Touchy(SMALL), []
    changes = [Item(item_id="a"), Item(item_id="poison"), "a"]
    faults = change_each(core, changes, lambda: order.append(len(order)))
    assert faults == ["", "ZeroDivisionError: no such thing", ""] and order == [0, 1, 2]
