"""Whether the broker's log is still the one that the worker began with."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from infra.address import BrokerAddress
from infra.settings import Settings
from streams import watching
from streams.app import make_app
from streams.status import Status
from streams.topics import BrokerUnreachable, Log
from streams.watching import BrokerWatch

ADDRESS = BrokerAddress.at("127.0.0.1:1")
FIRST, OTHER = Log("cluster/1", {"events": 2}), Log("cluster/2", {"events": 2})


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Log | None]:
    """What the broker answers next; None: nothing."""
    coming: list[Log | None] = []

    def answer(_: BrokerAddress) -> Log:
        log = coming.pop(0)
        if log is None:
            raise BrokerUnreachable("nobody there")
        return log

    monkeypatch.setattr(watching, "log_of", answer)
    monkeypatch.setattr(watching, "AGAIN_S", 0.01)
    return coming


async def test_another_log_is_noticed_when_it_stays(answers: list[Log | None]) -> None:
    watch = BrokerWatch(ADDRESS, Status(), FIRST)
    answers += [FIRST, OTHER, FIRST, None]  # a server that is behind; then nobody
    assert await watch.same_log() and not watch.gone
    assert await watch.same_log() and not watch.gone
    answers += [OTHER, OTHER]
    assert not await watch.same_log()
    assert "had the log cluster/1, and has cluster/2 now" in watch.gone


async def test_a_broker_that_does_not_answer_is_waited_for(
    answers: list[Log | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = BrokerWatch(ADDRESS, Status(), FIRST)
    answers += [None, None, FIRST]
    assert await watch.same_log() and answers == []
    monkeypatch.setattr(watching, "VERIFY_S", 0.0)
    answers += [None]
    assert await watch.same_log()  # it has to go on some time: messages wait


async def test_partitions_that_were_added_are_said_and_soon_read(
    answers: list[Log | None], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    status = Status()
    watch = BrokerWatch(ADDRESS, status, FIRST)
    answers += [FIRST, Log("cluster/1", {"events": 5}), Log("cluster/1", {"events": 5})]
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert await watch.same_log()
    assert caplog.text.count("partitions_changed") == 1
    assert status.broker["partitions"] == {"events": 5}
    app = make_app(Settings(state=tmp_path), ADDRESS)
    assert app.conf.consumer_metadata_max_age_ms <= 10_000
