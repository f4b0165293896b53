"""States of the core that are never finished: they do not keep others from being written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from infra.checkpoints import Checkpoints
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
