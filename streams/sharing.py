"""What workers learn from each other: a speaker and a listener at the topic `model-updates`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from infra.address import BrokerAddress
from infra.log import get_log
from online.events import Item
from online.told import Rankers, Told, Weights
from streams.producer import Producer
from streams.topics import MODEL_UPDATES, BrokerUnreachable
from streams.updates import Announced, Chunk, OneBatch, Who, Word, decode, joined, read, words_of
from streams.writing import Work

log = get_log("sharing")

POLL_MS = 500
FETCH_WAIT_MS = 100
AT_ONCE = 4  # records of one poll: `MOST_TOLD` has room for them
MOST_CHUNKS = 1_000
LATE_WEIGHT = 0.05  # of the newest word in the mean


class Hears(Protocol):
    """A core that can be told what others learned: `streams.core_process.CoreProcess`."""

    def hear(self, events: list[Told]) -> None: ...
    def heard_rankers(self, source: int, said: Rankers) -> None: ...
    def adopt(self, said: Weights) -> None: ...
    def heard_items(self, items: list[Item], withdrawn: list[str]) -> None: ...


class Speaker:
    """Tells the others what journalled batches did. In a thread."""

    def __init__(self, producer: Producer, who: Who) -> None:
        self._producer, self._who = producer, who

    def tell(self, works: Sequence[Work]) -> None:
        """Raises DeliveryFailed: call again; readers know what they have."""
        words = words_of(works, self._who)
        for word in words:
            self._producer.send_raw(self._who.group.encode() + b"/%d" % self._who.shard, word)
        if words:
            self._producer.confirm()


class Heard:
    """What was heard, from where on in the topic, and which batches of each shard we have."""

    def __init__(self, who: Who, batches: dict[int, int], offsets: dict[int, int]) -> None:
        """batches: by shard, the newest that counts already; offsets: by partition, the next."""
        self._who = who
        self.batches, self.offsets = dict(batches), dict(offsets)
        self.events = 0  # of others, that we heard of
        self.late_ms = 0.0  # from when they were learned until we heard, a moving mean
        self._chunks: dict[int, list[Chunk]] = {}
        self._catalogue: dict[str, Item | None] = {}  # heard of, and not taken away yet

    def take_catalogue(self) -> dict[str, Item | None]:
        """The newest of each item that was heard of since this was asked last; None: withdrawn."""
        heard, self._catalogue = self._catalogue, {}
        return heard

    def figures(self) -> dict[str, Any]:
        """For /health: our shard, and of the others the newest batch that we heard of."""
        return {"shard": self._who.shard, "heard": {str(s): b for s, b in self.batches.items()},
                "events": self.events, "late_ms": round(self.late_ms)}  # fmt: skip

    def apply(self, core: Hears, records: list[tuple[int, int, bytes]]) -> None:
        """Tell the core what is new in records (partition, offset, value), in order."""
        for partition, offset, value in records:
            word = read(value)
            if word is not None and word.group == self._who.group and word.shard != self._who.shard:
                try:
                    self._hear(core, word)
                except msgspec.MsgspecError as fault:  # whoever may write there must not end us
                    log.warning("word_not_understood", kind=word.kind, shard=word.shard,
                                partition=partition, offset=offset, why=str(fault))  # fmt: skip
            self.offsets[partition] = offset + 1

    def _hear(self, core: Hears, word: Word) -> None:
        if word.kind == "events":
            self._hear_events(core, word)
        elif word.kind == "items":
            announced = decode(word.body, type=Announced)
            core.heard_items(announced.items, announced.withdrawn)
            self._catalogue |= {item.item_id: item for item in announced.items}
            self._catalogue |= dict.fromkeys(announced.withdrawn)
        elif word.kind == "rankers":
            core.heard_rankers(word.shard, decode(word.body, type=Rankers))
        elif word.kind == "weights":
            self._hear_weights(core, word)

    def _hear_events(self, core: Hears, word: Word) -> None:
        newest = self.batches.get(word.shard, -1)
        if word.batch <= newest:
            return
        told = [e for batch, events in decode(word.body, type=list[OneBatch]) if batch > newest
                for e in events]  # fmt: skip
        core.hear(told)
        self.batches[word.shard] = word.batch
        self.events += len(told)
        late_ms = (time.time_ns() // 1000 - word.batch) / 1000  # its number is about its time
        self.late_ms += LATE_WEIGHT * (late_ms - self.late_ms)

    def _hear_weights(self, core: Hears, word: Word) -> None:
        chunk = decode(word.body, type=Chunk)
        chunks = self._chunks.setdefault(word.shard, [])
        if chunk.part == 0:
            chunks.clear()
        if chunk.part != len(chunks) or len(chunks) >= MOST_CHUNKS:
            chunks.clear()  # the beginning was missed: the next ones come soon
            return
        chunks.append(chunk)
        if len(chunks) == chunk.parts:
            core.adopt(joined(chunks))
            chunks.clear()


@dataclass
class Sharing:
    """Both ends, of a worker that is one of several."""

    speaker: Speaker
    listener: Listener
    heard: Heard


class Listener:
    """Reads the topic from where `heard` is. Use from one event loop; `close` it."""

    def __init__(self, broker: BrokerAddress, heard: Heard) -> None:
        self._broker = broker
        self._heard = heard
        self._thread = ThreadPoolExecutor(1, "listen")
        self._consumer: KafkaConsumer | None = None

    def poll(self) -> list[tuple[int, int, bytes]]:
        """The next records (partition, offset, value); waits a moment for them. In a thread.

        Raises BrokerUnreachable.
        """
        try:
            if self._consumer is None:
                self._consumer = self._connected()
            found = self._consumer.poll(timeout_ms=POLL_MS, max_records=AT_ONCE)
        except (KafkaError, OSError, ValueError) as error:
            self._disconnect()
            raise BrokerUnreachable(
                f"the topic {MODEL_UPDATES} cannot be read ({type(error).__name__}: {error})"
            ) from error
        return [(r.partition, r.offset, r.value) for records in found.values() for r in records]

    @property
    def thread(self) -> ThreadPoolExecutor:
        return self._thread

    def close(self) -> None:
        self._thread.submit(self._disconnect)
        self._thread.shutdown(wait=False)

    def _connected(self) -> KafkaConsumer:
        consumer = KafkaConsumer(
            **self._broker.client_options(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            bootstrap_timeout_ms=10_000,
        )
        partitions = consumer.partitions_for_topic(MODEL_UPDATES) or {0}
        places = [TopicPartition(MODEL_UPDATES, p) for p in sorted(partitions)]
        consumer.assign(places)
        for place in places:
            if place.partition in self._heard.offsets:
                consumer.seek(place, self._heard.offsets[place.partition])
            else:
                consumer.seek_to_beginning(place)
        return consumer

    def _disconnect(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with contextlib.suppress(Exception):
                consumer.close()
