"""What the demo measures at its end."""

from __future__ import annotations

from typing import Any

from streams.demo_watch import MEASURED, Watch


class Sql:
    """A warehouse in which another batch's metrics are there at each look."""

    looks = 0

    def rows(self, query: str, **_: Any) -> list[list[Any]]:
        assert query == MEASURED
        self.looks += 1
        return [[40 * self.looks]]


def test_metrics_are_read_once_those_of_all_targets_are_written() -> None:
    sql: Any = Sql()
    Watch(lambda: {"quality": {"targets": 100}}, sql, {}, [], 0.0).await_metrics(10.0)
    assert sql.looks == 3


def test_who_waits_for_metrics_that_do_not_come_gives_up() -> None:
    sql: Any = Sql()
    Watch(lambda: {"quality": {"targets": 10**6}}, sql, {}, [], 0.0).await_metrics(0.25)
    assert 1 <= sql.looks <= 4
