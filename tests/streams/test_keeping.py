"""States of the core that are never finished: they do not keep others from being written."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from infra.checkpoints import About, Checkpoints, about_state
from infra.parts import write_part
from streams import keeping
from streams.keeping import Keeper, Origin, Position
from streams.status import Status


class Silent:
    """A core whose writer died without a word."""

    def keep(self, folder: Path) -> list[str]:
        return ["core"]


async def test_a_state_that_is_never_finished_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "ABANDONED_S", 0.05)
    monkeypatch.setattr(keeping, "LOOK_S", 0.01)
    monkeypatch.setattr(keeping, "AFTER_A_FAULT_S", 0.0)
    checkpoints, status = Checkpoints(tmp_path), Status()
    keeper = Keeper(checkpoints, Silent(), status, Origin("1", "broker-1", {}), 1, every_events=1)
    running = asyncio.create_task(keeper.run())
    try:
        for _ in range(2):  # the next one may begin
            keeper.learned(1)
            assert keeper.due()
            keeper.begin(Position(0, {}, {}, {}))
            assert not keeper.due()
            for _ in range(500):
                await asyncio.sleep(0.01)
                if status.checkpoints["status"] == "away" and keeper.due():
                    break
            assert "was never finished" in status.checkpoints["error"]
            left = {path.name for path in checkpoints.folder.iterdir()}
            assert left == {"lock", "lineage"}
            status.works("checkpoints")
    finally:
        running.cancel()
        keeper.stop()
        checkpoints.close()


class Quick:
    """A core whose state is written at once."""

    def keep(self, folder: Path) -> list[str]:
        write_part(folder / "core", {"some": 1})
        return ["core"]


class SlowDisk(Checkpoints):
    """A disk that takes its time to make a state visible."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reached, self.goes_on = threading.Event(), threading.Event()

    def commit(self, folder: Path, about: About) -> None:
        self.reached.set()
        assert self.goes_on.wait(10)
        super().commit(folder, about)


@pytest.mark.parametrize("stopping", [False, True])
async def test_the_next_state_waits_until_the_one_before_is_visible(
    tmp_path: Path, stopping: bool
) -> None:
    checkpoints, status = SlowDisk(tmp_path), Status()
    keeper = Keeper(checkpoints, Quick(), status, Origin("1", "broker-1", {}), 1, every_events=1)
    keeper.learned(1)
    keeper.begin(Position(0, {}, {}, {}))
    running = asyncio.create_task(keeper.run())
    try:
        await asyncio.to_thread(checkpoints.reached.wait, 10)
        keeper.learned(1)  # as many as make the next one due
        assert not keeper.due()
        last = asyncio.create_task(keeper.last(Position(0, {}, {}, {}), 10)) if stopping else None
        await asyncio.sleep(0.1)
        checkpoints.goes_on.set()
        for _ in range(500):
            if checkpoints.states():
                break
            await asyncio.sleep(0.01)
        if last is not None:
            await last
        events = [about_state(state).events for state in checkpoints.states()]
        assert events == ([2, 1] if stopping else [1])
    finally:
        running.cancel()
        keeper.stop()
        checkpoints.close()
