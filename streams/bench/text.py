"""`freshrec bench text`: what the language model costs, and what understanding texts is worth.

A log is replayed, all but its last baskets. Then, from the same state and without learning:

    cold users   somebody of whom nothing is known types the words of half a basket's titles; how
                 many of the other half are among the ten recommended? Beside it: the most popular
    search       a title of four words and more, with one left out or misspelt: how many of the
                 titles that contain all the other words are among ten, of those that fit there
    personal     a user types a word of what they take next: its place with and without the user
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import wilcoxon  # type: ignore[import-untyped]

from encoders.lexicon import Lexicon
from encoders.text import TextEncoder
from encoders.text_config import BUNDLED, TextConfig
from online import texts as core_texts
from online.core import Recommender, RecommenderConfig
from online.events import Event, Item
from online.step import PastEvent
from online.texts import TextVector, query_name
from streams.assembly import make_core
from streams.bench.machine import BenchError, machine
from streams.logfile import EventLog, ItemFile, Reading
from streams.replay import Replay
from streams.texts import text_of
from streams.understanding import Understood, understand

Say = Callable[[str, int, int], None]
TOP = 10


@dataclass(frozen=True, slots=True)
class TextPlan:
    """What to measure on."""

    log: Path
    items: Path
    model: str = BUNDLED
    limit: int | None = None  # events
    baskets: int = 1_000  # at the end of the log
    queries: int = 500
    seed: int = 0
    config: RecommenderConfig = field(default_factory=RecommenderConfig)
    reading: Reading = field(default_factory=Reading)


class Basket(NamedTuple):
    user: str
    ts: int
    items: list[str]


def run(plan: TextPlan, say: Say) -> dict[str, Any]:
    """Measure. Raises BenchError, TextModelError, LogError."""
    torch.set_num_threads(1)  # as in a worker
    items = list(ItemFile(plan.items))
    said = {item.item_id: text_of(item) for item in items}
    if not any(said.values()):
        raise BenchError(f"{plan.items} says nothing of its items: a column title is needed")
    report: dict[str, Any] = {"machine": machine(), "speed": _speed(plan, list(said.values()))}
    read = [0]

    def progress(count: int) -> None:
        read[0] += count
        say("reading texts", read[0], len(said))

    understood = understand(items, plan.model, progress)
    with EventLog(plan.log, plan.reading) as log:
        core, baskets, popular = _replayed(plan, log, items, understood, say)
    try:
        shop = Shop(core, understood, items, popular)
        report |= {
            "cold_users": shop.cold_users(baskets, random.Random(plan.seed)),
            "search": shop.search(plan.queries, random.Random(plan.seed)),
            "personal_search": shop.personal(baskets, random.Random(plan.seed)),
        }
    finally:
        core.close()
    return report


def _speed(plan: TextPlan, texts: list[str]) -> dict[str, Any]:
    """Titles a second, as a catalogue is read and as the worker reads; one query, in ms."""
    found: dict[str, Any] = {}
    some = [text for text in texts if text][:2_000]
    for precision in ("float32", "auto"):
        encoder = TextEncoder(TextConfig(plan.model, precision=precision))
        encoder.encode(some[:64])
        began = time.perf_counter()
        vectors = encoder.encode(some)
        seconds = time.perf_counter() - began
        one = []
        for text in some[:100]:
            began = time.perf_counter()
            encoder.encode([text])
            one.append(1000 * (time.perf_counter() - began))
        found[encoder.precision] = {
            "titles_per_second": round(len(some) / seconds, 1),
            "query_ms_p50": round(float(np.median(one)), 2),
            "query_ms_p99": round(float(np.quantile(one, 0.99)), 2),
        }
        if precision == "float32":
            exact = vectors
        else:
            same = float((exact * vectors).sum(1).mean())
            found[encoder.precision] |= {"cosine_to_float32": round(same, 6)}
    return found


def _replayed(
    plan: TextPlan, log: EventLog, items: list[Item], understood: Understood, say: Say
) -> tuple[Recommender, list[Basket], list[str]]:
    """The core before the last baskets; these; and the most popular items, most popular first."""
    from dataclasses import replace

    text = core_texts.TextConfig(understood.width, understood.model)
    core = make_core(replace(plan.config, text=text))
    core.warm_up()
    core.announce(items)
    core.put_texts(understood.items)
    total = min(log.rows, plan.limit or log.rows)
    last = _baskets(_all_events(log, total))[-plan.baskets :]
    if len(last) < 10:
        raise BenchError(f"{plan.log}: baskets (events of one session_id or moment) are needed")
    first_ts, replay, taken = last[0].ts, Replay(core, understood.reader), Counter[str]()
    for events in log.batches(512, limit=total):
        before = [event for event in events if event.ts < first_ts]
        if not before:
            break
        replay.feed(before)
        taken.update(event.item_id for event in before)
        say("replaying", replay.offset, total)
    return core, last, [item for item, _ in taken.most_common(TOP)]


def _all_events(log: EventLog, total: int) -> Iterator[Event]:
    for events in log.batches(4096, limit=total):
        yield from events


def _baskets(events: Iterator[Event]) -> list[Basket]:
    """What was taken together: one user, one session or else one moment; of two items and more."""
    found: dict[tuple[str, str], Basket] = {}
    for event in events:
        key = event.user_id, event.session_id or str(event.ts)
        basket = found.setdefault(key, Basket(event.user_id, event.ts, []))
        if event.item_id and event.item_id not in basket.items:
            basket.items.append(event.item_id)
    return sorted((b for b in found.values() if len(b.items) > 1), key=lambda b: b.ts)


class Shop:
    """A core that is asked, and does not learn."""

    def __init__(
        self, core: Recommender, understood: Understood, items: Sequence[Item], popular: list[str]
    ) -> None:
        self._core, self._reader, self._popular = core, understood.reader, popular
        self._titles = {item.item_id: item.title for item in items if item.title}
        self._words = Lexicon()
        self._words.put((item.item_id, text_of(item)) for item in items)

    def cold_users(self, baskets: Sequence[Basket], rng: random.Random) -> dict[str, Any]:
        hits, popular, baskets_hit, targets, n = 0, 0, 0, 0, 0
        for number, basket in enumerate(baskets):
            known = [item for item in basket.items if item in self._titles]
            if len(known) < 2:
                continue
            rng.shuffle(known)
            told, rest = known[: len(known) // 2], set(known[len(known) // 2 :])
            query = " ".join(self._titles[item] for item in told)
            found = self._recommended(f"\1cold-{number}", query, basket.ts)
            hits += len(rest & set(found))
            popular += len(rest & set(self._popular))
            baskets_hit += bool(rest & set(found))
            targets += len(rest)
            n += 1
        return {
            "baskets": n,
            "targets": targets,
            "hr@10": round(hits / targets, 4),
            "popularity_hr@10": round(popular / targets, 4),
            "ratio": round(hits / max(popular, 1), 2),
            "baskets_hit": round(baskets_hit / n, 4),
        }

    def _recommended(self, user: str, query: str, ts: int) -> list[str]:
        self._core.put_texts(self._reader.of_queries([query]))
        self._core.restore({user: [PastEvent("q", "search", query_name(query), ts)]})
        slate = self._core.recommend(user, ts, TOP)
        self._core.release([user])
        return [one.item_id for one in slate]

    def _found(self, text: str, user: str, ts: int, personal: bool = True) -> list[str]:
        vectors = self._reader.of_queries([text])
        query = vectors[0] if vectors else TextVector(query_name(text), b"")
        lexical = self._words.search(text)
        found = self._core.search(query, text, lexical, user, ts, 100, personal)
        return [one.item_id for one in found]

    def search(self, queries: int, rng: random.Random) -> dict[str, Any]:
        """Recall of titles that contain all remaining words, over that of an oracle."""
        words = {item: title.casefold().split() for item, title in self._titles.items()}
        long = sorted(item for item, some in words.items() if len(set(some)) >= 4)
        found: dict[str, list[float]] = {"dropped": [], "misspelt": []}
        for _ in range(queries):
            item = rng.choice(long)
            for way, shares in found.items():
                query, rest = _spoilt(words[item], way, rng)
                right = {other for other, theirs in words.items() if rest <= set(theirs)}
                got = self._found(" ".join(query), "", 1 << 42)[:TOP]
                shares.append(len(right & set(got)) / min(len(right), TOP))
        return {f"recall@10_of_oracle_{way}": round(float(np.mean(shares)), 4)
                for way, shares in found.items()}  # fmt: skip

    def personal(self, baskets: Sequence[Basket], rng: random.Random) -> dict[str, Any]:
        """Reciprocal ranks of what the user took, with and without the user; one-sided Wilcoxon."""
        ours, theirs = [], []
        for basket in baskets:
            if not self._core.absent([basket.user]):
                item = rng.choice(basket.items)
                words = [w for w in self._titles.get(item, "").split() if len(w) > 2]
                if not words:
                    continue
                query = rng.choice(words)
                ours.append(_reciprocal(self._found(query, basket.user, basket.ts), item))
                plain = self._found(query, basket.user, basket.ts, personal=False)
                theirs.append(_reciprocal(plain, item))
        a, b = np.array(ours), np.array(theirs)
        different = bool((a != b).any())
        p = float(wilcoxon(a, b, alternative="greater").pvalue) if different else 1.0
        return {"queries": len(a), "mrr": round(float(a.mean()), 4),
                "mrr_unpersonalised": round(float(b.mean()), 4), "p": p}  # fmt: skip


def _spoilt(words: list[str], way: str, rng: random.Random) -> tuple[list[str], set[str]]:
    """A title's words with one left out or misspelt; and the words that are as they were."""
    at = rng.randrange(len(words))
    rest = words[:at] + words[at + 1 :]
    if way == "dropped":
        return rest, set(rest)
    word = words[at]
    n = rng.randrange(max(len(word) - 1, 1))
    wrong = word[:n] + word[n + 1 : n + 2] + word[n : n + 1] + word[n + 2 :]
    if wrong == word:
        wrong = word + "x"
    return [*words[:at], wrong, *words[at + 1 :]], set(rest)


def _reciprocal(found: list[str], item: str) -> float:
    return 1.0 / (1 + found.index(item)) if item in found else 0.0
