"""What is left in the core of a user who was forgotten: nothing, and nothing comes back."""

from __future__ import annotations

import numpy as np

from online.core import Recommender
from online.events import Delivery, Event
from online.step import OF_A_FORGOTTEN_PAST, PastEvent
from tests.encoders.direct import Direct
from tests.online.test_core import deliveries, run
from tests.online.test_encoder import CONFIG

LATE = 10**10


def tell(core: Recommender, kind: str, ts: int, name: str, item: str = "i1", user: str = "u1"):  # type: ignore[no-untyped-def]
    event = Event(event_id=name, type=kind, user_id=user, item_id=item, ts=ts)  # type: ignore[arg-type]
    return core.step([Delivery(event, "events", 0, 0, ts)], LATE)


def returned(core: Recommender, ts: int) -> None:
    """Hold the user again, as a driver does who knows of the erasure."""
    core.restore({"u1": [PastEvent("", "forget", "", ts)]})


def test_a_forgotten_user_is_not_held_by_name() -> None:
    core = Recommender()
    log = deliveries(400)
    run(core, log)
    assert "u1" in core.held()
    tell(core, "forget", log[-1].event.ts, "bye", item="")
    assert "u1" not in core.held() and len(core.held()) == 19
    assert "u1" not in core.state()["memory"]["users"]["order"]


def test_nothing_refers_to_a_forgotten_user() -> None:
    core = Recommender(CONFIG, Direct())
    log = deliveries(400)
    run(core, log)
    tables = core._memory.tables
    slot = core._memory.users.get("u1")
    key = int(tables.user_key[slot])
    theirs = set(tables.page_event[tables.user_page[slot]].tolist()) - {0}
    assert key in tables.recent and core._memory.sequences.row[slot] >= 0 and theirs
    back = Event(event_id="back", type="click", user_id="u1", item_id="i3", ts=LATE)
    bye = Event(event_id="bye", type="forget", user_id="u1", ts=LATE)
    core.step([Delivery(e, "events", 0, n, 0) for n, e in enumerate((bye, back))], LATE)
    tables = core._memory.tables
    alive = tables.recent[np.isin(tables.recent, tables.user_key)]
    assert key not in alive
    assert not theirs & set(tables.page_event.ravel().tolist())  # pages are written as they are


def test_what_came_before_is_refused_whatever_its_time() -> None:
    core = Recommender()
    log = deliveries(400)
    run(core, log)
    past = [d for d in log if d.event.user_id == "u1"]
    tell(core, "forget", past[0].event.ts - 1, "bye", item="")  # with an early time
    last = past[-1].event.ts
    returned(core, last)
    for d in (past[0], past[-1]):
        (reject,) = core.step([d], LATE).rejects
        assert reject.reason == OF_A_FORGOTTEN_PAST
        assert "u1" not in core.held()
        returned(core, last)
    assert len(tell(core, "click", last + 1, "new").accepted) == 1


def test_a_forget_is_never_too_late() -> None:
    core = Recommender()
    limit = core.history_limit
    for n in range(limit + 20):
        tell(core, "click", 1000 + n, f"e{n}", item=f"i{n % 7}")
    assert tell(core, "click", 1, "old").rejects[0].reason.startswith("too_late")
    step = tell(core, "forget", 0, "bye", item="")
    assert len(step.accepted) == 1 and "u1" not in core.held()


def test_lessons_do_not_join_the_past_with_what_comes_after() -> None:
    trainer = Direct()
    core = Recommender(CONFIG, trainer)
    noted: list[list[int]] = []
    note = core._teaching.note  # type: ignore[union-attr]

    def noting(user, *rest):  # type: ignore[no-untyped-def]
        noted.append(user.tolist())
        note(user, *rest)

    core._teaching.note = noting  # type: ignore[union-attr,method-assign]
    kinds = ("click", "click", "forget", "click")
    batch = [
        Delivery(Event(event_id=f"e{n}", type=kind, user_id="u1", ts=1000 + n,
                       item_id="" if kind == "forget" else f"i{n}"), "events", 0, n, 0)
        for n, kind in enumerate(kinds)
    ]  # fmt: skip
    core.step(batch, LATE)  # type: ignore[arg-type]
    assert [len(users) for users in noted] == [1]
