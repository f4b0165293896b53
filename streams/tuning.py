"""The language model adapted to a shop: which pairs teach, what is measured, when it is refused.

The log's pairs in order of time: the newest fifth measures the gain, the newest fifth of the rest
ends the training, what remains teaches. Pairs that taught are not measured: to have learned them by
heart is no gain.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from encoders.adapter import CONFIG, base_name, is_adapter, save_adapter, write_made
from encoders.text import TextEncoder
from encoders.text_config import MULTILINGUAL, TextConfig
from encoders.text_ranks import place_among, ranks
from encoders.tuning import Pairs, Shop, TuningConfig, tune
from online.events import Event, Item
from streams.covisits import Covisits, covisits
from streams.texts import text_of

Say = Callable[[str, int, int, str], None]  # what is done, how much, of how much, what to note

LEAST = 500  # pairs
HELD_OUT = VALIDATES = 0.2  # of the pairs
MOST = {"validation": 1_000, "measured": 5_000, "titles": 1_000}
RESAMPLES = 2_000
READ_AT_ONCE = 256
TOP = 10
TOGETHER, ANSWERS = "co-visited items", "query and item"  # what is taught


class TuningError(Exception):
    """Nothing can be learned, or nothing was gained."""


class Split(NamedTuple):
    learned: Covisits
    validation: Covisits
    held: Covisits  # pairs that are not among those
    earlier: Covisits  # all pairs before these


class Probe(NamedTuple):
    """What is asked of a model: to rank the items (N,) that go with texts (N,)."""

    name: str
    left: np.ndarray
    right: np.ndarray
    user: np.ndarray  # (N,) whose: they are drawn together


def adapt(
    events: Iterable[Event], items: list[Item], base: TextConfig, folder: Path,
    config: TuningConfig, say: Say, limit: int | None = None, force: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Learn an adapter, measure it as it would serve, and write it to `folder` if it gains.

    limit: only the newest so many pairs teach and validate. The report's `gains` says whether it
    was written. Raises TuningError, TextModelError, LogError.
    """
    refuse_folder(folder, force)
    if is_adapter(base.model):
        raise TuningError(f"{base.model} is an adapter itself: name the model that it belongs to")
    if base.model == MULTILINGUAL:
        raise TuningError(f"{base.model} cannot be adapted: name a model that transformers loads")
    said = {item.item_id: text_of(item) for item in items}
    found = covisits(events, said, config.seed)
    parts = split(found, limit, len(said))
    shop = _shop(items, list(said.values()), found.queries, parts.learned)
    probes, texts = _probes(parts, shop, config.seed)
    learned, validation = (Pairs(p.left, p.right) for p in (parts.learned, parts.validation))
    before = TextEncoder(base)
    version = before.name.rpartition("@")[2]
    untaught = _ranks(
        before, texts, shop.items, probes, lambda n: say("reading", n, len(texts), "")
    )
    del before
    tuned = tune(base, shop, learned, validation, config,
                 lambda n, of, note: say("training", n, of, note))  # fmt: skip
    report: dict[str, Any] = {
        "model": base_name(base), "base": version, "seed": config.seed,
        "pairs": {"found": len(found), "learned": len(parts.learned),
                  "validation": len(parts.validation), "held_out": len(parts.held)},
        "steps": tuned.steps, "best_step": tuned.best_step, "share": tuned.share,
        "curve": tuned.curve,
        "config": dataclasses.asdict(config),
    }  # fmt: skip
    beside = folder.absolute().with_name(folder.name + ".new")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        save_adapter(beside, tuned.model, base_name(base), {"base": version})
        served = TextEncoder(dataclasses.replace(base, model=str(beside), revision=""))
        taught = _ranks(
            served, texts, shop.items, probes, lambda n: say("reading", n, len(texts), "")
        )
        report["measured"] = [
            {"what": p.name, **_compared(p.user, untaught[p.name], taught[p.name], config.seed)}
            for p in probes
        ]
        report["gains"] = bool(tuned.best_step) and _gains(report["measured"])
        if report["gains"]:
            write_made(beside, report)
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return report


def refuse_folder(folder: Path, force: bool) -> None:
    """Raises TuningError when writing there would replace anything but, with force, an adapter."""
    if not folder.absolute().parent.is_dir():
        raise TuningError(f"{folder.absolute().parent} is no folder: make it, or name another")
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / CONFIG).is_file()):
        raise TuningError(f"{folder} is something else than an adapter: name a new folder")
    if any(folder.iterdir()) and not force:
        raise TuningError(f"{folder} holds an adapter: name a new folder, or use --force")


def split(found: Covisits, limit: int | None, items: int) -> Split:
    """What teaches, validates and measures. Raises TuningError when there are too few pairs."""
    if len(found) < LEAST:
        raise TuningError(
            f"the log has {len(found):,} pairs, at least {LEAST} are needed: a pair is two items of"
            " the catalogue with different texts that one user had in one session (without"
            " sessions: within 30 minutes), or a query and what its user clicked, carted or"
            " purchased within 10 minutes; a longer log has more, and --items must name its items"
        )
    cut = found.ts[int(len(found) * (1 - HELD_OUT))]
    earlier, held = found.some(found.ts < cut), found.some(found.ts >= cut)
    size = items + len(found.queries)
    usable = earlier.some(slice(-limit, None)) if limit else earlier  # type: ignore[arg-type]
    at = int(len(usable) * (1 - VALIDATES))
    learned = usable.some(np.arange(at))
    validation = _new(usable.some(np.arange(at, len(usable))), _keys(learned, size), size)
    held = _new(held, _keys(usable, size), size)
    if not (len(learned) and len(validation) and len(held)):
        raise TuningError(
            f"of {len(found):,} pairs, {len(learned):,} can teach, {len(validation):,} validate and"
            f" {len(held):,} measure: all are needed. Pairs that taught are not"
            " measured, and parts of one time stay together: a longer log has more"
        )
    newest = np.arange(max(len(validation) - MOST["validation"], 0), len(validation))
    return Split(learned, validation.some(newest), held, earlier)


def _keys(pairs: Covisits, size: int) -> np.ndarray:
    """A number of each pair (N,), the same both ways round."""
    low, high = np.minimum(pairs.left, pairs.right), np.maximum(pairs.left, pairs.right)
    return low * size + high


def _new(pairs: Covisits, before: np.ndarray, size: int) -> Covisits:
    """Those that are not among these, each once."""
    keys = _keys(pairs, size)
    _, first = np.unique(keys, return_index=True)
    first.sort()
    return pairs.some(first[~np.isin(keys[first], before)])


def _shop(items: list[Item], said: list[str], queries: list[str], learned: Covisits) -> Shop:
    numbers = {"": -1}
    category = [numbers.setdefault(i.category, len(numbers) - 1)
                for i in {item.item_id: item for item in items}.values()]  # fmt: skip
    popularity = np.bincount(learned.right, minlength=len(said)).astype(float)
    return Shop([*said, *queries], popularity, np.array(category, np.int64))


def _probes(parts: Split, shop: Shop, seed: int) -> tuple[list[Probe], list[str]]:
    """What is measured, and all texts that it needs: the shop's and some titles in part."""
    rng = np.random.default_rng(seed)
    held = parts.held
    some = np.sort(rng.permutation(len(held))[: MOST["measured"]])
    asked = some[held.left[some] >= shop.items]
    items = some[held.left[some] < shop.items]
    known = np.union1d(parts.earlier.left, parts.earlier.right)
    new = items[~np.isin(held.right[items], known) | ~np.isin(held.left[items], known)]
    named = {TOGETHER: items, "of these, one is new": new, ANSWERS: asked}
    probes = [
        Probe(name, held.left[at], held.right[at], held.user[at])
        for name, at in named.items() if len(at)
    ]  # fmt: skip
    long = [n for n in range(shop.items) if len(shop.texts[n].split()) >= 4]
    chosen = np.sort(rng.permutation(len(long))[: MOST["titles"]])
    own = np.array(long, np.int64)[chosen]
    texts = shop.texts + [_half(shop.texts[n], random.Random(f"{seed} {n}")) for n in own.tolist()]
    if len(own):
        left = np.arange(len(shop.texts), len(texts))
        probes.append(Probe("half an item's words and it", left, own, np.arange(len(own))))
    return probes, texts


def _half(text: str, rng: random.Random) -> str:
    words = text.split()
    return " ".join(words[n] for n in sorted(rng.sample(range(len(words)), len(words) // 2)))


def _ranks(
    encoder: TextEncoder, texts: list[str], items: int, probes: list[Probe],
    read: Callable[[int], None],
) -> dict[str, np.ndarray]:  # fmt: skip
    """By probe, the rank of each item among all of which something is said."""
    vectors = np.zeros((len(texts), encoder.width), np.float32)
    needed = np.unique(np.concatenate([np.arange(items), *(probe.left for probe in probes)]))
    order = sorted(needed.tolist(), key=lambda n: len(texts[n]))
    for at in range(0, len(order), READ_AT_ONCE):
        rows = order[at : at + READ_AT_ONCE]
        vectors[rows] = encoder.encode([texts[n] for n in rows])
        read(at)
    there = np.array([n for n in range(items) if texts[n]], np.int64)
    return {
        probe.name: ranks(
            vectors[probe.left], vectors[there], np.searchsorted(there, probe.right),
            place_among(there, probe.left),
        )
        for probe in probes
    }  # fmt: skip


def _compared(user: np.ndarray, before: np.ndarray, after: np.ndarray, seed: int) -> dict[str, Any]:
    """Recall and typical (geometric mean) rank; by what part that is better now, with its 95 %
    interval from a paired bootstrap of users."""
    gain = np.log(before) - np.log(after)
    _, owner = np.unique(user, return_inverse=True)
    total, count = np.bincount(owner, gain), np.bincount(owner)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        who = rng.integers(len(total), size=len(total))
        drawn.append(total[who].sum() / count[who].sum())
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "pairs": len(gain),
        "recall@10": [_rounded((r <= TOP).mean()) for r in (before, after)],
        "rank": [round(float(np.exp(np.log(r).mean())), 2) for r in (before, after)],
        "gain": _part(gain.mean()), "low": _part(low), "high": _part(high),
    }  # fmt: skip


def _part(logarithm: Any) -> float:
    """By what part a rank is lower whose logarithm is so much lower."""
    return _rounded(1 - np.exp(-logarithm))


def _rounded(value: Any) -> float:
    return round(float(value), 5)


def _gains(measured: list[dict[str, Any]]) -> bool:
    """What it was taught for is certainly better, and nothing certainly worse."""
    taught = [m for m in measured if m["what"] in (TOGETHER, ANSWERS)]
    return any(m["low"] > 0 for m in taught) and all(m["high"] >= 0 for m in measured)
