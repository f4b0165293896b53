"""Raw messages through the core: decode, recall histories, step; find what poisons a batch.

Everything here is synchronous. `prepare` may run beside the rest; all else takes turns in one
thread, because the core takes one caller at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast

from infra.erasures import Erasures
from infra.log import get_log
from infra.pseudonyms import Pseudonyms
from infra.rows import Announcement, DeadLetter, Place
from infra.warehouse_types import Warehouse, WarehouseError
from online.events import Delivery, Event, Item, item_fault
from online.step import OF_A_FORGOTTEN_PAST, Core, Histories, Reject, Step
from online.texts import TextVector
from streams.ahead import AtOnce, TakesAhead
from streams.codec import Fault, decode_event, decode_item, encode, unquoted
from streams.core_process import CoreLost, CoreRaised
from streams.recall import Recall
from streams.reviews import judged
from streams.text_service import TextService, Understood
from streams.texts import queries_of

if TYPE_CHECKING:
    from streams.sharing import Heard, Hears

log = get_log("learning")

T = TypeVar("T")

MAX_REASON = 500  # characters


class Understands(Protocol):
    """A core that understands texts."""

    def put_texts(self, vectors: Iterable[TextVector]) -> None: ...


class Message(NamedTuple):
    """A record of a topic as it came."""

    topic: str
    partition: int
    offset: int
    produced_ms: int
    key: bytes | None
    value: bytes | None


@dataclass(slots=True)
class Learned:
    """What one batch did: to be written, then acknowledged."""

    step: Step = field(default_factory=Step)  # its rejects are in `letters`
    letters: list[DeadLetter] = field(default_factory=list)
    announcements: list[Announcement] = field(default_factory=list)
    other_keys: int = 0  # events whose Kafka key is not their user_id
    repeated: int = 0  # `forget` events that were heeded before
    number: int = 0  # of its batch of events, in the order of `prepare`
    messages: int = 0  # that it was made from
    texts: Understood | None = None  # what was read, to be kept
    raw_bytes: int = 0  # of these


@dataclass(slots=True)
class Prepared:
    """A batch that only the core still has to see."""

    batch: list[Delivery] = field(default_factory=list)
    raw: dict[Place, bytes] = field(default_factory=dict)
    histories: Histories = field(default_factory=dict)
    queries: list[TextVector] = field(default_factory=list)
    learned: Learned = field(default_factory=Learned)


class Changing(NamedTuple):
    """Changes of the catalogue that the core was sent; what is wrong with others has its letter."""

    changes: list[tuple[Message, Item | str]]
    learned: Learned


class Poisoned(Exception):
    """The core raised on a batch. Nothing is lost: give the batch to `Learner.rescue`."""

    def __init__(self, ready: Prepared) -> None:
        super().__init__("the core raised")
        self.ready = ready


class Learner:
    """The core together with the histories that it needs."""

    def __init__(
        self, core: Core, warehouse: Warehouse, max_record_bytes: int,
        erasures: Erasures | None = None, pseudonyms: Pseudonyms | None = None,
        texts: TextService | None = None,
    ) -> None:  # fmt: skip
        """texts: None, and nothing that is searched for is understood."""
        self.core = core
        self.texts = texts
        self._erasures = erasures
        self._pseudonyms = pseudonyms
        self.quality: dict[str, Any] = {}  # for other threads: replaced, never changed
        self._line: TakesAhead = core if isinstance(core, TakesAhead) else AtOnce(core)
        self._recall = Recall(core, warehouse, erasures)
        self._max_record_bytes = max_record_bytes

    @property
    def ahead(self) -> int:
        """Batches that may be under way: sent, and not received."""
        return self._line.ahead

    def prepare(self, messages: list[Message]) -> Prepared:
        """Decode one batch of events and read the histories that the core probably lacks.

        May run while batches before are learned and written. Raises WarehouseError: try again.
        """
        ready = Prepared(learned=_learned_from(messages))
        # Within a partition the order is the log's. How partitions were interleaved is chance: a
        # batch of the same messages must be the same batch.
        for m in sorted(messages, key=lambda m: m.partition):
            event = decode_event(m.value, self._max_record_bytes)
            if isinstance(event, Fault):
                ready.learned.letters.append(self._refused(m, event.reason))
                continue
            # a stranger's key only endangers the order of that user's events: accept and count
            ready.learned.other_keys += m.key is not None and m.key != event.user_id.encode()
            self._admit(m, event, ready)
        queries = queries_of(d.event for d in ready.batch)
        if self.texts is not None and queries:
            self.texts.look_up(queries)  # may raise: nothing is made before all is there
        ready.learned.number, ready.histories = self._recall.early(ready.batch)
        if self.texts is not None and queries:
            ready.learned.texts = self.texts.of_queries(queries)
            ready.queries = ready.learned.texts.vectors
        return ready

    def _admit(self, m: Message, event: Event, ready: Prepared) -> None:
        raw = m.value or b""
        if self._pseudonyms is not None:  # nothing after this sees another id
            named = self._pseudonyms.event(event)
            if isinstance(named, str):
                ready.learned.letters.append(self._refused(m, named))
                return
            event, raw = named, encode(named)
        forget = event.type == "forget"
        if forget and self._erasures is not None and self._erasures.repeated(event):
            ready.learned.repeated += 1
            return
        ready.batch.append(Delivery(judged(event), m.topic, m.partition, m.offset, m.produced_ms))
        ready.raw[m.topic, m.partition, m.offset] = raw

    def _refused(self, m: Message, reason: str) -> DeadLetter:
        """The dead letter of what is no event; with pseudonyms it holds nothing that was sent."""
        if self._pseudonyms is None:
            return self._letter(m, reason)
        return self._letter(m._replace(value=None), unquoted(reason))

    def send(self, ready: Prepared, now_ms: int) -> None:
        """Let the core begin with a batch when it is done with those before; then `receive`.

        At most `ahead` batches may be under way. Raises Poisoned when the core cannot even be told
        of the batch: there is nothing to receive then.
        """
        if ready.batch:
            what = ready.batch, ready.histories, now_ms, ready.queries
            self._tried(ready, lambda: self._line.send(*what))

    def receive(self, ready: Prepared) -> Learned | None:
        """What came of the batch that was sent first. Raises Poisoned when the core raised.

        None: nothing of it was learned, nor of those that were sent after it. Receive these too,
        then give each to `learn`, in order, once all before it is journalled.
        """
        if not ready.batch:
            return ready.learned
        step = self._tried(ready, self._line.receive)
        return None if step is None else self._settle(ready, step)

    @property
    def attentive(self) -> bool:
        """May the core be told of more, before it has answered something?"""
        return getattr(self.core, "attentive", True)

    def hear(self, heard: Heard, records: list[tuple[int, int, bytes]]) -> None:
        """Tell the core what other workers told."""
        if not self.attentive:
            self.core.missing([])  # its answer says that it has heard all
        heard.apply(cast("Hears", self.core), records)

    def drop_users(self) -> None:
        """Hold nobody any more; nothing may be under way."""
        cast(Any, self.core).drop_users()

    def journalled(self, learned: Learned) -> None:
        """The events of this batch, and of all before it, are in the warehouse."""
        self._recall.journalled = max(self._recall.journalled, learned.number)

    def learn(self, ready: Prepared, now_ms: int) -> Learned:
        """Step one batch of events. Call when everything learned before is in the warehouse.

        Raises WarehouseError while histories cannot be read (nothing was learned: try again) and
        Poisoned when the core raised.
        """
        if not ready.batch:
            return ready.learned

        def step() -> Step:
            self._recall.complete(ready.batch, ready.histories)
            if ready.queries:
                cast("Understands", self.core).put_texts(ready.queries)
            return self.core.step(ready.batch, now_ms)

        return self._settle(ready, self._tried(ready, step))

    @staticmethod
    def _tried(ready: Prepared, step: Callable[[], T]) -> T:
        try:
            return step()
        except (WarehouseError, MemoryError, CoreLost):
            raise
        except Exception as error:
            log.error("core_raised", error=_said(error), events=len(ready.batch))
            raise Poisoned(ready) from error

    def rescue(self, poisoned: Poisoned, now_ms: int) -> Learned:
        """Learn a poisoned batch in halves until only the culprits are left; they are rejected.

        Call when everything learned before is in the warehouse: what the failed attempt had
        already learned looks like a duplicate to the core, and the journal tells it from a true
        one. Raises WarehouseError.
        """
        ready, batch = poisoned.ready, poisoned.ready.batch
        past = self._recall.read(sorted({d.event.user_id for d in batch}))
        known = {e.event_id for history in past.values() for e in history}
        step = Step()
        slates = {}
        for part in self._parts(ready, now_ms, step):
            slates.update({s.user_id: s for s in part.slates})
        refused = {r.delivery[1:4] for r in step.rejects}
        for d in batch:
            if d[1:4] in refused:
                continue
            if d.event.event_id in known:
                step.duplicates += 1
                continue
            known.add(d.event.event_id)
            step.accepted.append(d)
        step.slates = list(slates.values())
        return self._settle(ready, step)

    def read(self, items: Sequence[Item]) -> Learned:
        """What these items' texts say, told to nobody yet. Raises WarehouseError, TextLost."""
        assert self.texts is not None
        return Learned(texts=self.texts.of_items(items))

    def understand(self, learned: Learned) -> None:
        """Tell the core what was read, after what it was sent before."""
        if learned.texts is not None:
            cast("Understands", self.core).put_texts(learned.texts.vectors)

    def send_changes(self, messages: list[Message]) -> Changing:
        """Tell the core one batch of the topic `items`, announcements and tombstones, after what
        it was sent before; then `receive_changes`. At most `ahead` may be under way."""
        changing = Changing([], _learned_from(messages))
        for m in messages:
            change = self._change(m)
            if isinstance(change, Fault):
                changing.learned.letters.append(self._letter(m, change.reason))
            else:
                changing.changes.append((m, change))
        self._line.send_changes([change for _, change in changing.changes])
        return changing

    def receive_changes(self, changing: Changing) -> Learned:
        """What came of the changes that were sent first."""
        learned = changing.learned
        for (m, change), fault in zip(changing.changes, self._line.receive_changes(), strict=True):
            if fault:
                learned.letters.append(self._letter(m, f"poison: {fault}"))
                continue
            item = None if isinstance(change, str) else change
            item_id = change if isinstance(change, str) else change.item_id
            place = (m.topic, m.partition, m.offset, m.produced_ms)
            learned.announcements.append(Announcement(item_id, item, *place))
        return learned

    def _change(self, m: Message) -> Item | str | Fault:
        """The item that is announced, or the id of the one that is gone."""
        if m.value is None:
            item_id = (m.key or b"").decode("utf-8", "replace")
            if m.key is None or item_id.encode() != m.key or item_fault(Item(item_id=item_id)):
                return Fault("invalid: a tombstone needs the item_id as its key")
            return item_id
        item = decode_item(m.value, self._max_record_bytes)
        if not isinstance(item, Fault) and (fault := item_fault(item)):
            return Fault(f"invalid: {fault}")
        return item

    def _parts(self, ready: Prepared, now_ms: int, total: Step) -> Iterable[Step]:
        """Steps of ever smaller parts, in order; rejects and metrics are added to `total`."""
        batch = ready.batch
        waiting = [batch[len(batch) // 2 :], batch[: len(batch) // 2]]  # the last one is next
        while waiting:
            part = waiting.pop()
            if not part:
                continue
            try:
                self._recall.complete(part, ready.histories)
                step = self.core.step(part, now_ms)
            except (WarehouseError, MemoryError, CoreLost):
                raise
            except Exception as error:
                if len(part) == 1:
                    total.rejects.append(Reject(part[0], f"poison: {_said(error)}"))
                else:
                    middle = len(part) // 2
                    waiting += [part[middle:], part[:middle]]
                continue
            total.rejects += step.rejects
            total.metrics += step.metrics
            yield step

    def _settle(self, ready: Prepared, step: Step) -> Learned:
        """Add the step to what was learned; its rejects become dead letters, as they came."""
        learned = ready.learned
        learned.step = step
        for reject in step.rejects:
            d = reject.delivery
            came = ready.raw.get((d.topic, d.partition, d.offset), b"")
            if reject.reason == OF_A_FORGOTTEN_PAST:
                came = b""  # it names who was forgotten
            learned.letters.append(
                DeadLetter(d.topic, d.partition, d.offset, d.produced_ms,
                           reject.reason[:MAX_REASON], came)
            )  # fmt: skip
        step.rejects = []
        self.quality = self.core.quality()
        self._recall.held = self.quality.get("users", 0)
        return learned

    def _letter(self, m: Message, reason: str) -> DeadLetter:
        came = (m.value or b"")[: self._max_record_bytes]
        return DeadLetter(m.topic, m.partition, m.offset, m.produced_ms, reason[:MAX_REASON], came)


def _said(error: Exception) -> str:
    """What the core raised; the same words wherever the core runs."""
    return str(error) if isinstance(error, CoreRaised) else f"{type(error).__name__}: {error}"


def _learned_from(messages: list[Message]) -> Learned:
    return Learned(messages=len(messages), raw_bytes=sum(len(m.value or b"") for m in messages))
