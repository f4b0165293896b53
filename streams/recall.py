"""Histories for the core: who probably needs one is read early, the rest when the core says so."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from infra.erasures import Erasures
from infra.warehouse_types import Warehouse
from online.events import Delivery
from online.step import Core, Histories

RECENT_USERS = 50_000  # the newest ones that the core is believed to hold


class Recall:
    """Reads the histories that the core lacks. `early` may run beside everything else.

    What is read early must not miss what was learned and is not journalled yet. So the users of
    unjournalled batches are never read early: either the core holds them, or it refuses the batch,
    and `complete` reads once all before it is journalled.
    """

    def __init__(self, core: Core, warehouse: Warehouse, erasures: Erasures | None = None) -> None:
        self._core = core
        self._erasures = erasures
        self._warehouse = warehouse
        # by user, the newest batch with the user; newest last (a dict would search for its first)
        self._recent: OrderedDict[str, int] = OrderedDict()
        self._batches = 0  # that were prepared
        self.journalled = 0  # the newest batch that is in the warehouse, as are all before it
        self.held = 0  # users that the core held after the newest step
        self._believed_too_much = False
        self._released: dict[str, int] = {}  # users whom the core forgot, and in which batch

    def early(self, batch: list[Delivery]) -> tuple[int, Histories]:
        """The batch's number, and the histories that the core probably lacks for it.

        Raises WarehouseError: try again.
        """
        users = dict.fromkeys(d.event.user_id for d in batch)
        found = self.read([user for user in users if self._lacked(user)])
        self._batches += 1
        self._remember(users, self._batches)
        self._note_forgotten(batch)
        return self._batches, found

    def complete(self, batch: list[Delivery], found: Histories) -> None:
        """Give the core the histories of those users of `batch` that it does not hold.

        `found` were read before; what they lack is read now: everything that was learned before
        must be in the warehouse. Raises WarehouseError; and MemoryError when the core cannot hold
        them all at once: it would take the rest for new users, and learn what is repeated twice.
        """
        missing = self._core.missing(batch)
        if not missing:
            return
        more = [user for user in missing if user not in found]
        self._believed_too_much |= any(user not in self._released for user in more)
        read = self.read(more)
        self._core.restore({user: found[user] if user in found else read[user] for user in missing})
        if self._core.missing(batch):
            raise MemoryError(
                f"the histories of the users of one batch ({len(batch)} events) do not fit: raise "
                "FRESHREC_MEMORY_MB or lower FRESHREC_BATCH"
            )

    def read(self, users: list[str]) -> Histories:
        """An entry for each user, empty for one without events.

        Without a limit: what is in the journal was learned, by us or by another worker, wherever
        it lies in the log. A message that is delivered again never comes here (`Intake`), and one
        that repeats an event has to find it.
        """
        if not users:
            return {}
        past = self._warehouse.read(users, {}, self._core.history_limit)
        histories = {user: past.get(user, []) for user in users}
        return self._erasures.begin(histories) if self._erasures else histories

    def _lacked(self, user: str) -> bool:
        forgot = self._released.get(user)
        if forgot is not None and forgot <= self.journalled:
            del self._released[user]  # it is in the warehouse: the history begins with it
            return True
        return user not in self._recent

    def _note_forgotten(self, batch: list[Delivery]) -> None:
        for d in batch:
            if d.event.type == "forget":
                self._released[d.event.user_id] = self._batches
        while len(self._released) > RECENT_USERS:
            del self._released[next(iter(self._released))]

    def _remember(self, users: Iterable[str], number: int) -> None:
        for user in users:
            self._recent[user] = number
            self._recent.move_to_end(user)
        while len(self._recent) > self._believed():
            oldest = next(iter(self._recent))
            if self._recent[oldest] > self.journalled:
                return
            del self._recent[oldest]

    def _believed(self) -> int:
        """How many of the newest users the core holds.

        With long histories it may hold few. Once it lacked one that we believed in, we believe in
        half of what it holds: its order of use is not quite ours.
        """
        return min(RECENT_USERS, self.held // 2) if self._believed_too_much else RECENT_USERS
